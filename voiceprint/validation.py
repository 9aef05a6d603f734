"""Checks of caller ids, metadata, times and embeddings for all stores.

Each function returns the value in its canonical form or raises `InvalidArgumentError`. No message
holds metadata or an embedding.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from voiceprint.errors import InvalidArgumentError

if TYPE_CHECKING:
    from typing import TypeGuard

    from numpy.typing import NDArray

MAX_CALLER_ID_LENGTH = 512
MAX_METADATA_DEPTH = 64
MAX_METADATA_BYTES = 1_000_000

_SHOWN_LENGTH = 80

EMBEDDING_DIMENSIONS = {"resemblyzer": 256}
"""Dimensions of the embedding spaces of this package; another encoder may have any."""

# float32 rounding leaves the norm of a unit vector within about 1e-7 of 1. A norm this close to 1 is not
# normalized again, so that saving, reading and saving again changes no bit.
UNIT_TOLERANCE = 1e-5

_CANONICAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII).fullmatch


def shown(value: object) -> str:
    """An invalid value for a message: numbers and shortened text; only the type of other values."""
    if isinstance(value, str):
        return repr(hide_passwords(value)[:_SHOWN_LENGTH])
    if value is None or (isinstance(value, Number) and not _is_huge(value)):
        return repr(value)
    return f"of type {type(value).__name__}"


def is_postgresql_url(url: str) -> bool:
    """Whether a URL names a PostgreSQL database, with the driver psycopg or without a driver."""
    return re.match(r"postgres(ql(\+psycopg)?)?://", url) is not None


def hide_passwords(url: str) -> str:
    """`url` without possible passwords: all before its last @, and the values of its query."""
    hidden = re.sub(r"(?s)^([\w+]+:(?://)?)?.*@", r"\1***@", url)
    return re.sub(r"=[^&]*", "=***", hidden)


def _is_huge(number: Number) -> bool:
    # `repr` raises for an int of thousands of digits.
    return isinstance(number, int) and number.bit_length() > 128


def check_caller_id(caller_id: object) -> str:
    """The caller id as an exact `str`: 1 to 512 characters of valid Unicode, unchanged."""
    if not isinstance(caller_id, str):
        raise InvalidArgumentError(
            f"A caller id is a str of 1 to {MAX_CALLER_ID_LENGTH} characters, not {type(caller_id).__name__}."
        )
    text = str.__str__(caller_id)  # a str subclass, such as an Enum member, becomes its plain value
    if not text:
        raise InvalidArgumentError("The caller id is empty: give the caller a name of 1 character or more.")
    if len(text) > MAX_CALLER_ID_LENGTH:
        raise InvalidArgumentError(
            f"The caller id has {len(text)} characters ({text[:20]!r}...): at most "
            f"{MAX_CALLER_ID_LENGTH} are allowed."
        )
    if not _is_unicode(text):
        raise InvalidArgumentError(
            "The caller id holds half of a surrogate pair, which is not a character and cannot be stored."
        )
    return text


def check_metadata(metadata: object) -> dict[str, Any]:
    """A copy of the metadata that every store returns equal: a JSON object.

    Allowed: dict with str keys, list, str, bool, int of 64 bits, finite float, None; nested at most
    64 levels deep and at most 1 MB as JSON text. Other values, such as a tuple, set,
    datetime or NaN, would not come back equal.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InvalidArgumentError(f"Metadata is a dict (a JSON object), not {type(metadata).__name__}.")
    if not metadata:  # usual in a bulk import
        return {}
    size = _Budget(MAX_METADATA_BYTES)
    plain: dict[str, Any] = _plain_json(metadata, depth=1, budget=size)
    return plain


class _Budget:
    """Counts down the characters that metadata may still hold, to stop early in huge metadata."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise InvalidArgumentError(
                f"The metadata is larger than {MAX_METADATA_BYTES:,} bytes as JSON: "
                "store large data elsewhere, and its key here."
            )


def _plain_json(value: object, depth: int, budget: _Budget) -> Any:
    if depth > MAX_METADATA_DEPTH and isinstance(value, list | dict):
        raise InvalidArgumentError(f"The metadata is nested more than {MAX_METADATA_DEPTH} levels deep.")
    if value is None or isinstance(value, bool):
        budget.spend(5)
        return value
    if isinstance(value, str):
        return _plain_text(value, budget)
    if isinstance(value, int):
        number = int(value)
        if not -(2**63) <= number < 2**63:
            raise InvalidArgumentError("The metadata holds an integer beyond 64 bits: store it as text.")
        budget.spend(20)
        return number
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgumentError(
                "The metadata holds a NaN or infinite number, which JSON cannot hold: use None."
            )
        budget.spend(24)
        return float(value)
    if isinstance(value, list):
        budget.spend(2)
        return [_plain_json(item, depth + 1, budget) for item in value]
    if isinstance(value, dict):
        budget.spend(2)
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidArgumentError(
                    f"Metadata keys are str; one is {type(key).__name__}, which JSON cannot hold."
                )
            result[_plain_text(key, budget)] = _plain_json(item, depth + 1, budget)
        return result
    raise InvalidArgumentError(
        f"The metadata holds a {type(value).__name__}, which JSON cannot hold: "
        "use str, int, float, bool, None, list or dict."
    )


def nesting_depth(value: Any) -> int:
    """The number of lists and objects nested in each other in a JSON value."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]
    return deepest


