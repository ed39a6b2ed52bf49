"""The key of payload hashes: a secret of the project."""

from __future__ import annotations

from hashlib import blake2b

from heddle.errors import UsageError
from heddle.secrets import secret

NAME = "audit/key"


def audit_key() -> bytes:
    """32 bytes of the secret `audit/key`, whatever text it is. Raises `UsageError` saying how to make one."""
    reference = secret(NAME)
    try:
        text = reference.resolve()
    except UsageError as error:
        if reference.path.exists():  # and cannot be read, or is empty: the error says what to do
            raise
        raise UsageError(
            f"the audit trail has no key: {error}",
            hint=f"`heddle up` makes one for the local stack; elsewhere set {reference.environment_name} to a long "
            "random text, the same for every worker",
        ) from None
    return blake2b(text.encode(), digest_size=32).digest()
