"""OAuth 2.0 with a refresh token that rotates: each may be used once, and the answer to its use holds the next.

Whoever loses the newest has to ask a person for consent again. So it is in a file before the access token that came
with it is used, and one process at a time renews. A file and not the source's position: a position is in a Kafka topic,
where more people read than may have this token. Copies on several machines need the folder on a volume that they
share."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote_plus

import httpx2
import orjson
from filelock import FileLock, Timeout

from heddle.errors import AuthError, TransientError, UsageError
from heddle.http.auth import EARLY_S, Auth, Credentials, token_of
from heddle.root import state_dir
from heddle.secrets import Secret, remember

LOCK_WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken(Auth):
    """RFC 6749, section 6. `first`: the refresh token that a person's consent has given; when it is another than
    before, it is the one that counts. `name`: of the file that keeps the newest, in `folder`, or `.heddle/oauth`."""

    name: str
    token_url: str
    client_id: str
    first: Secret
    client_secret: Secret | None = None
    scope: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.name or not all(c.islower() or c.isdigit() or c == "-" for c in self.name):
            raise UsageError(f"RefreshToken: name {self.name!r} is not lower-case letters, digits and hyphens")

    def open(self) -> Credentials:
        self.first.resolve()
        return _Rotating(self)

    @property
    def hosts(self) -> tuple[str, ...]:
        return (httpx2.URL(self.token_url).host,)

    def request(self, refresh_token: str) -> httpx2.Request:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        if self.scope:
            form["scope"] = self.scope
        headers = {"Accept": "application/json"}
        if self.client_secret is None:
            form["client_id"] = self.client_id
        else:
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.resolve())}"
            packed = base64.b64encode(pair.encode()).decode()
            remember(packed)
            headers["Authorization"] = f"Basic {packed}"
        return httpx2.Request("POST", self.token_url, data=form, headers=headers)


class _Rotating:
    """The lock is held from the request for a renewal to its answer. Of a request that is never answered it is let go
    with this object."""

    def __init__(self, declared: RefreshToken) -> None:
        self._declared = declared
        folder = declared.folder or state_dir() / "oauth"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{declared.name}.json"
        self._lock = FileLock(folder / f"{declared.name}.lock", thread_local=False)
        self._token = ""
        self._ends_at = 0.0

    def renewal(self) -> httpx2.Request | None:
        if self._token and time.monotonic() < self._ends_at:
            return None
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=LOCK_WAIT_S)
            except Timeout:
                raise TransientError(f"another process is renewing the token {self._declared.name}") from None
        try:
            newest = self._newest()
            self._keep(newest)  # a disk that is full is known before this token is spent on one that cannot be kept
            return self._declared.request(newest)
        except BaseException:
            self._lock.release()
            raise

    def renewed(self, response: httpx2.Response) -> None:
        """Whatever else is wrong with an answer, the next refresh token in it is the only one that is still good."""
        try:
            following = _following(response)
            if following:
                remember(following)
                self._keep(following)
            token, lifetime_s = token_of(response)
            remember(token)
        except AuthError as error:
            if "invalid_grant" not in str(error):
                raise
            raise AuthError(
                f"{error}: the refresh token {self._declared.name} has ended, or was used before",
                hint=f"have a person consent anew, and give that token as secret {self._declared.first.name}",
            ) from error
        finally:
            self._lock.release()
        self._token = token
        self._ends_at = time.monotonic() + max(lifetime_s - EARLY_S, lifetime_s / 2)

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def refused(self) -> None:
        self._token = ""
        self._declared.first.refresh()

    def _newest(self) -> str:
        """What is in the file, if it came of the consent that is declared."""
        first = self._declared.first.resolve()
        with contextlib.suppress(FileNotFoundError):
            try:
                kept = orjson.loads(self._path.read_bytes())
                if kept["first"] == _digest(first):
                    remember(str(kept["refresh_token"]))
                    return str(kept["refresh_token"])
            except (ValueError, LookupError, TypeError) as error:
                raise UsageError(
                    f"{self._path} holds no refresh token",
                    hint="remove it, and give a new consent's token as the secret if the first was used already",
                ) from error
        return first

    def _keep(self, refresh_token: str) -> None:
        """Durable when this returns: the one before is worth nothing any more."""
        kept = orjson.dumps({"first": _digest(self._declared.first.resolve()), "refresh_token": refresh_token})
        written = self._path.with_suffix(".new")
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, kept)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        written.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _following(response: httpx2.Response) -> str:
    """The next refresh token; "" where the one before stays good."""
    try:
        answer = orjson.loads(response.content) if response.status_code == 200 else None
    except ValueError:
        return ""
    found = answer.get("refresh_token") if isinstance(answer, dict) else None
    return found if isinstance(found, str) else ""


def _digest(token: str) -> str:
    return blake2b(token.encode(), digest_size=16).hexdigest()