def _plain_text(value: str, budget: _Budget) -> str:
    text = str.__str__(value)
    if not _is_unicode(text):
        raise InvalidArgumentError(
            "The metadata holds half of a surrogate pair, which is not a character and cannot be stored."
        )
    budget.spend(len(text) + 3)
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which no file, table or server can store
        return False
    return True


def now() -> str:
    """The current time in canonical form: ISO 8601, UTC, microseconds, with a `Z`."""
    return format_time(datetime.now(timezone.utc))


def format_time(moment: datetime) -> str:
    """`moment` as ISO 8601 UTC with a `Z`; without a time zone, it is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    try:
        moment = moment.astimezone(timezone.utc)
    except OverflowError as error:  # a zone shift beyond the years 1 to 9999
        raise InvalidArgumentError(f"The time {moment.isoformat()!r} is out of range in UTC.") from error
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def just_after(time: str) -> str:
    """`time`, in canonical form, plus one microsecond, the resolution of the stores."""
    try:
        return format_time(datetime.fromisoformat(time.replace("Z", "+00:00")) + timedelta(microseconds=1))
    except OverflowError:  # the end of the year 9999
        return time


def check_time(value: object) -> str | None:
    """A time in canonical form from a datetime or ISO 8601 text, or None."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, str):
        text = value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:  # neither chained nor quoted: the text may hold personal data
            raise InvalidArgumentError(
                "A time is ISO 8601 text, such as 2026-01-31T09:30:00Z, and this text is not."
            ) from None
        if _CANONICAL_TIME(value):  # every time that a store returns
            return value
        return format_time(moment)
    raise InvalidArgumentError(f"A time is a datetime or ISO 8601 text, not {type(value).__name__}.")


def check_embedding(embedding: object, encoder: str) -> NDArray[np.float32]:
    """The embedding as a unit vector: read-only float32[n], n the dimension of the encoder's space."""
    unit = unit_vector(embedding)
    expected = EMBEDDING_DIMENSIONS.get(encoder, unit.size)
    if unit.size != expected:
        raise InvalidArgumentError(
            f"The embedding has {unit.size} values; the space {encoder!r} has {expected}."
        )
    unit.flags.writeable = False
    return unit


def check_augmented(
    augmented: object, encoder: str, embedding: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """The augmented embedding, as from `check_embedding` and with the length of `embedding`; or None."""
    if augmented is None:
        return None
    unit = check_embedding(augmented, encoder)
    if embedding is not None and unit.size != embedding.size:
        raise InvalidArgumentError(
            f"The embedding for simulated lines has {unit.size} values; the plain one has {embedding.size}."
        )
    return unit


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an int, also of numpy, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, also of numpy, and not a bool."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.complexfloating)


def unit_vector(embedding: object) -> NDArray[np.float32]:
    """`embedding` (1-D, finite, not all zero; array or sequence of numbers) as a new float32 unit vector."""
    if isinstance(embedding, np.ma.MaskedArray):
        raise InvalidArgumentError("The embedding is a masked array, which may lack values: give an array.")
    if isinstance(embedding, np.ndarray) and embedding.dtype == np.float32 and embedding.ndim == 1:
        # The usual case, six times as fast, for bulk imports. A NaN or infinite value fails the comparison.
        with np.errstate(over="ignore", invalid="ignore"):
            square = float(np.dot(embedding, embedding))
        if abs(square - 1.0) <= 2 * UNIT_TOLERANCE:
            return np.array(embedding, dtype=np.float32)
    try:
        numbers = np.asarray(embedding)
        # `astype` alone would accept text, bool and the real part of complex numbers.
        # A signaling NaN, as in damaged files; a long double over the range of doubles.
        with np.errstate(invalid="ignore", over="ignore"):
            vector = numbers.astype(np.float64) if numbers.dtype.kind in "fiu" else None
    except (TypeError, ValueError, OverflowError):
        # numpy's message may quote the values, which are biometric data: it is not chained.
        vector = None
    if vector is None:
        raise InvalidArgumentError(
            f"An embedding is a 1-D array or list of numbers; this {type(embedding).__name__} is not."
        )
    if vector.ndim != 1 or vector.size == 0:
        raise InvalidArgumentError(
            f"An embedding is 1-D and not empty; this one has the shape {vector.shape}."
        )
    if not np.isfinite(vector).all():
        raise InvalidArgumentError("The embedding holds NaN or infinite values.")
    peak = float(np.abs(vector).max())
    if peak == 0.0:
        raise InvalidArgumentError("The embedding is all zero: it has no direction to compare.")
    norm = peak * float(np.linalg.norm(vector / peak))  # scaled first: squares of huge values overflow
    if abs(norm - 1.0) > UNIT_TOLERANCE:
        vector = vector / peak
        vector /= np.linalg.norm(vector)
    return vector.astype(np.float32)
