"""Candidate indexes: those that a read could use, whether or not they exist."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, Index, Table, and_
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.elements import Grouping

from ..dialects.catalogue import ExistingIndex, ExistingKey, plain
from ..dialects.indexing import (
    BTREE,
    Access,
    concurrently,
    ddl_of,
    index_options,
    nulls_come_first,
    orders_by_null,
    orders_prefixes,
    sql_of,
)
from .values import IndexAdvice

_LONGEST_NAME = 63


@dataclass(frozen=True)
class Key:
    """One key of an index: a column or an expression of the table's copy (see `Copies`), and its order.

    ``nulls_first`` None: it does not matter whether NULLs come first or last.
    """

    expression: ColumnElement[Any]
    descending: bool = False
    nulls_first: bool | None = None

    @property
    def column(self) -> str | None:
        """The column's name; None: the key is an expression."""
        return self.expression.name if isinstance(self.expression, Column) else None

    def as_sql(self, dialect: str) -> str:
        """The SQL of the key, without its direction."""
        return self.column or sql_of(dialect, self.expression)

    def matches(self, other: ExistingKey, dialect: str) -> bool:
        """Whether the key of an existing index is on the same column or expression."""
        if self.column is not None:
            return other.column == self.column
        return other.column is None and other.expression == plain(sql_of(dialect, self.expression))

    def reversed(self) -> Key:
        """The same key in the reverse order."""
        nulls = None if self.nulls_first is None else not self.nulls_first
        return replace(self, descending=not self.descending, nulls_first=nulls)


