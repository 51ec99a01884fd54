"""The keys of new rows, by which the rows that an INSERT returns are put into the order of the given rows.

No database promises an order for RETURNING, so each returned row must be recognised by its primary key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, DefaultClause, bindparam, literal_column, select, type_coerce
from sqlalchemy import types as sa
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.selectable import SelectBase, TableClause

from ..models.expressions import makes_value
from ..models.traits import Traits
from ..sqlalchemy_internals import has_parameters
from .reads import Bound
from .rows import Rows
from .writes import Writer


@dataclass(frozen=True, slots=True)
class NewKeys:
    """How rows that all have the same fields get the columns of the primary key that are not among these fields.

    ``counted`` is the column that the database numbers, in the order in which it inserts the rows. ``generated`` are
    the columns with an SQL expression, such as a random UUID. A separate SELECT evaluates these expressions before the
    INSERT: if the INSERT evaluated them, nothing would say which row got which value. ``defaults`` are the columns with
    a default in Python, and these defaults.
    """

    traits: Traits[object]
    counted: str | None
    generated: tuple[str, ...]
    defaults: tuple[tuple[str, object], ...]
    generation: object
    """The SELECT of the ``generated`` columns, for as many rows as its parameter says; None if there are none."""
    is_own: bool
    """Whether all expressions are server defaults. These belong to the schema, so guarded sessions don't check them."""

    def completed(self, rows: Rows, run: Callable[[Bound], Iterable[Any]]) -> Rows:
        """The rows with all columns of the key but the counted one. ``run`` sends a statement, and returns its rows."""
        keys = {key: defaults_of(default, len(rows)) for key, default in self.defaults}
        if self.generation is not None:
            generated = run(Bound(self.generation, {"dotmac_many": len(rows)}))
            keys |= dict(zip(self.generated, map(list, zip(*generated, strict=True)), strict=True))
        return rows.with_columns(keys)

    def in_order(self, entities: Iterable[object], rows: Rows) -> list[Any]:
        """The new entities in the order of the rows from which they were made."""
        if self.counted is not None:
            counted = self.counted
            return sorted(entities, key=lambda entity: getattr(entity, counted))
        by_key = {self.traits.key_of(entity): entity for entity in entities}
        keys = [rows.columns[key] for key in self.traits.primary_key]
        return [by_key[key] for key in (keys[0] if len(keys) == 1 else zip(*keys, strict=True))]


def defaults_of(default: Any, many: int) -> list[Any]:
    """The default of a column for each of ``many`` rows."""
    return [default.arg(None) for _ in range(many)] if default.is_callable else [default.arg] * many


def new_keys(writer: Writer, names: Collection[str]) -> NewKeys | None:
    """How rows with these fields get their keys. None if the returned rows can't be recognised by their keys.

    That is the case if a trigger can make the key, if a value can be read in another form than it was written (padded
    or rounded), or if the class has several tables.
    """
    return writer.traits.cached(("new keys", frozenset(names)), lambda: _new_keys(writer, names))


def _new_keys(writer: Writer, names: Collection[str]) -> NewKeys | None:
    traits = writer.traits
    if len(traits.tables) != 1:
        return None
    counted: list[str] = []
    generated: dict[str, Any] = {}
    defaults: list[tuple[str, object]] = []
    is_own = True
    for key in traits.primary_key:
        column = traits.columns[key]
        if key in names:
            if not is_read_as_written(column.type):
                return None
        elif _is_counter(column):
            counted.append(key)
        elif column.default is not None and makes_value(column.default) and is_read_as_written(column.type):
            defaults.append((key, column.default))
        else:
            expression = _expression(column)
            if expression is None or not is_read_as_written(column.type):
                return None
            generated[key] = expression
            is_own = is_own and column.default is None
    if len(counted) > 1:
        return None
    generation = None
    if generated:
        numbers = writer.reader.dialect.numbers(bindparam("dotmac_many", type_=sa.Integer()))
        generation = select(*generated.values()).select_from(numbers)
    return NewKeys(traits, next(iter(counted), None), tuple(generated), tuple(defaults), generation, is_own)


def is_read_as_written(type_: sa.TypeEngine[object]) -> bool:
    """Whether a value of this type is read exactly as it was written, so that a row can be recognised by it."""
    return isinstance(type_, (sa.Integer, sa.Uuid, sa.String)) and not isinstance(type_, sa.CHAR)


def _is_counter(column: Column[object]) -> bool:
    """Whether the database gives the column ascending numbers if an INSERT has no value for it."""
    if column.identity is not None:
        return (column.identity.increment or 1) > 0
    default: Any = column.default
    if default is not None:
        return bool(default.is_sequence) and (default.increment or 1) > 0
    return column.server_default is None and column is column.table.autoincrement_column


def _expression(column: Column[object]) -> object:
    """The SQL expression that makes the column's value for each row; None if it is unknown, or can read other rows."""
    default: Any = column.default
    if default is not None:
        expression = default.arg if default.is_clause_element else None
    else:
        expression = column.server_default.arg if isinstance(column.server_default, DefaultClause) else None
        if isinstance(expression, TextClause):
            return None if has_parameters(expression) else literal_column(expression.text, column.type)
    if expression is None or isinstance(expression, str):
        return None  # a constant can't be the key of several rows
    if any(
        isinstance(each, (SelectBase, TableClause, ColumnClause, TextClause)) for each in visitors.iterate(expression)
    ):
        return None
    return type_coerce(expression, column.type)
