"""What exceptions of other libraries say: by name, so that none of the libraries is imported for it.

Their own texts are not passed on: URLs, statements and inputs in them hold payload content."""

from __future__ import annotations

import email.utils
import errno
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

from heddle.errors import FailureClass
from heddle.sinks import sqlstate


class Known(NamedTuple):
    """`text` is empty where the exception's own is harmless. `target`: the host that it was about, if it says so.

    `effect_unknown`: the request may have reached the target, whose answer is lost."""

    failure_class: FailureClass
    code: str
    text: str = ""
    path: str = ""
    target: str = ""
    retry_after_s: float | None = None
    effect_unknown: bool = False


def known(error: BaseException) -> Known | None:
    """None for what no rule knows, and for an exception that cannot be looked into."""
    for kind in type(error).__mro__:
        rule = _RULES.get((kind.__module__.partition(".")[0], kind.__qualname__))
        if rule is not None:
            try:
                return rule(error)
            except Exception:
                return None
    return None


def _http_transport(failure_class: FailureClass, effect_unknown: bool, error: Any) -> Known:
    kind, host = type(error).__name__, _host(error)
    text = kind + (f" at {host}" if host else "") + (f": {cause}" if (cause := _system_reason(error)) else "")
    return Known(failure_class, sqlstate.kebab(kind), text, target=host, effect_unknown=effect_unknown)


def _http_status(error: Any) -> Known:
    response, host = error.response, _host(error)
    status = int(response.status_code)
    text = f"HTTP {status} {_PHRASES.get(status, '')}".rstrip() + f" from {host}, to {error.request.method}"
    return Known(
        _class_of_status(status),
        f"http-{status}",
        text,
        target=host,
        retry_after_s=_retry_after_s(response.headers.get("retry-after"), response.headers.get("date")),
        effect_unknown=status in _ANSWERS_IN_THE_DARK,
    )


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
# What fails inside of the target, or between it and a gateway, may have had its effect.
_ANSWERS_IN_THE_DARK = frozenset({500, 502, 504})


def _class_of_status(status: int) -> FailureClass:
    if status in (401, 403, 407):
        return FailureClass.AUTH
    if status == 429:
        return FailureClass.RATE_LIMIT
    if status in (408, 425) or status >= 500:
        return FailureClass.TRANSIENT
    return FailureClass.POISON if status >= 400 else FailureClass.UNKNOWN


