"""TLS of a client: whom it trusts, and who it says it is."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import httpx2

from heddle.errors import UsageError
from heddle.secrets import Secret

_ABOUT_US = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA", "TLSV1_ALERT_ACCESS_DENIED",
        "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    }
)  # fmt: skip
"""Alerts (RFC 8446, section 6.2, by OpenSSL's names) by which a server says that it does not take us for a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Mutual TLS: a certificate with its chain, and its key, in PEM files, which are read anew when they change.

    Without `key_file`, the key is in the certificate's file. `password`: of an encrypted key."""

    certificate_file: str
    key_file: str = ""
    password: Secret | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.certificate_file, self.key_file)))


class Tls:
    """Of one client. `ca_file`: authorities in place of the system's.

    Raises `UsageError` for files that cannot be read or do not belong together, and what `Secret.resolve` raises."""

    def __init__(self, owner: str, ca_file: str = "", client: ClientCertificate | None = None) -> None:
        self._owner = owner
        self._client = client
        self._loaded: object = None
        try:
            system = not ca_file
            self.context = (
                httpx2.create_ssl_context(trust_env=False) if system else ssl.create_default_context(cafile=ca_file)
            )
        except OSError as error:
            raise UsageError(f"{owner}: ca_file cannot be read ({error.strerror})") from None
        try:
            self._load()
        except OSError as error:
            told = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(
                f"{owner}: the client certificate cannot be loaded ({told})",
                hint="two PEM files are needed, certificate and key, that belong together",
            ) from None

    def renew(self) -> None:
        """Connections that are made from here on show the certificate that the files hold now. While only one of them
        has been replaced, the one before is shown."""
        try:
            self._load()
        except OSError:
            return

    def _load(self) -> None:
        """Tried in a context of its own first: a pair that does not fit would spoil the one in use."""
        if self._client is None:
            return
        found = [_version(path) for path in self._client.files]
        if found == self._loaded:
            return
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self.context):
            context.load_cert_chain(self._client.certificate_file, self._client.key_file or None, self._password)
        self._loaded = found

    def _password(self) -> str:
        """Asked for only where the key is encrypted; without one OpenSSL would ask the terminal."""
        password = self._client.password if self._client is not None else None
        return "" if password is None else password.resolve()


def refuses_us(error: BaseException) -> bool:
    """Whether the server ended the connection for what our certificate is, or for there being none: it has read nothing
    of a request then. In TLS 1.3 it may say so unheard: then the connection is a broken one like others."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return False
        if isinstance(seen, ssl.SSLError) and seen.reason in _ABOUT_US:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _version(path: str) -> tuple[int, int, int]:
    """Changes with the file, and with what a link points at."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino, found.st_size
