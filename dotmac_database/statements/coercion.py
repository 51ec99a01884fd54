"""Converts values to the Python type of their column, before they are sent.

For example, asyncpg refuses ``"2024-01-01"`` for a timestamp column, and SQLite would compare it as text. Here the
value becomes the same datetime for both. A naive timestamp is interpreted as UTC. A value that can't be converted
raises `ValueError` with a description of the expected values; the caller adds the model, the field and the operator.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic import ValidationError as PydanticError
from sqlalchemy import types as sa
from sqlalchemy.dialects.postgresql import CIDR, INET, INTERVAL
from sqlalchemy.engine import Dialect

from ..dialects.spans import converts, underlying
from ..types import UTCDateTime, as_utc, is_sqlmodels_timestamp, undecorated
from .bounds import MAX_JSON_DEPTH, TOO_DEEP, checked_depth

Coercer = Callable[[Any], Any]

_INTEGER_BITS = ((sa.SmallInteger, 15), (sa.BigInteger, 63), (sa.Integer, 31))
_TRUTH = {"true": True, "t": True, "yes": True, "on": True, "1": True} | {
    "false": False, "f": False, "no": False, "off": False, "0": False,
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LONGEST = datetime.max.replace(tzinfo=UTC) - _EPOCH
"""The shortest and the longest duration that SQLAlchemy can store if the database has no INTERVAL: it then stores the
sum of 1970-01-01 and the duration."""

_DURATION = TypeAdapter(timedelta)
_BINDING = ("process_bind_param", "bind_processor", "bind_expression")

_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def coercer(type_: sa.TypeEngine[object], *, storing: bool = False) -> Coercer:
    """The function that converts a value to the Python type of ``type_``, or raises `ValueError`.

    With ``storing``, it also checks the column's length and precision, and rounds to the column's scale. A type that
    converts values itself (a `TypeDecorator` with its own ``process_bind_param``) gets them unchanged.
    """
    if isinstance(type_, (sa.Interval, INTERVAL)):  # Interval is a TypeDecorator, but its values are timedeltas
        return _interval
    if isinstance(type_, UTCDateTime) or is_sqlmodels_timestamp(type_):
        return _timestamp
    if isinstance(type_, sa.TypeDecorator):
        if binds_by_itself(type_):
            return checked_depth if isinstance(undecorated(type_), sa.JSON) else _unchanged
        return coercer(type_.impl_instance, storing=storing)
    for kind, make in _MAKERS:
        if isinstance(type_, kind):
            return make(type_, storing)
    return _unchanged


def binds_by_itself(type_: sa.TypeDecorator[object]) -> bool:
    """Whether a decorator converts the values that are bound, so that it gets them unchanged."""
    return any(getattr(type(type_), hook) is not getattr(sa.TypeDecorator, hook) for hook in _BINDING)


def comparer(type_: sa.TypeEngine[object], dialect: Dialect) -> Coercer:
    """As `coercer`, for a value that is compared with a column. A user's own type is also called, to check the value.

    If that type refuses the value, the function raises `ValueError`. Without this check, the type would raise any
    exception later, while the statement is sent, when the name of the field is no longer known.
    """
    coerce = coercer(type_)
    if not converts(type_):
        return coerce if coerce is not _unchanged or _is_mapping(type_) else _no_mapping
    decorator: Any = type_
    if not isinstance(type_, sa.TypeDecorator) or isinstance(type_, sa.PickleType):
        return coerce
    stored = coercer(underlying(type_, dialect))

    def compare(value: object) -> object:
        value = coerce(value)
        try:
            bound = decorator.process_bind_param(value, dialect)
        except NotImplementedError:
            return value  # the type converts values by another method
        except Exception:  # noqa: BLE001 - the user's code can raise anything
            raise ValueError(f"a value that {type(decorator).__name__} takes") from None
        if bound is not None and not isinstance(decorator.impl_instance, sa.TypeDecorator):
            stored(bound)
        return value

    return compare


def _is_mapping(type_: sa.TypeEngine[object]) -> bool:
    """Whether values of the type can be dicts. True for a type that accepts any value, and for a user-defined type."""
    try:
        return isinstance(type_, (sa.NullType, sa.PickleType, sa.UserDefinedType)) or type_.python_type is dict
    except NotImplementedError:
        return False


def _no_mapping(value: object) -> object:
    if isinstance(value, Mapping):
        raise ValueError("one value")
    return value


def short_repr(value: object) -> str:
    """A short ``repr`` of any value, for messages."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int with too many digits, or a class with a broken __repr__
        text = f"this {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}…"


def _unchanged(value: object) -> object:
    return value


def _text(type_: sa.String, storing: bool) -> Coercer:
    limit = type_.length if storing else None

    def coerce(value: object) -> str:
        if type(value) is str:
            return checked_text(value, limit)
        if isinstance(value, Enum) and isinstance(value, str):
            value = value.value
        if isinstance(value, (UUID, Decimal)) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("text")
        return checked_text(value, limit)

    return coerce


