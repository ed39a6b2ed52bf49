"""The chained record of what was done: by batches and by operators."""

from heddle.audit.key import audit_key
from heddle.audit.record import AuditTrail, Line
from heddle.audit.tail import AuditRecord, external_reset, first_break, heads, parse, read

__all__ = [
    "AuditRecord",
    "AuditTrail",
    "Line",
    "audit_key",
    "external_reset",
    "first_break",
    "heads",
    "parse",
    "read",
]
