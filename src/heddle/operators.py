"""Operators: who may command a subscription. The key signs, and its name is the actor.

Public keys stand in `operators.toml` of the project, beside pyproject.toml, where a change of them is reviewed:

    [operators.ada]
    public_key = "MCowBQYDK2VwAyEA…"

Private keys stay with their owners, in `.heddle/operators/<name>.key` (PKCS 8, mode 0600). `heddle up` makes one, whose
public half is trusted on the local stack alone.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from heddle.errors import UsageError
from heddle.secrets import state_dir

FILE = "operators.toml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Operators:
    """Public keys by name."""

    keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)

    @staticmethod
    def load(root: Path, *, local: bool) -> Operators:
        """Those of the project; with `local` also the key that `heddle up` made. `UsageError` names what is wrong."""
        keys = _public_keys(root / FILE)
        if local:
            keys = _public_keys(root / ".heddle" / FILE) | keys
        return Operators(keys)

    @property
    def names(self) -> list[str]:
        return sorted(self.keys)

    def verify(self, actor: str, signature: str, statement: bytes) -> bool:
        """Whether that operator signed the statement; False for one who is not known."""
        key = self.keys.get(actor)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(signature, validate=True), statement)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """A private key, and the name that it signs under. Its text form shows the name only."""

    name: str
    _private: Ed25519PrivateKey = field(repr=False)

    def sign(self, statement: bytes) -> str:
        return base64.b64encode(self._private.sign(statement)).decode()

    @property
    def public(self) -> str:
        """As `operators.toml` holds it: base64 of the DER form."""
        public = self._private.public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    @staticmethod
    def load(name: str = "") -> OperatorKey:
        """The key of that name, else of HEDDLE_OPERATOR, else the only one there is."""
        folder = state_dir() / "operators"
        chosen = name or os.environ.get("HEDDLE_OPERATOR", "")
        present = sorted(path.stem for path in folder.glob("*.key"))
        if not chosen and len(present) == 1:
            chosen = present[0]
        if not chosen and present:
            raise UsageError(f"several operators have keys here: {', '.join(present)}", hint="set HEDDLE_OPERATOR")
        if chosen not in present:
            missing = f"of {chosen!r} " if chosen else ""
            raise UsageError(
                f"no operator key {missing}in {folder}",
                hint="`heddle up` makes one for the local stack; `heddle operators new NAME` makes one for a project",
            )
        return OperatorKey(chosen, _private_key(folder / f"{chosen}.key"))


def make_key(folder: Path, name: str) -> OperatorKey:
    """A new key pair; the private half is written below `folder`/operators, mode 0600. Never overwrites."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"an operator's name is lower-case letters, digits, '.', '-' and '_', not {name!r}")
    private = Ed25519PrivateKey.generate()
    path = folder / "operators" / f"{name}.key"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists", hint="choose another name, or remove the file") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return OperatorKey(name, private)


def entry_of(key: OperatorKey) -> str:
    """The lines for `operators.toml`."""
    return f'[operators."{key.name}"]\npublic_key = "{key.public}"\n'


def _public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("operators", {})
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint='write [operators.NAME] and public_key = "…"') from error
    return {name: _public_key(path, name, entry) for name, entry in table.items()}


def _public_key(path: Path, name: str, entry: Any) -> Ed25519PublicKey:
    try:
        key = serialization.load_der_public_key(base64.b64decode(entry["public_key"], validate=True))
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{path}: the public key of {name} cannot be read", hint="`heddle operators new` prints such lines"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: the key of {name} is not an Ed25519 key")
    return key


def _private_key(path: Path) -> Ed25519PrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(f"{path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} holds no private key in PKCS 8", hint="make another one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key")
    return key
