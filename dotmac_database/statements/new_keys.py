"""The keys of new rows: by them the rows that one INSERT gives back are put into the order of the given ones.

No database promises an order for the rows that RETURNING gives, so each must be recognised by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, DefaultClause, bindparam, literal_column, select, type_coerce
from sqlalchemy import types as sa
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.selectable import SelectBase, TableClause

from ..models.expressions import made_by, makes_value
from ..models.traits import Traits
from ..sqlalchemy_internals import has_parameters
from .data import Values
from .reads import Bound
from .writes import Writer


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Where the parts of the primary key come from that rows of the same fields don't name.

    ``counted`` is the part that the database counts up, in the order in which it inserts. ``drawn`` are those that it
    makes by an expression (a random UUID), which one statement more asks for beforehand: nothing would tie a key that
    is drawn within the INSERT to the row that it was given to. ``made`` are Python's defaults.
    """

    traits: Traits[Any]
    counted: str | None
    drawn: tuple[str, ...]
    made: tuple[tuple[str, Any], ...]
    draws: Any
    """SELECT of ``drawn``, for as many rows as its parameter says; None: none is drawn."""
    is_own: bool
    """Whether the database would evaluate what is drawn by itself, rather than within a statement of the user's."""

    def completed(self, rows: Sequence[Values], draw: Callable[[Bound], Iterable[Any]]) -> Sequence[Values]:
        """The rows with all keys but the counted one. ``draw`` runs a statement."""
        if self.made:
            rows = [{**row, **{key: made_by(default) for key, default in self.made}} for row in rows]
        if self.draws is not None:
            found = draw(Bound(self.draws, {"dotmac_many": len(rows)}))
            rows = [{**row, **dict(zip(self.drawn, each, strict=True))} for row, each in zip(rows, found, strict=True)]
        return rows

    def in_order(self, entities: Iterable[Any], rows: Sequence[Values]) -> list[Any]:
        """The new entities in the order of the rows that they were made of."""
        if self.counted is not None:
            counted = self.counted
            return sorted(entities, key=lambda entity: getattr(entity, counted))
        found = {self.traits.key_of(entity): entity for entity in entities}
        keys = self.traits.primary_key
        if len(keys) == 1:
            return [found[row[keys[0]]] for row in rows]
        return [found[tuple(row[key] for key in keys)] for row in rows]


def new_keys(writer: Writer, names: Collection[str]) -> NewKeys | None:
    """How rows that have these fields get their keys; None: they can't be recognised by them.

    So it is where a trigger makes the key, where a value may come back otherwise than it was given (padded, rounded),
    and where a row lies in several tables.
    """
    return writer.traits.cached(("new keys", frozenset(names)), lambda: _new_keys(writer, names))


def _new_keys(writer: Writer, names: Collection[str]) -> NewKeys | None:
    traits = writer.traits
    if len(traits.tables) != 1:
        return None
    counted: list[str] = []
    drawn: dict[str, Any] = {}
    made: list[tuple[str, Any]] = []
    is_own = True
    for key in traits.primary_key:
        column = traits.columns[key]
        if key in names:
            if not comes_back(column.type):
                return None
        elif _counts(column):
            counted.append(key)
        elif column.default is not None and makes_value(column.default) and comes_back(column.type):
            made.append((key, column.default))
        else:
            expression = _expression(column)
            if expression is None or not comes_back(column.type):
                return None
            drawn[key] = expression
            is_own = is_own and column.default is None
    if len(counted) > 1:
        return None
    draws = None
    if drawn:
        numbers = writer.reader.dialect.numbers(bindparam("dotmac_many", type_=sa.Integer()))
        draws = select(*drawn.values()).select_from(numbers)
    return NewKeys(traits, next(iter(counted), None), tuple(drawn), tuple(made), draws, is_own)


def comes_back(type_: sa.TypeEngine[Any]) -> bool:
    """Whether a value of this type is read as it was written, so that a row can be recognised by it."""
    return isinstance(type_, (sa.Integer, sa.Uuid, sa.String)) and not isinstance(type_, sa.CHAR)


def _counts(column: Column[Any]) -> bool:
    """Whether the database counts the column up where nobody gives a value."""
    if column.identity is not None:
        return (column.identity.increment or 1) > 0
    default: Any = column.default
    if default is not None:
        return bool(default.is_sequence) and (default.increment or 1) > 0
    return column.server_default is None and column is column.table.autoincrement_column


def _expression(column: Column[Any]) -> Any:
    """The expression that makes the column's value for each row; None: it is not known, or it reads other rows."""
    default: Any = column.default
    if default is not None:
        given = default.arg if default.is_clause_element else None
    else:
        given = column.server_default.arg if isinstance(column.server_default, DefaultClause) else None
        if isinstance(given, TextClause):
            return None if has_parameters(given) else literal_column(given.text, column.type)
    if given is None or isinstance(given, str):
        return None  # a constant can't be the key of several rows
    if any(isinstance(each, (SelectBase, TableClause, ColumnClause, TextClause)) for each in visitors.iterate(given)):
        return None
    return type_coerce(given, column.type)
