"""The fields of a mapped class that clients may filter and sort by: their types, values and operators."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, localcontext
from difflib import get_close_matches
from functools import cached_property
from ipaddress import ip_interface
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, WithJsonSchema
from pydantic import Field as Constrained
from pydantic_core import PydanticCustomError
from sqlalchemy import types as sa
from sqlalchemy.dialects.postgresql import CIDR, INET

from dotmac_database import FieldName, FilterOperator, Traits, ValidationError, names_for, traits_of

from .aliases import Annotation, AnyColumn, ColumnType, JsonObject
from .binary import Base64InUrl
from .declared import UNKNOWN, plain_type, value_type
from .readable import shown_by

_EQUALITY = (FilterOperator.EQ, FilterOperator.NE, FilterOperator.IN, FilterOperator.NOT_IN)
_ORDER = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE, FilterOperator.BETWEEN)
_TEXT = (
    FilterOperator.LIKE,
    FilterOperator.NOT_LIKE,
    FilterOperator.ILIKE,
    FilterOperator.NOT_ILIKE,
    FilterOperator.STARTS_WITH,
    FilterOperator.ENDS_WITH,
    FilterOperator.CONTAINS,
    FilterOperator.SEARCH,
)
_ARRAY = (FilterOperator.CONTAINS, FilterOperator.CONTAINED_BY, FilterOperator.OVERLAPS)
_NULL = (FilterOperator.IS_NULL, FilterOperator.IS_NOT_NULL)

_TEXT_USED = (FilterOperator.EQ, FilterOperator.ILIKE, FilterOperator.IN, FilterOperator.IS_NULL)
_ARRAY_USED = (FilterOperator.CONTAINS, FilterOperator.CONTAINED_BY, FilterOperator.OVERLAPS, FilterOperator.IS_NULL)
_USED = (
    FilterOperator.EQ,
    FilterOperator.GTE,
    FilterOperator.LT,
    FilterOperator.IS_NULL,
    FilterOperator.IN,
    FilterOperator.NE,
)

LISTS = frozenset({FilterOperator.IN, FilterOperator.NOT_IN, FilterOperator.BETWEEN, *_ARRAY[1:]})
"""The operators whose value is a list: ``a,b``, or a repeated parameter."""


@dataclass(frozen=True, eq=False)
class ClientField:
    """A field under its name for clients, which may be a dotted path, with the type of its column or expression.

    ``value_type`` is the Python type of its values if it differs from that of the column type; else None.
    """

    name: str
    type: ColumnType
    nullable: bool
    in_json: bool = False
    through: bool = False
    value_type: Annotation = None

    @cached_property
    def operators(self) -> tuple[FilterOperator, ...]:
        """The operators that clients may use with the field."""
        operators: tuple[FilterOperator, ...] = _EQUALITY
        type_ = plain_type(self.type)
        if isinstance(type_, sa.ARRAY):
            operators = _ARRAY
        elif self.in_json:
            operators = (*_EQUALITY, *_ORDER[:4])
        elif isinstance(type_, sa.Enum):
            pass
        elif isinstance(type_, sa.String):
            operators = (*_EQUALITY, *_ORDER, *_TEXT)
        elif not isinstance(type_, (sa.Boolean, sa.Uuid)):
            operators = (*_EQUALITY, *_ORDER)
        return (*operators, *_NULL) if self.nullable or self.in_json or self.through else operators

    @property
    def has_order(self) -> bool:
        """Whether rows can be sorted by the field."""
        return not isinstance(plain_type(self.type), sa.ARRAY)

    @cached_property
    def documented(self) -> tuple[FilterOperator, ...]:
        """The operators that OpenAPI documents: at most four, those that clients use most."""
        kinds = _ARRAY_USED if FilterOperator.CONTAINED_BY in self.operators else _TEXT_USED
        used = kinds if kinds[1] in self.operators else _USED
        return tuple(each for each in used if each in self.operators)[:4]

    @cached_property
    def annotation(self) -> Annotation:
        """The Python type that parses one value of a query string."""
        if self.in_json:
            return str
        type_ = plain_type(self.type)
        return text_type(type_.item_type if isinstance(type_, sa.ARRAY) else type_, self.value_type)

    @property
    def is_text(self) -> bool:
        """Whether the values are texts, which may contain commas."""
        return self.annotation in (str, Text)

    @cached_property
    def adapter(self) -> TypeAdapter[object]:
        """Parses one value of a query string."""
        return TypeAdapter(self.annotation)

    @cached_property
    def schema(self) -> JsonObject:
        """The JSON Schema of one value."""
        values = allowed_values(self.type)
        if values is not None and not self.in_json and self.value_type is None:
            return {"type": "string", "enum": values}
        return self.adapter.json_schema()


def python_type(type_: ColumnType) -> type | None:
    """The class of a type's values; None if the type does not declare it."""
    try:
        return type_.python_type
    except NotImplementedError:
        return None


