"""Derives the indexes of one table that find its rows by conditions on its own columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import MetaData, Table, bindparam
from sqlalchemy.sql import ColumnElement

from ..dialects.catalogue import plain
from ..dialects.indexing import (
    Access,
    Need,
    access,
    indexes_expressions,
    nulls_come_first,
    places_nulls,
    sql_of,
    wildcards,
)
from ..models.traits import Traits
from ..query import FilterOperator
from ..statements.ordering import Order
from ..statements.paths import FieldPath, resolve
from ..statements.reads import Reader
from ..statements.scope import not_deleted_conditions
from ..tenancy.context import ALL_TENANTS
from .candidates import CandidateIndex, Key, ascending_first
from .shapes import Condition, comparable


class Copies:
    """Copies of tables. The advised indexes are added to the copies, since the mapped tables must not get them."""

    def __init__(self) -> None:
        self._copies: dict[Table, Table] = {}

    def of(self, table: Table) -> Table:
        """The copy of a table: always the same one for the same table."""
        if table not in self._copies:
            self._copies[table] = table.to_metadata(MetaData())
        return self._copies[table]

    def original(self, copy: Table) -> Table:
        """The table of a copy."""
        return next(table for table, each in self._copies.items() if each is copy)


def on_table(traits: Traits[Any]) -> bool:
    """Whether the class is mapped to a table, and not to a query, which has no indexes."""
    return isinstance(traits.columns[traits.primary_key[0]].table, Table)


class Lookup:
    """Derives candidate indexes of the table of one class, for a read with these ``conditions`` on its own columns."""

    def __init__(
        self, reader: Reader, copies: Copies, traits: Traits[Any], conditions: Sequence[Condition] = ()
    ) -> None:
        self.reader = reader
        self.dialect = reader.dialect.name
        self.traits = traits
        scope = reader.scope
        self.tenant = traits.tenant if scope.tenant not in (None, ALL_TENANTS) else None
        first = self.tenant or traits.primary_key[0]
        self.original: Table = traits.columns[first].table
        self.table = copies.of(self.original)
        self.conditions = conditions
        self.include_deleted = scope.include_deleted

    def has_requested_order(self, order: Order) -> bool:
        """Whether an order was requested, other than that of the primary key, which every read has."""
        return any(term.field not in self.traits.primary_key for term in order)

    @property
    def compares(self) -> bool:
        """Whether a column besides the tenant's is compared for equality."""
        return any(each.equal and self._keys(each) for each in self.conditions)

    def btree_index(self, order: Order, *, limited: bool) -> CandidateIndex | None:
        """The B-tree index with the keys that are compared for equality, followed by the order or by a range.

        None: the read has no condition or order that an index could serve.
        """
        equal = [(each, key) for each in self.conditions if each.equal for key in self._keys(each)]
        nulls = tuple(each.path.key or "" for each in self.conditions if each.null and self._keys(each))
        fixed = [key for _, key in equal]
        terms = self._terms(order, fixed)
        ranges = [each for each in self.conditions if each.range >= 0 and not self._is_ranked(each)]
        ranges.sort(key=lambda each: each.range)
        best = next(((each, key) for each in ranges for key in self._keys(each)), None)
        reasons = [f"{each.path.text} is compared for equality" for each, _ in equal]
        reasons += [f"{name} is NULL" for name in nulls]
        ordered = (
            best is None
            or (bool(terms) and self._same(terms[0], best[1]))
            or (limited and bool(terms) and self.has_requested_order(order))
        )
        then = terms if ordered or best is None else [best[1]]
        if ordered and terms:
            reasons.append("the order is " + ", ".join(self._described(key) for key in terms))
        elif best is not None:
            reasons.append(f"{best[0].path.text} is a range")
        if not fixed and not then and not nulls and self.tenant is None:
            return None
        return self.candidate("; ".join(reasons), fixed, then, ordered=ordered, nulls=nulls)

    def special_indexes(self, each: Condition) -> Iterator[CandidateIndex]:
        """The special index that one condition, such as a search in a text, needs. Nothing if it needs none."""
        if self.tenant is not None and each.path.key == self.tenant:
            return
        need = each.need(wildcards(self.dialect))
        kind = None if need is None else access(self.dialect, need)
        operand = None if need is None or kind is None else self._operand(each, need)
        if need is None or kind is None or operand is None:
            return
        text = f"{each.path.text} {each.shape.operator.value}"
        if need is Need.PREFIX:
            fixed = [key for other in self.conditions if other.equal for key in self._keys(other)]
            reason = f"{text}: search by the beginning of a text"
            yield self.candidate(reason, fixed, [Key(operand)], ordered=False, kind=kind)
            return
        yield self.candidate(f"{text}: an inverted index", (), [Key(operand)], kind=kind, confined=False)

    def candidate(
        self,
        reason: str,
        equal: Sequence[Key],
        then: Sequence[Key] = (),
        *,
        ordered: bool = True,
        nulls: Sequence[str] = (),
        kind: Access | None = None,
        confined: bool = True,
    ) -> CandidateIndex:
        """A candidate index with these keys, with the tenant as the first key, and without deleted rows.

        ``confined`` False: without the tenant, since an inverted index can't have it as a key.
        """
        first = self.column_key(self.traits.columns[self.tenant]) if self.tenant and confined else None
        unique = {key.column or key.as_sql(self.dialect): key for key in (*((first,) if first else ()), *equal)}
        conditions, fixed_columns = self._not_deleted()
        return CandidateIndex(
            self.dialect,
            self.table,
            "; ".join(filter(None, (f"{self.tenant} is the tenant" if first else "", reason))),
            tuple(unique.values()),
            tuple(key for key in then if key.column not in unique),
            ordered,
            conditions,
            tuple((self._column(name).name, self._column(name).is_(None)) for name in nulls),
            fixed_columns,
            self._implied(),
            kind,
        )

    def _not_deleted(self) -> tuple[tuple[ColumnElement[bool], ...], frozenset[str]]:
        """The conditions that exclude deleted rows, and the column that has a single value because of them, if any."""
        if self.include_deleted or not self.traits.soft_deletes:
            return (), frozenset()
        keys = [key for key in (self.traits.is_deleted, self.traits.deleted_at) if key]
        if any(self.traits.columns[key].table is not self.original for key in keys):
            return (), frozenset()
        entity = SimpleNamespace(**{key: self._column(key) for key in keys})
        mark = self.traits.is_deleted
        is_fixed = mark is not None and not self.traits.columns[mark].nullable
        fixed_columns = frozenset((self._column(mark).name,) if mark and is_fixed else ())
        return tuple(not_deleted_conditions(self.traits, entity)), fixed_columns

    def _implied(self) -> frozenset[str]:
        """The conditions that follow from the read's conditions: a column that is compared with a value is not NULL."""
        return frozenset(
            plain(sql_of(self.dialect, key.expression.is_not(None)))
            for each in self.conditions
            if each.values
            for key in self._keys(each)
        )

    def _column(self, key: str) -> Any:
        return self.table.c[self.traits.columns[key].key]

    def column_key(self, column: Any) -> Key | None:
        """The key for a column; None: the column belongs to another table."""
        return Key(self.table.c[column.key]) if column.table is self.original else None

    def _keys(self, each: Condition) -> list[Key]:
        """A list with the key for the condition's column or JSON value; empty if a B-tree index can't have that key."""
        expression = self._expression(each.path, each.shape.kind)
        return [] if expression is None or not comparable(each.path) else [Key(expression)]

    def _expression(self, path: FieldPath, kind: str) -> ColumnElement[object] | None:
        column = self.traits.columns.get(path.key or "")
        if column is None or column.table is not self.original or path.owner is not self.traits:
            return None
        copied: ColumnElement[object] = self.table.c[column.key]
        if not path.json:
            return copied
        if not indexes_expressions(self.dialect) or not kind:
            return None
        return self.reader.dialect.json_value(copied, path.json, kind)

    def _operand(self, each: Condition, need: Need) -> ColumnElement[object] | None:
        """The expression that the filter's SQL searches. An index serves only if it is on exactly this expression."""
        dialect = self.reader.dialect
        value: ColumnElement[object] = bindparam("value")
        if need is Need.DOCUMENT:
            column = self.traits.columns.get(each.path.key or "")
            if column is None or column.table is not self.original:
                return None
            condition: Any = dialect.json_contains(self.table.c[column.key], each.path.json, value)
            return condition.left  # type: ignore[no-any-return]  # SQLAlchemy does not type it
        operand = self._expression(each.path, "text" if each.path.json else "")
        if operand is not None and need is Need.WORDS:
            condition = dialect.search(operand, value)
            return condition.left  # type: ignore[no-any-return]  # as above
        return operand

    def _terms(self, order: Order, fixed: Sequence[Key]) -> list[Key]:
        """The index keys for an order.

        The list ends before the first key that an index can't have. A key that has the same value in all rows of the
        read is left out.
        """
        known = {key.as_sql(self.dialect) for key in fixed}
        if self.tenant:
            known.add(self._column(self.tenant).name)
        keys: list[Key] = []
        for term in order:
            path = resolve(self.traits, term.field)
            expression = None if path.steps else self._expression(path, "any")
            if expression is None or self._is_expression(path) or term.by != "value":
                break
            key = Key(expression, term.descending, term.nulls_first if path.nullable else None)
            if key.as_sql(self.dialect) in known:
                continue
            by_default = nulls_come_first(self.dialect, descending=key.descending)
            if key.nulls_first is not None and not places_nulls(self.dialect):
                if key.nulls_first is not by_default and keys:
                    break
                key = Key(expression, term.descending)
            keys.append(key)
            known.add(key.as_sql(self.dialect))
        return list(ascending_first(keys))

    def _is_expression(self, path: FieldPath) -> bool:
        """Whether rows are ordered by the position of an enum's value in its declaration, not by the column itself."""
        return not path.json and not self.reader.dialect.orders_natively(path.type)

    def _is_ranked(self, each: Condition) -> bool:
        return each.shape.operator is not FilterOperator.IN and self._is_expression(each.path)

    def _same(self, one: Key, other: Key) -> bool:
        return one.as_sql(self.dialect) == other.as_sql(self.dialect)

    def _described(self, key: Key) -> str:
        return f"{key.as_sql(self.dialect)}{' descending' if key.descending else ''}"
