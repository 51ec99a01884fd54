"""The fields of a mapped class that a client may name: their types, values and operators."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, TypeAdapter
from pydantic import Field as Constrained
from sqlalchemy import Column
from sqlalchemy import types as sa

from dotmac_database import FilterOperator, Traits, ValidationError, traits_of

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

LISTS = frozenset({FilterOperator.IN, FilterOperator.NOT_IN, FilterOperator.BETWEEN, *_ARRAY[1:]})
"""Operators whose value is a list: ``a,b``, or the parameter repeated."""


@dataclass(frozen=True, eq=False)
class ClientField:
    """A field by the name that clients use, which may be a dotted path, and the column or expression behind it.

    ``value_type`` is the Python type of its values where that is not the type's own.
    """

    name: str
    type: sa.TypeEngine[Any]
    nullable: bool
    in_json: bool = False
    through: bool = False
    value_type: Any = None

    @cached_property
    def operators(self) -> tuple[FilterOperator, ...]:
        """What a client may compare it with."""
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

    @cached_property
    def annotation(self) -> Any:
        """The type of one value, as it stands in a query string."""
        if self.in_json:
            return str
        type_ = plain_type(self.type)
        return text_type(type_.item_type if isinstance(type_, sa.ARRAY) else type_, self.value_type)

    @property
    def is_text(self) -> bool:
        """Whether a value may have commas of its own."""
        return self.annotation in (str, Text)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Reads one value from its text."""
        return TypeAdapter(self.annotation)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """One value in OpenAPI's words."""
        values = allowed_values(self.type)
        if values is not None and not self.in_json and self.value_type is None:
            return {"type": "string", "enum": values}
        return self.adapter.json_schema()


def python_type(type_: sa.TypeEngine[Any]) -> type | None:
    """The class of a type's values; None: it does not say."""
    try:
        return type_.python_type
    except NotImplementedError:
        return None


def allowed_values(type_: sa.TypeEngine[Any]) -> list[str] | None:
    """The values of an enum as clients write them; None: the type is none."""
    type_ = plain_type(type_)
    if not isinstance(type_, sa.Enum):
        return None
    return list(type_.enums) if type_.enum_class is None else [str(member.value) for member in type_.enum_class]


def _text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("NUL is no character of a text")
    return value


def _timestamp(value: Any) -> Any:
    # An unescaped "+" of a zone arrives as a blank.
    if isinstance(value, str) and len(value) > 16 and value[-6:-5] == " " and value[-3:-2] == ":":
        return f"{value[:-6]}+{value[-5:]}"
    return value


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _bits(bits: int) -> Any:
    return Annotated[int, Constrained(ge=-(2**bits), le=2**bits - 1)]


Text = Annotated[str, AfterValidator(_text)]
Timestamp = Annotated[datetime, BeforeValidator(_timestamp)]
ZonedTimestamp = Annotated[Timestamp, AfterValidator(_in_utc)]

# The order matters: Float is a Numeric, Interval may wrap a DateTime, the sized integers are Integers.
_TYPES: tuple[tuple[type[sa.TypeEngine[Any]], Any], ...] = (
    (sa.String, Text),
    (sa.Boolean, bool),
    (sa.SmallInteger, _bits(15)),
    (sa.BigInteger, _bits(63)),
    (sa.Integer, _bits(31)),
    (sa.Float, Annotated[float, Constrained(allow_inf_nan=False)]),
    (sa.Numeric, Annotated[Decimal, Constrained(allow_inf_nan=False, max_digits=1000)]),
    (sa.Uuid, UUID),
    (sa.Interval, timedelta),
    (sa.DateTime, Timestamp),
    (sa.Date, date),
    (sa.Time, time),
    (sa.LargeBinary, Base64InUrl),
)


_TEXTS: dict[type, Any] = {
    str: Text,
    bytes: Base64InUrl,
    datetime: Timestamp,
    Decimal: Annotated[Decimal, Constrained(allow_inf_nan=False, max_digits=1000)],
    float: Annotated[float, Constrained(allow_inf_nan=False)],
}


def text_type(type_: sa.TypeEngine[Any], values: Any = None) -> Any:
    """The Python type that reads a value of this column type from a query string or a path.

    ``values`` is the type of the column's values where that is not the type's own.
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
    for kind, annotation in _TYPES:
        if isinstance(type_, kind):
            return annotation
    return timedelta if python_type(type_) is timedelta else Text


def _by_name(members: type[enum.Enum]) -> BeforeValidator:
    """Members whose values are no text are written as text; names are understood, too."""
    known: dict[Any, Any] = {**members.__members__, **{str(member.value): member for member in members}}
    return BeforeValidator(lambda value: known.get(value, value) if isinstance(value, str) else value)


def public_columns(traits: Traits[Any]) -> dict[str, Column[Any]]:
    """The columns that a client may see: none whose name begins with ``_``, nor with ``info={"private": True}``."""
    return {
        key: column for key, column in traits.columns.items() if not key.startswith("_") and key not in traits.private
    }


def fields_of(model: type, names: Iterable[str], schema: type[Any] | None = None) -> dict[str, ClientField]:
    """The named fields of ``model``; without names those that ``schema`` shows (None: the derived read schema).

    Of these never the tenant's and the soft-delete columns. Raises `ValidationError` for a name that is no field, and
    for a private column.
    """
    traits: Traits[Any] = traits_of(model)
    named = list(names) or list(_usual(traits, schema))
    return {name: _field(traits, name) for name in named}


def refuse_private(model: type, name: str) -> None:
    """Raise `ValidationError` where a dotted path leads to a private column."""
    owner: Traits[Any] = traits_of(model)
    for part in name.split("."):
        part = _canonical(owner, part)
        if part in owner.private:
            raise ValidationError(
                f"{owner.name}.{part} is private: a client can neither filter nor sort by it.", field=name
            )
        if part not in owner.relationships:
            return
        owner = traits_of(owner.relationships[part].mapper.class_)


def _usual(traits: Traits[Any], schema: Any) -> Iterator[str]:
    hidden = {traits.tenant, traits.is_deleted, traits.deleted_at}
    for key, column in public_columns(traits).items():
        type_ = plain_type(column.type)
        if schema is not None and key not in shown_by(schema):
            continue
        if key not in hidden and not isinstance(type_, (sa.JSON, sa.LargeBinary, sa.PickleType)):
            yield key


def _canonical(owner: Traits[Any], part: str) -> str:
    synonym = owner.mapper.synonyms.get(part)
    return part if synonym is None else synonym.name


def _field(root: Traits[Any], name: str) -> ClientField:
    refuse_private(root.model, name)
    owner, through = root, False
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part in owner.relationships:
            owner, through = traits_of(owner.relationships[part].mapper.class_), True
            continue
        part = _canonical(owner, part)
        column = owner.columns.get(part)
        found = column if column is not None else owner.public_expression(part)
        if found is None:
            known = sorted({*owner.columns, *owner.relationships} - owner.private)
            near = get_close_matches(part, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}."
            raise ValidationError(f"{owner.name} has no field {part!r}{hint}", field=name)
        inside = position + 1 < len(parts)
        if inside and not isinstance(plain_type(found.type), sa.JSON):
            raise ValidationError(f"{owner.name}.{part} is neither a relationship nor JSON.", field=name)
        nullable = column is None or bool(column.nullable)
        values = None if column is None or inside else value_type(owner, part)
        return ClientField(name, found.type, nullable, in_json=inside, through=through, value_type=values)
    raise ValidationError(f"{name!r} is a relationship of {root.name}; name a field of it.", field=name)