def allowed_values(type_: ColumnType) -> list[str] | None:
    """The values of an enum as clients write them; None for other types."""
    type_ = plain_type(type_)
    if not isinstance(type_, sa.Enum):
        return None
    return list(type_.enums) if type_.enum_class is None else [str(member.value) for member in type_.enum_class]


def checked_text(value: str) -> str:
    """The text, if it contains no NUL, which PostgreSQL can't store. Else raises `ValueError`."""
    if "\x00" in value:
        raise ValueError("a text can't contain NUL")
    return value


def _written_as(pattern: str, expected: str) -> BeforeValidator:
    """Refuse texts of another form. Without this, Pydantic would accept a number of seconds as a timestamp."""
    form = re.compile(pattern)

    def check(value: object) -> object:
        if isinstance(value, str) and form.match(value) is None:
            raise PydanticCustomError("wrong_form", "Input should be {expected}", {"expected": expected})
        return value

    return BeforeValidator(check)


def _decimal(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, str) and _DECIMAL.fullmatch(value) is None):
        raise PydanticCustomError("decimal_parsing", "Input should be a valid decimal")
    return value


def _address(value: str) -> str:
    try:
        if "%" not in value and ip_interface(value):
            return value
    except ValueError:
        pass
    raise PydanticCustomError("ip_address", "Input should be an IP address or a network")


def _with_plus(longer_than: int) -> BeforeValidator:
    """Restore the "+" of a time zone: an unescaped one in a query string is decoded as a space."""

    def read(value: object) -> object:
        if isinstance(value, str) and len(value) > longer_than and value[-6:-5] == " " and value[-3:-2] == ":":
            return f"{value[:-6]}+{value[-5:]}"
        return value

    return BeforeValidator(read)


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _time_in_utc(value: time) -> time:
    offset = value.utcoffset()
    if offset is None:
        return value.replace(tzinfo=UTC)
    if abs(offset) >= timedelta(hours=16):  # https://www.postgresql.org/docs/current/datatype-datetime.html
        raise PydanticCustomError("time_zone", "Input should have a zone that is less than 16 hours from UTC")
    return value


INTEGER_BITS = ((sa.SmallInteger, 15), (sa.BigInteger, 63), (sa.Integer, 31))
"""The number of bits of each integer type, without the sign bit."""


def integer_type(bits: int) -> Annotation:
    """The type of an integer that fits in ``bits`` bits and a sign bit."""
    return Annotated[int, Constrained(ge=-(2**bits), le=2**bits - 1)]


TEXT_PATTERN = r"^[^\u0000]*$"
"""The JSON Schema pattern of texts without NUL."""

MOST_DIGITS = 300
"""The most digits before the decimal point if the column declares no precision.

SQLite stores the number as a double, which can't be much larger.
"""

_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
CLOCK_TEXT = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
CLOCK_FORM = _written_as(r"[0-9]{2}:[0-9]{2}", "a time")
SPAN_FORM = _written_as(r"[+-]?P|.*:", "a duration")
_DATED = _written_as(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "a date, or a date with a time")


def decimal_type(precision: int | None = None, scale: int | None = None) -> Annotation:
    """The type of a decimal, which is a JSON number, or a text if it must be exact.

    ``precision`` and ``scale`` are those of the column type; ``precision`` None: the size is not limited by the column.
    """
    scale = scale if scale is not None or precision is None else 0
    whole = MOST_DIGITS if precision is None else max(precision - (scale or 0), 0)
    fraction = "" if scale == 0 else rf"(\.[0-9]{{1,{scale or MOST_DIGITS}}})?"
    number: JsonObject = {"type": "number"}
    bound = least_too_great(precision, scale)
    if bound is not None:
        number |= {"exclusiveMinimum": -bound, "exclusiveMaximum": bound}
    text = {"type": "string", "pattern": rf"^[+-]?{f'[0-9]{{1,{whole}}}' if whole else '0'}{fraction}$"}
    most = Decimal(10) ** 1000 if precision is None else _rounded_up(precision, scale)
    return Annotated[
        Decimal,
        Constrained(allow_inf_nan=False, gt=-most, lt=most),
        BeforeValidator(_decimal),
        WithJsonSchema({"anyOf": [number, text]}),
    ]


