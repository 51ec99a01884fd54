"""Values for the columns of a new row, by the column's type and name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from random import Random
from typing import TYPE_CHECKING, TypeVar

from pydantic.fields import FieldInfo
from sqlalchemy import Column, ForeignKeyConstraint, Table, UniqueConstraint

from ..errors import MisuseError, ValidationError
from ..models.traits import traits_of
from ..sqlalchemy_internals import is_text
from ..tenancy.values import kind_of
from ..types import undecorated

if TYPE_CHECKING:
    from faker import Faker

M = TypeVar("M")

Values = dict[str, object]
"""Values by the key of their attribute."""

_START = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""The time from which the times of rows count, one second a number: the same in each run."""


class ColumnValues:
    """Makes values; ``numbers`` make those unique that must be. The same calls get the same values in each run.

    Raises `MisuseError` if polyfactory is not installed.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        require_polyfactory()
        self._numbers = numbers
        self._random = Random(0)
        _faker().seed_instance(0)

    def needed(self, model: type[M], values: Values) -> Values:
        """Values of the columns that a new row needs, and that ``values`` does not have.

        Raises `ValidationError` for a column of a type that nobody knows.
        """
        number = next(self._numbers)
        return {
            key: self._value(model, key, column, number)
            for key, column in _columns_to_fill(model).items()
            if key not in values
        }

    def shareable(self, model: type[M]) -> list[str]:
        """The attributes that a row of each tenant can have with the same value."""
        traits = traits_of(model)
        tenant = None if traits.tenant is None else traits.columns[traits.tenant]
        exclusive = {
            column
            for table in traits.tables
            for columns in _unique_sets(table)
            if tenant is None or tenant.name not in {each.name for each in columns}
            for column in columns
        }
        return [key for key, column in _columns_to_fill(model).items() if column not in exclusive]

    def is_unique(self, constraint: ForeignKeyConstraint) -> bool:
        """Whether each parent of a foreign key can have one row."""
        columns = set(constraint.columns)
        return any(unique <= columns for unique in _unique_sets(constraint.table))

    def _value(self, model: type[M], key: str, column: Column[object], number: int) -> object:
        enums: list[object] | None = getattr(column.type, "enums", None)
        if enums:
            kinds = getattr(column.type, "enum_class", None)
            members = [*kinds] if kinds is not None else enums
            return members[number % len(members)]
        kind = kind_of(column)
        if is_text(column.type):
            return _text(key, number, getattr(column.type, "length", None))
        if kind in (dict, list):
            return kind()
        if kind in (int, float):
            return kind(number)
        if kind in (datetime, date):
            moment = _START + timedelta(seconds=number) if kind is datetime else _START + timedelta(days=number)
            moment = moment if _is_aware(column) else moment.replace(tzinfo=None)
            return moment if kind is datetime else moment.date()
        return self._of_polyfactory(model, key, column)

    def _of_polyfactory(self, model: type[M], key: str, column: Column[object]) -> object:
        from polyfactory.exceptions import ParameterException
        from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
        from polyfactory.field_meta import FieldMeta

        factory = SQLAlchemyFactory.create_factory(
            model, __random__=self._random, __faker__=_faker(), __check_model__=False, __allow_none_optionals__=False
        )
        try:
            annotation = SQLAlchemyFactory.get_type_from_column(column)
            return factory.get_field_value(FieldMeta.from_type(annotation=annotation, name=key))
        except ParameterException as error:
            name = f"{model.__name__}.{key}"
            raise ValidationError(f"No value is known for {name} ({column.type!r}): pass it.", field=key) from error


def require_polyfactory() -> None:
    """Raise `MisuseError`, which names the extra, if polyfactory is not installed."""
    try:
        import polyfactory.factories.sqlalchemy_factory  # noqa: F401
    except ImportError as error:
        remedy = "pip install 'dotmac-database-toolkit[testing]'"
        raise MisuseError(f"Factories need the package polyfactory: {remedy}") from error


@cache
def _faker() -> Faker:
    """A source of values that is not the one of the user's own factories, whose seed stays theirs."""
    from faker import Faker

    return Faker()


def _columns_to_fill(model: type[M]) -> dict[str, Column[object]]:
    """The columns, by attribute, that an INSERT must name: no foreign keys, and nothing that is set automatically."""
    traits = traits_of(model)
    automatic = {traits.tenant, traits.version, traits.discriminator}
    if traits.mapper.polymorphic_on is not None:
        automatic.add(traits.mapper.get_property_by_column(traits.mapper.polymorphic_on).key)
    return {
        key: column
        for key, column in traits.columns.items()
        if key not in automatic
        and not (column.nullable or column.foreign_keys or traits.fills_itself(column))
        and not _has_field_default(model, key)
    }


def _has_field_default(model: type[M], key: str) -> bool:
    """Whether SQLModel's constructor has a default for the attribute."""
    fields: dict[str, FieldInfo] = getattr(model, "model_fields", {})
    field = fields.get(key)
    return field is not None and not field.is_required() and (field.default_factory or field.default) is not None


def _unique_sets(table: Table) -> list[set[Column[object]]]:
    """The sets of columns that are unique in the table, with the primary key."""
    sets: list[set[Column[object]]] = [set(table.primary_key.columns)]
    sets += [set(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    sets += [set(index.columns) for index in table.indexes if index.unique]
    return [each for each in sets if each]


def _text(name: str, number: int, length: int | None) -> str:
    """A text with the name of its column and a number, at most ``length`` characters long."""
    text = f"{name}{number}@example.com" if "email" in name.lower() else f"{name} {number}"
    if length is None or len(text) <= length:
        return text
    return str(number)[-length:]


def _is_aware(column: Column[object]) -> bool:
    return bool(getattr(undecorated(column.type), "timezone", False))
