"""Operators: who may command a subscription. The key signs, and its name is the actor.

Public keys stand in `operators.toml` of the project, beside pyproject.toml, where a change of them is reviewed:

    [operators.ada]
    public_key = "MCowBQYDK2VwAyEA…"

Private keys stay with their owners, in `.heddle/operators/<name>.key` (PKCS 8, mode 0600). `heddle up` makes one, whose
public half is trusted on the local stack alone (`.heddle/operators.toml`).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from heddle.errors import UsageError
from heddle.root import state_dir

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
        return _public_text(self._private.public_key())

    @staticmethod
    def load(name: str = "") -> OperatorKey:
        """The key of that name, else of HEDDLE_OPERATOR, else the only one there is."""
        folder = state_dir()
        chosen = name or os.environ.get("HEDDLE_OPERATOR", "")
        present = private_names(folder)
        if not chosen and len(present) == 1:
            chosen = present[0]
        if not chosen and present:
            raise UsageError(f"several operators have keys here: {', '.join(present)}", hint="set HEDDLE_OPERATOR")
        if chosen not in present:
            missing = f"of {chosen!r} " if chosen else ""
            raise UsageError(
                f"no operator key {missing}in {folder / 'operators'}",
                hint="`heddle up` makes one for the local stack; `heddle operators new NAME` makes one for a project",
            )
        return OperatorKey(chosen, _private_key(_path(folder, chosen)))


def make_key(folder: Path, name: str) -> OperatorKey:
    """A new key pair; the private half is written below `folder`/operators, mode 0600. Never overwrites."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"an operator's name is lower-case letters, digits, '.', '-' and '_', not {name!r}")
    private = Ed25519PrivateKey.generate()
    path = _path(folder, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    scratch = _written(path.parent, pem)
    try:
        os.link(scratch, path)  # fails where the file exists, and never leaves half a key
    except FileExistsError:
        raise UsageError(f"{path} exists", hint="choose another name, or remove the file") from None
    finally:
        scratch.unlink()
    return OperatorKey(name, private)


def prepare_local(folder: Path, user: str) -> str | None:
    """The local stack trusts every key below `folder`; where there is none, one is made for `user`, and its name
    returned."""
    made = None
    if not private_names(folder):
        made = make_key(folder, _name_of(user)).name
    known = _public_keys(folder / FILE)
    fresh = [name for name in private_names(folder) if name not in known]
    if fresh:
        lines = [_entry(name, _public_text(key)) for name, key in known.items()]
        lines += [entry_of(OperatorKey(name, _private_key(_path(folder, name)))) for name in fresh]
        _written(folder, "\n".join(lines).encode()).replace(folder / FILE)
    return made


def entry_of(key: OperatorKey) -> str:
    """The lines for `operators.toml`."""
    return _entry(key.name, key.public)


def _entry(name: str, public: str) -> str:
    return f'[operators."{name}"]\npublic_key = "{public}"\n'


def _public_text(key: Ed25519PublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def _path(folder: Path, name: str) -> Path:
    return folder / "operators" / f"{name}.key"


def private_names(folder: Path) -> list[str]:
    """The operators whose private keys lie below `folder`, the `.heddle` of a project."""
    return sorted(path.stem for path in (folder / "operators").glob("*.key"))


def _name_of(user: str) -> str:
    """An operating-system user as an operator's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", user.lower()).lstrip("._-")[:63] or "operator"


def _written(folder: Path, data: bytes) -> Path:
    """A new file that only its owner can read."""
    descriptor, scratch = tempfile.mkstemp(dir=folder, prefix=".new-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return Path(scratch)


def _public_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("operators", {})
        entries = {str(name): entry["public_key"] for name, entry in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, LookupError) as error:
        raise UsageError(
            f"{path} cannot be read: {_why(error)}", hint='write [operators.NAME] and public_key = "…" for each'
        ) from error
    return {name: _public_key(path, name, text) for name, text in entries.items()}


def _public_key(path: Path, name: str, text: Any) -> Ed25519PublicKey:
    try:
        key = serialization.load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: the public key of {name} cannot be read", hint="`heddle operators new` prints such lines"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: the key of {name} is not an Ed25519 key")
    return key


def _private_key(path: Path) -> Ed25519PrivateKey:
    """What went wrong is told without its cause, which might repeat a part of the key."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise UsageError(f"{path} can be read by others (mode {mode:o})", hint=f"chmod 600 {path}")
            key = serialization.load_pem_private_key(file.read(), None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check its owner and mode") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{path} holds no private key in PKCS 8 without a password", hint="make another one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key", hint="make another one")
    return key


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"an operator without {error.args[0]}"
    if isinstance(error, tomllib.TOMLDecodeError | OSError):
        return str(error)
    return "it is not of that form"
