"""Secrets are references: `secret("ledger/dsn")` names one, `resolve()` reads it at use, nothing logs it.

Where values come from is an ordered list of providers, the first that has the name wins (`config.py`). What a store
across the network answered is used for as long as it may be (`cached.py`); what was resolved is known to `redact` for
ever, and to `in_use` as long as it is the one in use."""

from heddle.secrets.asking import MissingSecretError
from heddle.secrets.redaction import redact, remember
from heddle.secrets.reference import Secret, refresh_all, secret
from heddle.secrets.usage import Use, in_use

__all__ = ["MissingSecretError", "Secret", "Use", "in_use", "redact", "refresh_all", "remember", "secret"]
