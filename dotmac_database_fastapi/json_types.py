"""The JSON types of column values: how generated routes validate, serialize and document them.

The documentation of an input value matches what is accepted, as far as JSON Schema can express it. Therefore texts are
not accepted for numbers, nor ``true`` for 1, although Pydantic would convert them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError
from sqlalchemy import types as sa
from sqlalchemy.dialects.postgresql import CIDR, INET

from .aliases import Annotation, ColumnType, JsonObject
from .binary import AnyJsonValue, Base64
from .declared import plain_type
from .fields import (
    CLOCK_FORM,
    CLOCK_TEXT,
    INTEGER_BITS,
    SPAN,
    SPAN_FORM,
    TEXT_PATTERN,
    Address,
    Day,
    Timestamp,
    ZonedClock,
    checked_text,
    decimal_type,
    integer_type,
    least_too_great,
    python_type,
)


@dataclass(frozen=True, eq=False)
class Documented:
    """An annotation that adds constraints to a type's JSON Schema. Something else, as the database, enforces them."""

    said: Mapping[str, object]

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        """Pydantic's own schema with the additions."""
        return {**handler(schema), **self.said}


@dataclass(frozen=True, eq=False)
class DocumentedAs:
    """An annotation that gives a type the JSON Schema of another type, including its shared components."""

    annotation: Annotation

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        """Pydantic's own schema of the other type."""
        return handler(TypeAdapter(self.annotation).core_schema)


def _no(expected: str, *refused: type) -> BeforeValidator:
    """Refuse values of these types, which Pydantic would convert."""

    def check(value: object) -> object:
        if isinstance(value, refused) and not (isinstance(value, bool) and bool not in refused):
            raise PydanticCustomError("wrong_type", "Input should be {expected}", {"expected": expected})
        return value

    return BeforeValidator(check)


def _documented(annotation: Annotation, schema: JsonObject) -> Annotation:
    return Annotated[annotation, WithJsonSchema(schema)]


def _text(value: timedelta) -> str:
    """A duration in ISO 8601, in days, hours, minutes and seconds: the units of fixed length."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06d}".rstrip("0") if value.microseconds else ""
    clock = "".join(
        f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M"), (f"{seconds}{fraction}", "S"))
        if str(number) != "0"
    )  # fmt: skip
    days = f"{value.days}D" if value.days else ""
    return f"{sign}P{days}T{clock}" if clock else f"{sign}P{days}" if days else "PT0S"


DURATION_PATTERN = r"^-?P([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]{1,6})?S)?)?$"
Duration = Annotated[
    timedelta,
    PlainSerializer(_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}, mode="serialization"),
]
"""A duration in JSON. JSON Schema's format "duration" (RFC 3339, appendix A) allows neither signs nor fractions."""

LocalTime = _documented(time, {"type": "string", "pattern": f"^{CLOCK_TEXT}$"})
"""A time without a zone. JSON Schema's format "time" (RFC 3339, full-time) would require one."""

