"""The key of payload hashes: a secret of the project."""

from __future__ import annotations

from hashlib import blake2b

from heddle.errors import UsageError
from heddle.secrets import MissingSecretError, secret

NAME = "audit/key"


def audit_key() -> bytes:
    """32 bytes of the secret `audit/key`, whatever text it is. Raises `UsageError` saying how to make one.

    Read once by each worker: the hashes of one process are comparable. A new key counts from its next start."""
    try:
        text = secret(NAME).resolve()
    except MissingSecretError as error:
        if error.name != NAME:  # a store's own credentials
            raise
        raise UsageError(
            f"the audit trail has no key: {error}",
            hint=f"`heddle up` makes one for the local stack; elsewhere {error.hint}: a long random text, the same for "
            "every worker",
        ) from None
    return blake2b(text.encode(), digest_size=32).digest()
