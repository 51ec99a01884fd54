"""How the values in a history table become the Python values of the columns again."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Column, FromClause, Table, Text, func, true, type_coerce
from sqlalchemy.dialects.postgresql import HSTORE
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql import column as plain_column

Recorded: TypeAlias = Mapping[str, object] | None
"""The values of one side of an entry, by the name of the column; None: it has no such side."""

SIDES = ("before", "after")


class HistoryValues(ABC):
    """The part of a SELECT that reads the sides of entries, and how a row of it is read.

    ``source`` is FROM, ``columns`` are added to the SELECT.
    """

    source: FromClause
    columns: Sequence[ColumnElement[Any]]

    @abstractmethod
    def sides(self, row: Sequence[Any]) -> Iterator[Recorded]:
        """The values before and after the change, from the row's values of `columns`."""


def history_values(dialect: Dialect, history: Table, columns: Mapping[str, Column[Any]]) -> HistoryValues:
    """The reader of the sides of a history table's entries. ``columns`` are the columns of the row, by their names."""
    kind = _Sqlite if dialect.name == "sqlite" else _Postgresql
    return kind(dialect, history, columns)


class _Postgresql(HistoryValues):
    """PostgreSQL makes the values from JSON itself, so that each column is read as from the table."""

    def __init__(self, _dialect: Dialect, history: Table, columns: Mapping[str, Column[Any]]) -> None:
        # hstore becomes an object in JSON, but can't be read from one. The object is the Python value already.
        self._names = [name for name, column in columns.items() if not isinstance(column.type, HSTORE)]
        self.source = history
        selected: list[ColumnElement[Any]] = []
        for side in SIDES:
            selected.append(history.c[side])
            if self._names:
                definition = [plain_column(name, columns[name].type) for name in self._names]
                record = func.jsonb_to_record(history.c[side]).table_valued(*definition)
                record = record.render_derived(name=f"dotmac_{side}", with_types=True)
                self.source = self.source.join(record, true(), isouter=True)
                selected += [record.c[name].label(f"{side}_{number}") for number, name in enumerate(self._names)]
        self.columns = selected

    def sides(self, row: Sequence[Any]) -> Iterator[Recorded]:
        width = len(self._names) + 1
        for place in (0, width):
            stored: dict[str, object] | None = row[place]
            if stored is None:
                yield None
                continue
            typed = zip(self._names, row[place + 1 : place + width], strict=True)
            yield {**stored, **{name: value for name, value in typed if name in stored}}


class _Sqlite(HistoryValues):
    """SQLite's values are read from JSON in Python, and then as SQLAlchemy's types read those of a column."""

    def __init__(self, dialect: Dialect, history: Table, columns: Mapping[str, Column[Any]]) -> None:
        self.source = history
        self.columns = [type_coerce(history.c[side], Text()).label(side) for side in SIDES]
        self._processors = {
            name: column.type.dialect_impl(dialect).result_processor(dialect, None) for name, column in columns.items()
        }

    def sides(self, row: Sequence[Any]) -> Iterator[Recorded]:
        for text in row:
            yield None if text is None else {name: self._value(name, each) for name, each in json.loads(text).items()}

    def _value(self, name: str, stored: object) -> object:
        if isinstance(stored, dict):
            stored = bytes.fromhex(stored["blob"]) if "blob" in stored else float(stored["real"])
        process = self._processors.get(name)
        return stored if process is None else process(stored)
