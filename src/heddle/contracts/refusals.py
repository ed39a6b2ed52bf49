"""Every way in which a contract refuses a value or bytes: one class and one stable `code` each.

`path` is the field path (`lines[2].amount`); messages name types and limits, never content."""

from __future__ import annotations

from heddle.errors import ContractError, DecodeError, EncodeError, Failure


class MissingFieldError(EncodeError):
    """A field without a default is not there."""

    code = "missing-field"


class UnknownFieldError(EncodeError):
    """A dict holds a key that the record does not have: most often a misspelt name."""

    code = "unknown-field"


class WrongTypeError(EncodeError):
    code = "wrong-type"


class UnknownSymbolError(EncodeError):
    code = "unknown-symbol"


class OutOfRangeError(EncodeError):
    """An int outside of 32 or 64 bits, a float too large, a duration that the logical type cannot hold."""

    code = "out-of-range"


class DecimalPrecisionError(EncodeError):
    code = "decimal-precision"


class DecimalScaleError(EncodeError):
    """More digits after the point than the contract keeps. Heddle does not round behind anybody's back."""

    code = "decimal-scale"


class NaiveDatetimeError(EncodeError):
    """A datetime without zone where the contract wants a moment, or with one where it wants local time."""

    code = "naive-datetime"


class WrongLengthError(EncodeError):
    code = "wrong-length"


class InvalidTextError(EncodeError):
    """A str that UTF-8 cannot say (lone surrogates)."""

    code = "invalid-text"


class TooLargeError(EncodeError):
    code = "too-large"


class TooDeepError(EncodeError):
    code = "too-deep"


class TombstoneError(DecodeError):
    """A null value: on a compacted topic, the deletion of its key."""

    code = "tombstone"


class BadKeyError(DecodeError):
    """A record key that the contract's key fields cannot have made."""

    code = "bad-key"


class TrailingBytesError(DecodeError):
    code = "trailing-bytes"


class BadVarintError(DecodeError):
    code = "bad-varint"


class InvalidUtf8Error(DecodeError):
    code = "invalid-utf8"


class BadIndexError(DecodeError):
    """An enum or union index that the writer's schema does not have."""

    code = "bad-index"


class BadValueError(DecodeError):
    """Bytes that no value of the type can have: a boolean of 7, a negative length, a decimal of no bytes."""

    code = "bad-value"


class DecodedRangeError(DecodeError):
    """A number, date or decimal outside of what the contract can hold."""

    code = "out-of-range"


class LimitError(DecodeError):
    """More bytes, items or nesting than any honest record has."""

    code = "over-limit"


class IncompatibleWriterError(ContractError):
    """The writer's schema cannot be read as this contract, or is of another contract."""

    code = "incompatible-writer"


def failure_of(index: int, error: ContractError) -> Failure:
    """The row of a batch's failure list for one refused record."""
    return Failure(index, error.failure_class, error.code, error.path, str(error), error)
