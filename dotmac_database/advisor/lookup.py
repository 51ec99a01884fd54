"""How the rows of one class are found by conditions on their own columns, and what index each way would want."""

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
from ..statements.scope import alive
from ..tenancy.context import ALL_TENANTS
from .candidates import CandidateIndex, Key, whole_order
from .shapes import Condition, comparable


class Copies:
    """Copies of tables, for the indexes that are advised: the mapped ones must not get them."""

    def __init__(self) -> None:
        self._made: dict[Table, Table] = {}

    def of(self, table: Table) -> Table:
        """The copy of a table, always the same."""
        if table not in self._made:
            self._made[table] = table.to_metadata(MetaData())
        return self._made[table]

    def original(self, copy: Table) -> Table:
        """The table that a copy is of."""
        return next(table for table, made in self._made.items() if made is copy)


def on_table(traits: Traits[Any]) -> bool:
    """Whether the class is mapped to a table, rather than to a query, which has no indexes."""
    return isinstance(traits.columns[traits.primary_key[0]].table, Table)


class Lookup:
    """How the rows of one class are found by conditions on their own columns."""

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

    def is_asked(self, order: Order) -> bool:
        """Whether an order is asked for, beyond that of the primary key, which every read has."""
        return any(term.field not in self.traits.primary_key for term in order)

    @property
    def compares(self) -> bool:
        """Whether a column besides the tenant's is compared for equality."""
        return any(each.equal and self._keys(each) for each in self.conditions)

    def usual(self, order: Order, *, limited: bool) -> CandidateIndex | None:
        """The index on what is equal, and then the order or a range; None: there is nothing to look up."""
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
            or (limited and bool(terms) and self.is_asked(order))
        )
        then = terms if ordered or best is None else [best[1]]
        if ordered and terms:
            reasons.append("the order is " + ", ".join(self._described(key) for key in terms))
        elif best is not None:
            reasons.append(f"{best[0].path.text} is a range")
        if not fixed and not then and not nulls and self.tenant is None:
            return None
        return self.candidate("; ".join(reasons), fixed, then, ordered=ordered, nulls=nulls)

    def particular(self, each: Condition) -> Iterator[CandidateIndex]:
        """The index of another kind that one condition is for."""
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
            yield self.candidate(f"{text}: texts by their beginning", fixed, [Key(operand)], ordered=False, kind=kind)
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
        """An index, with what every read of the class asks for: the tenant first, and no deleted rows."""
        first = self.column_key(self.traits.columns[self.tenant]) if self.tenant and confined else None
        unique = {key.column or key.as_sql(self.dialect): key for key in (*((first,) if first else ()), *equal)}
        living, marks = self._alive()
        return CandidateIndex(
            self.dialect,
            self.table,
            "; ".join(filter(None, (f"{self.tenant} is the tenant" if first else "", reason))),
            tuple(unique.values()),
            tuple(key for key in then if key.column not in unique),
            ordered,
            living,
            tuple((self._column(name).name, self._column(name).is_(None)) for name in nulls),
            marks,
            self._implied(),
            kind,
        )

    def _alive(self) -> tuple[tuple[ColumnElement[bool], ...], frozenset[str]]:
        """The condition on rows that are not deleted, and the column that it holds to one value."""
        if self.include_deleted or not self.traits.soft_deletes:
            return (), frozenset()
        keys = [key for key in (self.traits.is_deleted, self.traits.deleted_at) if key]
        if any(self.traits.columns[key].table is not self.original for key in keys):
            return (), frozenset()
        entity = SimpleNamespace(**{key: self._column(key) for key in keys})
        mark = self.traits.is_deleted
        fixed = mark is not None and not self.traits.columns[mark].nullable
        return tuple(alive(self.traits, entity)), frozenset((self._column(mark).name,) if mark and fixed else ())

    def _implied(self) -> frozenset[str]:
        """What the conditions say besides: a compared value is not NULL."""
        return frozenset(
            plain(sql_of(self.dialect, key.expression.is_not(None)))
            for each in self.conditions
            if each.values
            for key in self._keys(each)
        )

    def _column(self, key: str) -> Any:
        return self.table.c[self.traits.columns[key].key]

    def column_key(self, column: Any) -> Key | None:
        """The key of a column of the table; None: it is of another one."""
        return Key(self.table.c[column.key]) if column.table is self.original else None

    def _keys(self, each: Condition) -> list[Key]:
        """The condition's column or JSON value as a key, where an index can have it."""
        expression = self._expression(each.path, each.shape.kind)
        return [] if expression is None or not comparable(each.path) else [Key(expression)]

    def _expression(self, path: FieldPath, kind: str) -> ColumnElement[Any] | None:
        column = self.traits.columns.get(path.key or "")
        if column is None or column.table is not self.original or path.owner is not self.traits:
            return None
        own: ColumnElement[Any] = self.table.c[column.key]
        if not path.json:
            return own
        if not indexes_expressions(self.dialect) or not kind:
            return None
        return self.reader.dialect.json_value(own, path.json, kind)

    def _operand(self, each: Condition, need: Need) -> ColumnElement[Any] | None:
        """What the filter's SQL looks into, just as it writes it."""
        dialect = self.reader.dialect
        value: ColumnElement[Any] = bindparam("value")
        if need is Need.DOCUMENT:
            column = self.traits.columns.get(each.path.key or "")
            if column is None or column.table is not self.original:
                return None
            condition: Any = dialect.json_contains(self.table.c[column.key], each.path.json, value)
            return condition.left  # type: ignore[no-any-return]
        operand = self._expression(each.path, "text" if each.path.json else "")
        if operand is not None and need is Need.WORDS:
            condition = dialect.search(operand, value)
            return condition.left  # type: ignore[no-any-return]
        return operand

    def _terms(self, order: Order, fixed: Sequence[Key]) -> list[Key]:
        """The keys of an order, up to what no index can have; what is equal in all rows is left out."""
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
            usual = nulls_come_first(self.dialect, descending=key.descending)
            if key.nulls_first is not None and not places_nulls(self.dialect):
                if key.nulls_first is not usual and keys:
                    break
                key = Key(expression, term.descending)
            keys.append(key)
            known.add(key.as_sql(self.dialect))
        return list(whole_order(keys))

    def _is_expression(self, path: FieldPath) -> bool:
        """Whether the order is by an expression of the column: an enum's declared places."""
        return not path.json and not self.reader.dialect.orders_natively(path.type)

    def _is_ranked(self, each: Condition) -> bool:
        return each.shape.operator is not FilterOperator.IN and self._is_expression(each.path)

    def _same(self, one: Key, other: Key) -> bool:
        return one.as_sql(self.dialect) == other.as_sql(self.dialect)

    def _described(self, key: Key) -> str:
        return f"{key.as_sql(self.dialect)}{' descending' if key.descending else ''}"