_NAIVE = _documented(datetime, {"type": "string", "pattern": f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{CLOCK_TEXT}$"})
"""A timestamp without a zone, in responses. The format "date-time" would require one."""

_UUID_AS_TEXT: Annotation = Annotated[
    str, BeforeValidator(lambda value: str(UUID(str(value)))), WithJsonSchema({"type": "string", "format": "uuid"})
]
"""A UUID of a column whose Python values are texts."""

_NUMBERS = (bool, int, float)
_MOMENT = _no("a text", *_NUMBERS)

# The column type, the type in responses, and the type in requests. The order matters: Interval may wrap a DateTime.
_TYPES: tuple[tuple[type[ColumnType], Annotation, Annotation], ...] = (
    (sa.Boolean, bool, Annotated[bool, _no("true or false", int, float, str, bytes)]),
    (sa.Interval, Duration, Annotated[Duration, SPAN_FORM, SPAN, _MOMENT]),
    (sa.Date, date, Annotated[Day, _MOMENT]),
    (sa.LargeBinary, Base64, Base64),
    (INET, AnyJsonValue, Address),
    (CIDR, AnyJsonValue, Address),
)


def _finite(bound: float | None = None) -> Annotation:
    """A finite number, exclusively between ``-bound`` and ``bound``. (JSON has neither infinities nor NaN.)"""
    return Annotated[
        float,
        Field(allow_inf_nan=False, gt=None if bound is None else -bound, lt=bound),
        _no("a number", bool, str, bytes),
    ]


_WRITTEN: dict[type, Annotation] = {
    bool: _TYPES[0][2],
    int: Annotated[int, _no("an integer", bool, str, bytes)],
    float: _finite(),
    Decimal: decimal_type(),
    datetime: Annotated[Timestamp, _MOMENT],
    date: Annotated[Day, _MOMENT],
    time: Annotated[time, CLOCK_FORM, _MOMENT],
    timedelta: Annotated[Duration, SPAN_FORM, SPAN, _MOMENT],
    bytes: Base64,
}
"""The types in requests, by the Python type of the values."""


def written_type(values: Annotation) -> Annotation:
    """The type in requests for values of this Python type."""
    return _WRITTEN.get(values, values) if isinstance(values, type) else values


_OF_PYTHON: dict[type | None, Annotation] = {
    timedelta: Duration, datetime: datetime, date: date, time: time, bytes: Base64,
}  # fmt: skip
"""The types in responses for a dialect's own column types, by the Python type of their values."""


def json_type(type_: ColumnType, *, written: bool) -> Annotation:
    """The type of a column's values in requests (``written``) or in responses."""
    type_ = plain_type(type_)
    for kind, make in _MAKERS:
        if isinstance(type_, kind):
            return make(type_, written)
    for kind, read, taken in _TYPES:
        if isinstance(type_, kind):
            return taken if written else read
    return _OF_PYTHON.get(python_type(type_), AnyJsonValue)


def _enum(type_: sa.Enum, written: bool) -> Annotation:
    if type_.enum_class is None:
        return Literal[tuple(type_.enums)]
    # Python considers True equal to 1, so an enum with the value 1 would accept a JSON true.
    holds_bool = any(isinstance(member.value, bool) for member in type_.enum_class)
    if not written or holds_bool:
        return type_.enum_class
    return Annotated[type_.enum_class, _no("a value of the enum", bool)]


def _string(type_: sa.String, written: bool) -> Annotation:
    text: Annotation = str if type_.length is None else Annotated[str, Field(max_length=type_.length)]
    if not written:
        return text
    return Annotated[text, AfterValidator(checked_text), Documented({"pattern": TEXT_PATTERN})]


def _integer(type_: sa.Integer, written: bool) -> Annotation:
    if not written:
        return int
    bits = next(bits for kind, bits in INTEGER_BITS if isinstance(type_, kind))
    bounded: Annotation = Annotated[integer_type(bits), _no("an integer", bool, str, bytes)]
    # Most programs read JSON Schema's "maximum" as a double, which can't represent this bound.
    return _documented(bounded, {"type": "integer", "format": "int64"}) if bits > 53 else bounded


def _number(type_: sa.Numeric[Decimal] | sa.Numeric[float], written: bool) -> Annotation:
    if not written:
        return Decimal if type_.asdecimal else float
    if not type_.asdecimal:
        return _finite(None if isinstance(type_, sa.Float) else least_too_great(type_.precision, type_.scale))
    return decimal_type() if isinstance(type_, sa.Float) else decimal_type(type_.precision, type_.scale)


def _timestamp(type_: sa.DateTime, written: bool) -> Annotation:
    if written:
        return Annotated[Timestamp, _MOMENT]
    return datetime if type_.timezone else _NAIVE


def _time(type_: sa.Time, written: bool) -> Annotation:
    if type_.timezone:
        return Annotated[ZonedClock, _MOMENT] if written else time
    return Annotated[LocalTime, CLOCK_FORM, _MOMENT, AfterValidator(_without_zone)] if written else LocalTime


def _without_zone(value: time) -> time:
    if value.tzinfo is not None:
        raise PydanticCustomError("time_zone", "Input should be a time without a zone: the column has none")
    return value


def _uuid(type_: sa.Uuid[UUID], _written: bool) -> Annotation:
    return UUID if type_.as_uuid else _UUID_AS_TEXT


def _json(_type: sa.JSON, _written: bool) -> Annotation:
    return Any


def _array(type_: sa.ARRAY[object], written: bool) -> Annotation:
    """Nested lists of the declared dimensions. If none are declared, the members may be lists themselves."""
    plain: Annotation = json_type(type_.item_type, written=written) | None
    member = plain | list[Any] if type_.dimensions is None else plain
    rows: Annotation = tuple[member, ...] if type_.as_tuple else list[member]  # type: ignore[valid-type]  # known at run time
    for _ in range((type_.dimensions or 1) - 1):
        rows = tuple[rows, ...] if type_.as_tuple else list[rows]
    if type_.dimensions is None:
        # Nested lists must have equal lengths, which JSON Schema can't express.
        documented = DocumentedAs(list[plain])
        return Annotated[rows, AfterValidator(_of_values), documented] if written else Annotated[rows, documented]
    return rows


def _of_values(rows: Sequence[object]) -> Sequence[object]:
    """Refuse nested lists without any value, which PostgreSQL would store as one empty array."""
    inner = rows
    while inner and isinstance(inner[0], (list, tuple)):
        inner = [value for row in inner if isinstance(row, (list, tuple)) for value in row]
    if inner is not rows and all(value is None for value in inner):
        raise PydanticCustomError("empty_lists", "Input should have a value in at least one of its nested lists")
    return rows


_MAKERS: tuple[tuple[type[ColumnType], Callable[[Any, bool], Annotation]], ...] = (
    (sa.Enum, _enum),
    (sa.String, _string),
    (sa.ARRAY, _array),
    (sa.Uuid, _uuid),
    (sa.Integer, _integer),
    (sa.Numeric, _number),
    (sa.Float, _number),
    (sa.JSON, _json),
    (sa.Time, _time),
    (sa.DateTime, _timestamp),
)