def least_too_great(precision: int | None, scale: int | None) -> float | None:
    """The smallest double that is too great for a column with this precision and scale, after it has been rounded.

    None: the column declares no precision, or a precision that exceeds the range of a double.
    """
    if precision is None or precision - (scale or 0) > MOST_DIGITS:
        return None
    bound = _rounded_up(precision, scale)
    nearest = float(bound)
    return nearest if Decimal(repr(nearest)) >= bound else math.nextafter(nearest, math.inf)


def _rounded_up(precision: int, scale: int | None) -> Decimal:
    """The smallest decimal that is too great for a column with this precision and scale, after it has been rounded."""
    with localcontext(prec=precision + abs(scale or 0) + 2):
        return Decimal(10) ** (precision - (scale or 0)) - Decimal(5).scaleb(-(scale or 0) - 1)


# Pydantic accepts a duration only if its hours, minutes and seconds are together less than 2**32 seconds.
_SECONDS = r"[0-9]{1,8}(\.[0-9]{1,6})?S"
_MINUTES = rf"[0-9]{{1,6}}M({_SECONDS})?"
_HOURS = rf"[0-9]{{1,6}}H({_MINUTES}|{_SECONDS})?"
_TIME = rf"T({_HOURS}|{_MINUTES}|{_SECONDS})"
_FORWARDS, _BACKWARDS = (rf"P({days}D({_TIME})?|{_TIME})" for days in ("[0-9]{1,6}", "[0-5]?[0-9]{1,5}"))
SPAN = WithJsonSchema({"type": "string", "pattern": f"^({_FORWARDS}|-{_BACKWARDS})$"})
"""The documented form of a duration; other forms of ISO 8601 are accepted too.

On SQLite, SQLAlchemy stores a duration as the date and time that is so long after the start of 1970. The earliest
possible date is in the year 1, so a negative duration has at most 719,162 days.
"""

Text = Annotated[str, AfterValidator(checked_text), WithJsonSchema({"type": "string", "pattern": TEXT_PATTERN})]
Timestamp = Annotated[datetime, _DATED, _with_plus(longer_than=len("2026-01-31 23:59"))]
ZonedTimestamp = Annotated[Timestamp, AfterValidator(_in_utc)]
Day = Annotated[date, _DATED]
Clock = Annotated[time, CLOCK_FORM]
ZonedClock = Annotated[
    Clock,
    _with_plus(longer_than=len("23:59")),
    AfterValidator(_time_in_utc),
    WithJsonSchema({"type": "string", "pattern": rf"^{CLOCK_TEXT}(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])$"}),
]
Span = Annotated[timedelta, SPAN_FORM, SPAN]
Address = Annotated[
    str,
    AfterValidator(_address),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
]
_AnyDecimal = decimal_type()

# The order matters: Float is a Numeric, Interval may wrap a DateTime, the sized integers are Integers.
_TYPES: tuple[tuple[type[ColumnType], Annotation], ...] = (
    (sa.String, Text),
    (sa.Boolean, bool),
    *((kind, integer_type(bits)) for kind, bits in INTEGER_BITS),
    (sa.Float, Annotated[float, Constrained(allow_inf_nan=False)]),
    (sa.Numeric, _AnyDecimal),
    (sa.Uuid, UUID),
    (sa.Interval, Span),
    (sa.DateTime, Timestamp),
    (sa.Date, Day),
    (sa.Time, Clock),
    (sa.LargeBinary, Base64InUrl),
    (INET, Address),
    (CIDR, Address),
)


_TEXTS: dict[type, Annotation] = {
    str: Text,
    bytes: Base64InUrl,
    datetime: Timestamp,
    date: Day,
    time: Clock,
    timedelta: Span,
    Decimal: _AnyDecimal,
    float: Annotated[float, Constrained(allow_inf_nan=False)],
}


def text_type(type_: ColumnType, values: Annotation = None) -> Annotation:
    """The Python type that parses a value of this column type in a query string or a path.

    ``values`` is the Python type of the column's values if it differs from that of the column type; else None.
    """
    if values not in (None, UNKNOWN):
        if isinstance(values, type) and issubclass(values, enum.Enum):
            return Annotated[values, _by_name(values)]
        return _TEXTS.get(values, values) if isinstance(values, type) else values
    type_ = plain_type(type_)
    if isinstance(type_, sa.Enum):
        names: tuple[str, ...] = tuple(type_.enums)
        return Literal[names] if type_.enum_class is None else Annotated[type_.enum_class, _by_name(type_.enum_class)]
    if isinstance(type_, sa.DateTime) and type_.timezone:
        return ZonedTimestamp
    if isinstance(type_, sa.Time) and type_.timezone:
        return ZonedClock
    for kind, annotation in _TYPES:
        if isinstance(type_, kind):
            return annotation
    return Span if python_type(type_) is timedelta else Text