@dataclass(frozen=True)
class CandidateIndex:
    """An index that a read could use.

    The read compares each of the ``equal`` keys with one value, so their order does not matter. The keys in ``then``
    follow them: they are the order of the read, or a range, or the key that ``access`` searches. ``ordered`` False:
    ``then`` is not an order, so its direction does not matter.

    A partial index has a WHERE with two kinds of conditions: ``not_deleted`` are the conditions that exclude deleted
    rows, and ``nulls`` the conditions that a column is NULL, each with the name of the column. ``fixed_columns`` are
    the columns that have a single value because of ``not_deleted``. ``implied`` are further conditions that all rows of
    the read meet, in their `plain` form. ``access`` None: an ordinary B-tree.
    """

    dialect: str
    table: Table
    reason: str
    equal: tuple[Key, ...] = ()
    then: tuple[Key, ...] = ()
    ordered: bool = True
    not_deleted: tuple[ColumnElement[bool], ...] = ()
    nulls: tuple[tuple[str, ColumnElement[bool]], ...] = ()
    fixed_columns: frozenset[str] = frozenset()
    implied: frozenset[str] = frozenset()
    access: Access | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """All keys, in the order in which the index is created with them."""
        return (*self.equal, *self.then)

    @property
    def method(self) -> str:
        """The method of the index, such as ``btree``."""
        return BTREE if self.access is None else self.access.method

    @property
    def where(self) -> tuple[ColumnElement[bool], ...]:
        """The conditions of the partial index."""
        return (*self.not_deleted, *(condition for _, condition in self.nulls))

    def _plain(self, condition: ColumnElement[bool]) -> str:
        return plain(sql_of(self.dialect, condition))

    def served_by(self, index: ExistingIndex) -> bool:
        """Whether an existing index serves the read as well."""
        if index.name == self.name:
            return True
        met = self.implied | {self._plain(condition) for condition in self.where}
        if not index.conditions <= met:
            return False
        if self.method != BTREE:
            return self._has_searched_key(index)
        return index.method == BTREE and self._begins_with_keys(index)

    def _has_searched_key(self, index: ExistingIndex) -> bool:
        assert self.access is not None
        return any(
            (index.method, key.opclass) in self.access.accepted and self.then[0].matches(key, self.dialect)
            for key in index.keys
        )

    def _begins_with_keys(self, index: ExistingIndex) -> bool:
        """Whether an existing B-tree begins with the candidate's keys, and has their order if read in one direction.

        A unique index also serves if its keys find at most one row.
        """
        if index.unique and self._finds_one_row(index):
            return True
        equal, then = list(self.equal), list(self.then)
        nulls = {name for name, condition in self.nulls if self._plain(condition) not in index.conditions}
        backwards: bool | None = None
        for key in index.keys:
            if not equal and not then:
                break
            same = next((each for each in equal if each.matches(key, self.dialect)), None)
            if same is not None:
                equal.remove(same)
            elif key.column in self.fixed_columns or (key.column in nulls and orders_by_null(self.dialect)):
                nulls.discard(key.column or "")
            elif equal or not then or not then[0].matches(key, self.dialect):
                return False
            else:
                direction = self._is_backwards(then.pop(0), key)
                if direction is None or (self.ordered and backwards not in (None, direction)):
                    return False
                backwards = direction
        return not (equal or then or nulls)

    def _finds_one_row(self, index: ExistingIndex) -> bool:
        return all(any(each.matches(key, self.dialect) for each in self.equal) for key in index.keys)

    def _is_backwards(self, key: Key, other: ExistingKey) -> bool | None:
        """Whether an index must be read backwards for its key ``other`` to serve ``key``; None: it never serves it."""
        if self.access is not None:
            return False if other.prefixes else None
        if not other.ordered:
            return None
        backwards = key.descending is not other.descending
        if self.ordered and key.nulls_first is not None and (key.nulls_first is not other.nulls_first) is not backwards:
            return None
        return backwards

    @property
    def as_existing(self) -> ExistingIndex:
        """The index as the catalogue will show it after its creation."""
        return ExistingIndex(
            self.name,
            self.method,
            unique=False,
            conditions=frozenset(self._plain(condition) for condition in self.where),
            keys=tuple(self._as_existing(key) for key in self.keys),
        )

    def _as_existing(self, key: Key) -> ExistingKey:
        last = self.access is not None and key is self.then[-1]
        for_prefixes = last and self.access is not None and self.access.method == BTREE
        return ExistingKey(
            key.column,
            "" if key.column else plain(sql_of(self.dialect, key.expression)),
            self.access.opclass if last and self.access else None,
            key.descending,
            nulls_come_first(self.dialect, descending=key.descending) if key.nulls_first is None else key.nulls_first,
            ordered=not for_prefixes or orders_prefixes(self.dialect),
            prefixes=for_prefixes,
        )

    @property
    def name(self) -> str:
        """The name of the index: the table, the columns, and a hash, which differs for other indexes on the columns."""
        names = [key.column or "path" for key in self.keys]
        identity = (
            self.table.fullname,
            self.method,
            [(key.as_sql(self.dialect), key.descending, key.nulls_first) for key in self.keys],
            self.access and self.access.opclass,
            [sql_of(self.dialect, condition) for condition in self.where],
        )
        digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:8]
        stem = "_".join(["ix", self.table.name, *names])
        return f"{stem[: _LONGEST_NAME - 9]}_{digest}"

    def advice(self) -> IndexAdvice:
        """The index as advice."""
        index = self._index()
        ddl = ddl_of(self.dialect, index)
        return IndexAdvice(
            table=self.table.fullname,
            columns=tuple(key.as_sql(self.dialect) for key in self.keys),
            reason=self.reason,
            ddl=ddl,
            concurrently_ddl=concurrently(self.dialect, ddl),
            extension=self.access.extension if self.access else None,
            index=index,
        )

    def _index(self) -> Index:
        opclasses: dict[str, str] = {}
        expressions: list[Any] = []
        for key in self.keys:
            expression: Any = key.expression if key.column else Grouping(key.expression)
            if self.access is not None and key is self.then[-1] and not self.access.default:
                expression = expression if key.column else expression.label("advised")
                opclasses[expression.key] = self.access.opclass
            expressions.append(self._directed(key, expression))
        where = and_(*self.where) if self.where else None
        # Without _table, SQLAlchemy takes the table of the first column, which can be a literal column without a table.
        return Index(self.name, *expressions, _table=self.table, **index_options(self.method, where, opclasses))

    def _directed(self, key: Key, expression: Any) -> Any:
        if key.descending:
            expression = expression.desc()
        by_default = nulls_come_first(self.dialect, descending=key.descending)
        if key.nulls_first is None or key.nulls_first is by_default:
            return expression
        return expression.nulls_first() if key.nulls_first else expression.nulls_last()


def ascending_first(keys: Sequence[Key]) -> tuple[Key, ...]:
    """The keys, all reversed if the first one is descending. An index on them serves an order and its reverse."""
    return tuple(key.reversed() for key in keys) if keys and keys[0].descending else tuple(keys)