def _retry_after_s(given: str | None, answered_at: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date, compared with the answer's own, so that clocks may differ."""
    if not given:
        return None
    if given.strip().isdecimal():
        return float(given)
    moment = _http_date(given)
    if moment is None:
        return None
    return max(0.0, (moment - (_http_date(answered_at) or datetime.now(UTC))).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _host(error: Any) -> str:
    """An exception that was never bound to its request raises `RuntimeError` when asked for it."""
    try:
        return str(error.request.url.host)
    except (AttributeError, RuntimeError):
        return ""


def _system_reason(error: BaseException) -> str:
    """What the operating system or TLS said, underneath the library's own exceptions."""
    return next((each.strerror for each in _chain(error) if isinstance(each, OSError) and each.strerror), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _postgres(error: Any) -> Known:
    state = error.sqlstate
    if state is None:
        return Known(FailureClass.UNKNOWN, "postgres", f"psycopg.{type(error).__name__}")
    condition, diag = sqlstate.condition_of(error, state), error.diag
    table, column, constraint = diag.table_name, diag.column_name, diag.constraint_name
    text = f"PostgreSQL: {condition} ({state})" + (f" in {table}" if table else "")
    text += f", constraint {constraint}" if constraint else ""
    path, undecided = column or constraint or "", sqlstate.is_undecided(state)
    return Known(sqlstate.failure_class_of(state), condition, text, path, effect_unknown=undecided)


def _postgres_data(error: Any) -> Known:
    if error.sqlstate is not None:
        return _postgres(error)
    return Known(FailureClass.CONTRACT, "unstorable", "PostgreSQL: a value does not fit its parameter")


def _postgres_connection(error: Any) -> Known:
    """Without SQLSTATE: a connect that failed, or a connection that broke, perhaps before a commit was answered."""
    if error.sqlstate is not None:
        return _postgres(error)
    connecting = error.pgconn
    host = connecting.host.decode(errors="replace") if connecting is not None else ""
    if sqlstate.REFUSED.search(str(error)):
        return Known(FailureClass.AUTH, "postgres-refused", "PostgreSQL refuses the credentials", target=host)
    text = "PostgreSQL does not answer" if connecting is not None else "the connection to PostgreSQL failed or broke"
    return Known(FailureClass.DEPENDENCY_DOWN, "postgres-down", text, target=host, effect_unknown=connecting is None)


def _kafka(error: Any) -> Known:
    reason = error.args[0]
    name = str(reason.name())
    code = name.strip("_").lower().replace("_", "-")
    return Known(_class_of_kafka(reason, name), f"kafka-{code}", f"Kafka: {reason.str()}")


def _class_of_kafka(reason: Any, name: str) -> FailureClass:
    if name.endswith("AUTHORIZATION_FAILED") or name in _KAFKA_CREDENTIALS:
        return FailureClass.AUTH
    if reason.fatal():
        return FailureClass.OURS
    if name == "THROTTLING_QUOTA_EXCEEDED":
        return FailureClass.RATE_LIMIT
    return FailureClass.TRANSIENT if reason.retriable() or name in _KAFKA_PASSING else FailureClass.UNKNOWN


_KAFKA_CREDENTIALS = frozenset(
    {"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE"}
)
# The client calls an error retriable only in transactions.
_KAFKA_PASSING = frozenset(
    {
        "_TRANSPORT",
        "_ALL_BROKERS_DOWN",
        "_RESOLVE",
        "_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_MSG_TIMED_OUT",
        "_QUEUE_FULL",
        "_WAIT_COORD",
        "REQUEST_TIMED_OUT",
        "BROKER_NOT_AVAILABLE",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "NOT_COORDINATOR",
        "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "NETWORK_EXCEPTION",
        "NOT_ENOUGH_REPLICAS",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    }
)


def _validation(error: Any) -> Known:
    """Of pydantic. Its own text repeats the input; the kinds of its errors do not."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    kind = str(first["type"])
    count = error.error_count()
    text = f"{error.title} refuses {count} value{'s' if count > 1 else ''}, first: {kind}" + (
        f" at {path}" if path else ""
    )
    return Known(FailureClass.CONTRACT, kind.replace("_", "-"), text, path)


def _json(error: Any) -> Known:
    text = f"not JSON: {error.msg.partition(':')[0]} at line {error.lineno}, column {error.colno}"
    return Known(FailureClass.CONTRACT, "malformed-json", text)


def _unicode(error: Any) -> Known:
    text = f"text that is not {error.encoding}: {error.reason} at {error.start}"
    return Known(FailureClass.CONTRACT, "invalid-text", text)


def _connection(error: Any) -> Known:
    kind, reason = type(error).__name__, error.strerror
    return Known(FailureClass.TRANSIENT, "connection", f"{kind}: {reason}" if reason else kind)


def _timeout(error: Any) -> Known:
    return Known(FailureClass.TRANSIENT, "timeout", "" if error.args else "timed out")


def _system(error: Any) -> Known | None:
    return _connection(error) if error.errno in _UNREACHABLE else None


_UNREACHABLE = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETRESET}
)

_TRANSIENT, _POISON, _UNKNOWN = FailureClass.TRANSIENT, FailureClass.POISON, FailureClass.UNKNOWN
_Rule: TypeAlias = Callable[[Any], Known | None]
_HTTP: dict[str, _Rule] = {
    # Nothing was sent.
    "ConnectError": partial(_http_transport, _TRANSIENT, False),
    "ConnectTimeout": partial(_http_transport, _TRANSIENT, False),
    "PoolTimeout": partial(_http_transport, _TRANSIENT, False),
    "ProxyError": partial(_http_transport, _TRANSIENT, False),
    # Something was, perhaps all of it.
    "TransportError": partial(_http_transport, _TRANSIENT, True),
    "DecodingError": partial(_http_transport, _UNKNOWN, True),
    # The request itself is wrong.
    "LocalProtocolError": partial(_http_transport, _POISON, False),
    "UnsupportedProtocol": partial(_http_transport, _POISON, False),
    "InvalidURL": partial(_http_transport, _POISON, False),
    "HTTPStatusError": _http_status,
    "HTTPError": partial(_http_transport, _UNKNOWN, False),
}
_RULES: dict[tuple[str, str], _Rule] = {
    **{("httpx2", name): rule for name, rule in _HTTP.items()},
    ("psycopg", "OperationalError"): _postgres_connection,
    ("psycopg", "DataError"): _postgres_data,
    ("psycopg", "Error"): _postgres,
    ("cimpl", "KafkaException"): _kafka,
    ("pydantic_core", "ValidationError"): _validation,
    ("json", "JSONDecodeError"): _json,
    ("builtins", "UnicodeDecodeError"): _unicode,
    ("builtins", "UnicodeEncodeError"): _unicode,
    ("builtins", "TimeoutError"): _timeout,
    ("builtins", "ConnectionError"): _connection,
    ("socket", "gaierror"): _connection,
    ("builtins", "OSError"): _system,
}
"""By the top package of the module that a class names as its own, and the class's name; its bases count too."""