def checked_text(value: str, limit: int | None = None) -> str:
    """``value``. Raises `ValueError` if it contains NUL or a lone surrogate, or has more than ``limit`` characters."""
    if "\x00" in value:
        raise ValueError("text without NUL characters")
    if limit is not None and len(value) > limit:
        raise ValueError(f"text of at most {limit} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("text without lone surrogates") from None
    return value


def _enum(type_: sa.Enum, storing: bool) -> Coercer:
    members = type_.enum_class
    if members is None:
        allowed = frozenset(type_.enums)

        def coerce_name(value: object) -> str:
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(f"one of {', '.join(type_.enums)}")
            return value

        return coerce_name

    def coerce(value: object) -> object:
        if isinstance(value, members):
            return value
        plain = value.value if isinstance(value, Enum) else value
        try:
            return members(plain)
        except (ValueError, TypeError):
            if isinstance(plain, str) and plain in members.__members__:
                return members[plain]
        raise ValueError(f"one of {', '.join(str(member.value) for member in members)}")

    return coerce


def _is_whole(value: float | Decimal) -> bool:
    """Whether a number is an integer. A Decimal with more than 40 digits does not count as one."""
    # math.isfinite raises for a signalling NaN, and int(Decimal("1e999999")) takes minutes.
    if isinstance(value, Decimal):
        return value.is_finite() and value.adjusted() < 40 and value == value.to_integral_value()
    return float(value).is_integer()


def _integer(type_: sa.Integer, storing: bool) -> Coercer:
    bits = next(bits for kind, bits in _INTEGER_BITS if isinstance(type_, kind))
    limit = 2**bits

    def coerce(value: object) -> int:
        if type(value) is int and -limit <= value < limit:
            return value
        if (isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,30}\s*", value, re.ASCII)) or (
            isinstance(value, (float, Decimal)) and _is_whole(value)
        ):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("an integer")
        if not -limit <= value < limit:
            raise ValueError(f"an integer of {bits + 1} bits")
        return value

    return coerce