def _by_name(members: type[enum.Enum]) -> BeforeValidator:
    """Accept an enum's members by the text of their values, and by their names."""
    known: dict[str, enum.Enum] = {**members.__members__, **{str(member.value): member for member in members}}
    return BeforeValidator(lambda value: known.get(value, value) if isinstance(value, str) else value)


def public_columns(traits: Traits[object]) -> dict[str, AnyColumn]:
    """The columns that clients may see: no private ones, which begin with ``_`` or have ``info={"private": True}``."""
    return {
        key: column for key, column in traits.columns.items() if not key.startswith("_") and key not in traits.private
    }


def fields_of(model: type, names: Iterable[FieldName], schema: type | None = None) -> dict[str, ClientField]:
    """The named fields of ``model``. Without names, those of ``schema`` (None: of the derived read schema).

    Without names, the tenant and soft-delete columns are excluded. Raises `ValidationError` for an unknown field, and
    for a private column.
    """
    traits: Traits[object] = traits_of(model)
    named = names_for(model, names) or list(_default_fields(traits, schema))
    return {name: _field(traits, name) for name in named}


def sortable_fields(
    model: type, names: Collection[FieldName], among: Iterable[FieldName] = (), schema: type | None = None
) -> dict[str, ClientField]:
    """The named fields. Without names, those of ``among`` that rows can be sorted by; without both, of `fields_of`.

    Raises `ValidationError` for an unknown field, for a named one that has no order, and for a private column.
    """
    if not names:
        return {name: each for name, each in fields_of(model, among, schema).items() if each.has_order}
    fields = fields_of(model, names)
    for name, each in fields.items():
        if not each.has_order:
            raise ValidationError(f"Rows can't be sorted by {model.__name__}.{name}: it is an array.", field=name)
    return fields


def refuse_private(model: type, name: str) -> None:
    """Raise `ValidationError` if a dotted path leads to a private column, or through a private relationship.

    A synonym gives a column whose name begins with ``_`` a public name, but no column with ``info={"private": True}``.
    """
    owner: Traits[object] = traits_of(model)
    for part in name.split("."):
        written, part = part, _canonical(owner, part)
        if written.startswith("_") or part in owner.private:
            raise ValidationError(
                f"{owner.name}.{part} is private: a client can neither filter nor sort by it.", field=name
            )
        if part not in owner.relationships:
            return
        owner = traits_of(owner.relationships[part].mapper.class_)


def _default_fields(traits: Traits[object], schema: type | None) -> Iterator[str]:
    hidden = {traits.tenant, traits.is_deleted, traits.deleted_at}
    for key, column in public_columns(traits).items():
        type_ = plain_type(column.type)
        if schema is not None and key not in shown_by(schema):
            continue
        if key not in hidden and not isinstance(type_, (sa.JSON, sa.LargeBinary, sa.PickleType)):
            yield key


def _canonical(owner: Traits[object], part: str) -> str:
    synonym = owner.mapper.synonyms.get(part)
    return part if synonym is None else synonym.name


def _field(root: Traits[object], name: str) -> ClientField:
    refuse_private(root.model, name)
    owner, through = root, False
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part in owner.relationships:
            owner, through = traits_of(owner.relationships[part].mapper.class_), True
            continue
        part = _canonical(owner, part)
        column = owner.columns.get(part)
        expression = column if column is not None else owner.public_expression(part)
        if expression is None:
            known = sorted(
                each for each in {*owner.columns, *owner.relationships} - owner.private if not each.startswith("_")
            )
            near = get_close_matches(part, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}."
            raise ValidationError(f"{owner.name} has no field {part!r}{hint}", field=name)
        inside = position + 1 < len(parts)
        if inside and not isinstance(plain_type(expression.type), sa.JSON):
            raise ValidationError(f"{owner.name}.{part} is neither a relationship nor JSON.", field=name)
        nullable = column is None or bool(column.nullable)
        values = None if column is None or inside else value_type(owner, part)
        return ClientField(name, expression.type, nullable, in_json=inside, through=through, value_type=values)
    raise ValidationError(f"{name!r} is a relationship of {root.name}; name a field of the related class.", field=name)