def _decimal(type_: sa.Numeric[Any], storing: bool) -> Coercer:
    step = Decimal(1).scaleb(-type_.scale) if storing and type_.scale is not None else None
    whole = 10 ** (type_.precision - (type_.scale or 0)) if storing and type_.precision is not None else None

    def coerce(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
            raise ValueError("a number")
        try:
            number = Decimal(str(value)) if isinstance(value, (float, str)) else Decimal(value)
        except InvalidOperation:
            raise ValueError("a number") from None
        if not number.is_finite():
            raise ValueError("a finite number")
        if number.adjusted() > 1000 or number.adjusted() < -1000:
            raise ValueError("a number of sensible size, with an exponent between -1000 and 1000")
        if step is not None:
            number = number.quantize(step, ROUND_HALF_UP) if number.adjusted() < 25 else number
        if whole is not None and abs(number) >= whole:
            raise ValueError(f"a number of at most {type_.precision} digits, {type_.scale or 0} after the point")
        return number if type_.asdecimal else float(number)

    return coerce


def _float(type_: sa.Float[Any], storing: bool) -> Coercer:
    def coerce(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
            raise ValueError("a number")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise ValueError("a number") from None
        if math.isnan(number):
            raise ValueError("a number, not NaN")
        return Decimal(str(number)) if type_.asdecimal else number

    return coerce


def _boolean(type_: sa.Boolean, storing: bool) -> Coercer:
    def coerce(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        if isinstance(value, str) and value.strip().lower() in _TRUTH:
            return _TRUTH[value.strip().lower()]
        raise ValueError("true or false")

    return coerce


def _uuid(type_: sa.Uuid[Any], storing: bool) -> Coercer:
    def coerce(value: object) -> object:
        if not isinstance(value, UUID):
            if not isinstance(value, str):
                raise ValueError("a UUID")
            try:
                value = UUID(value)
            except ValueError:
                raise ValueError("a UUID") from None
        return value if type_.as_uuid else str(value)

    return coerce


def _timestamp(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError("an ISO 8601 timestamp") from None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ValueError("a timestamp")
    try:
        return as_utc(value)
    except OverflowError:
        raise ValueError("a timestamp between the years 1 and 9999, in UTC") from None


def _datetime(type_: sa.DateTime, storing: bool) -> Coercer:
    if type_.timezone:
        return _timestamp
    return lambda value: _timestamp(value).replace(tzinfo=None)


def _date(type_: sa.Date, storing: bool) -> Coercer:
    def coerce(value: object) -> date:
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        moment = _timestamp(value) if isinstance(value, (str, datetime)) else None
        if moment is None or moment.time() != time():
            raise ValueError("an ISO 8601 date")
        return moment.date()

    return coerce


def _time(type_: sa.Time, storing: bool) -> Coercer:
    def coerce(value: object) -> time:
        if isinstance(value, str):
            try:
                value = time.fromisoformat(value.strip())
            except ValueError:
                raise ValueError("an ISO 8601 time") from None
        if not isinstance(value, time):
            raise ValueError("a time")
        return value

    return coerce


def _interval(value: object) -> timedelta:
    if isinstance(value, str) and value.lstrip("+-").startswith("P"):
        try:
            value = _DURATION.validate_python(value)
        except PydanticError:
            raise ValueError("a duration, such as PT5S") from None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            value = timedelta(seconds=value)
        except (OverflowError, ValueError):
            raise ValueError("a duration in seconds") from None
    if not isinstance(value, timedelta):
        raise ValueError("a duration")
    if not _SHORTEST <= value <= _LONGEST:
        raise ValueError("a duration that a calendar from 1970 can hold, in the years 1 to 9999")
    return value


def _bytes(type_: object, storing: bool) -> Coercer:
    def coerce(value: object) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise ValueError("bytes")
        return bytes(value)

    return coerce


def _json(type_: object, storing: bool) -> Coercer:
    def coerce(value: object) -> object:
        try:
            json_text(value)
        except ValueError:
            plain = _without_models(value)
            if plain is value:
                raise
            json_text(plain)
            return plain
        return value

    return coerce


def _without_models(value: object) -> object:
    """A JSON document with each Pydantic object replaced by its JSON form; ``value`` itself if it contains none."""
    has_models = False

    def dumped(each: object) -> object:
        nonlocal has_models
        if not isinstance(each, BaseModel):
            raise TypeError
        has_models = True
        return each.model_dump(mode="json")

    try:
        text = json.dumps(value, default=dumped)
    except (TypeError, ValueError, RecursionError):
        return value
    return json.loads(text) if has_models else value


def json_text(value: object) -> str:
    """``value`` as JSON text that all dialects can store. Raises `ValueError` if there is no such text."""
    try:
        text = json.dumps(value, allow_nan=False)
        if "\\ud" in text:
            json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except (TypeError, ValueError):
        raise ValueError("a JSON value") from None
    # The depth can't exceed the number of brackets, so most values need no search. Brackets in strings count, too.
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH:
        checked_depth(value)
    if "\\u0000" in text and _NUL_IN_JSON.search(text):
        raise ValueError("a JSON value without NUL characters")
    return text


def _array(type_: sa.ARRAY[object], storing: bool) -> Coercer:
    item = coercer(type_.item_type, storing=storing)

    def each(value: Any) -> list[object]:
        return [None if member is None else each(member) if isinstance(member, list) else item(member)
                for member in value]  # fmt: skip

    def coerce(value: Any) -> list[object]:
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
            raise ValueError("a list")
        members = list(value)
        if _dimensions(members) > _MAX_DIMENSIONS:
            raise ValueError(f"a list of at most {_MAX_DIMENSIONS} dimensions")
        _extents(members)
        return each(members)

    return coerce


_MAX_DIMENSIONS = 6  # PostgreSQL's MAXDIM


def _dimensions(members: list[object]) -> int:
    """How deep lists nest, counted up to `_MAX_DIMENSIONS` + 1. Only lists that are not too deep go to `_extents`."""
    level, depth = [members], 0
    while level and depth <= _MAX_DIMENSIONS:
        level = [member for each in level for member in each if isinstance(member, list)]
        depth += 1
    return depth


def _extents(members: list[object]) -> tuple[int, ...]:
    """The length of the lists in each dimension. Raises `ValueError` if it differs: an array must be rectangular."""
    nested = [member for member in members if isinstance(member, list)]
    if not nested:
        return (len(members),)
    inner = {_extents(member) for member in nested}
    if len(nested) != len(members) or len(inner) > 1 or [] in nested:
        raise ValueError("a list of values, or of lists of the same length")
    return (len(members), *inner.pop())


def _address(_type: sa.TypeEngine[object], _storing: bool) -> Coercer:
    """Coerces IP addresses and networks to text: with asyncpg, SQLAlchemy sends the addresses of many rows as text."""

    def coerce(value: object) -> str:
        if not isinstance(value, (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
            raise ValueError("an IP address or network")
        return checked_text(str(value))

    return coerce


# The order matters: Enum is a subclass of String.
_MAKERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, bool], Coercer]], ...] = (
    (sa.Enum, _enum),
    (sa.String, _text),
    (sa.Boolean, _boolean),
    (sa.Integer, _integer),
    (sa.Float, _float),
    (sa.Numeric, _decimal),
    (sa.Uuid, _uuid),
    (sa.DateTime, _datetime),
    (sa.Date, _date),
    (sa.Time, _time),
    (sa.LargeBinary, _bytes),
    (sa.JSON, _json),
    (sa.ARRAY, _array),
    ((INET, CIDR), _address),
)
