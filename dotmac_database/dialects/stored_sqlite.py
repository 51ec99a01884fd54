"""`StoredRows` of SQLite, whose values have a type of their own each: https://www.sqlite.org/datatype3.html."""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table, bindparam
from sqlalchemy.types import NullType

from .stored_rows import Condition, ConditionOf, Statement, StoredColumn, StoredRows, quoted, run, table_name

_Values: TypeAlias = dict[str, Any]

_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_PARAMETERS = 900
"""The most parameters of one statement. Older versions of SQLite take 999."""


def _member(value: object) -> object:
    if isinstance(value, bytes):
        return {"blob": b64encode(value).decode()}
    if isinstance(value, float) and math.isinf(value):
        return {"real": repr(value)}
    return value


def _value(member: Any) -> Any:
    if not isinstance(member, dict):
        return member
    return b64decode(member["blob"], validate=True) if "blob" in member else float(member["real"])


def _values(columns: Sequence[StoredColumn], line: str) -> _Values:
    row = json.loads(line)
    return {f"c{place}": _value(row[column.name]) for place, column in enumerate(columns)}


class SqliteRows(StoredRows):
    """The rows of an SQLite database."""

    snapshot = "One transaction has read all rows, so they are the state of one moment."

    def begin_reading(self, connection: Connection) -> None:
        connection.begin()
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:  # an engine of SQLAlchemy's own begins one only for a write
            connection.exec_driver_sql("BEGIN")

    def prepare(self, connection: Connection, *, sees_all: bool) -> None:
        """SQLite has no settings of which the form of values depends, and no row-level security."""

    def columns(self, connection: Connection, table: Table) -> list[StoredColumn]:
        schema = table.schema or "main"
        query = Statement(
            "SELECT name, type, hidden FROM pragma_table_xinfo(",
            bindparam("name", table.name),
            ", ",
            bindparam("schema", schema),
            f") WHERE EXISTS (SELECT 1 FROM {quoted(schema)}.sqlite_master AS m WHERE m.type = 'table' "
            "AND lower(m.name) = lower(",
            bindparam("again", table.name),
            ")) ORDER BY cid",
        )
        rows = connection.execute(query)
        return [StoredColumn(name, type_, hidden in (2, 3)) for name, type_, hidden in rows if hidden != 1]

    def server(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT sqlite_version()").scalar_one())

    def lines(
        self,
        connection: Connection,
        table: Table,
        columns: Sequence[StoredColumn],
        condition: Condition,
        key: Sequence[StoredColumn],
        limit: int | None = None,
    ) -> Iterator[str]:
        name = table_name(table)
        selected = ", ".join(f"{name}.{quoted(each.name)} AS c{place}" for place, each in enumerate(columns))
        order = ", ".join(f"{name}.{quoted(each.name)} COLLATE BINARY" for each in key)
        end = "" if limit is None else f" LIMIT {limit}"
        query = Statement(f"SELECT {selected} FROM {name} WHERE ", condition, f" ORDER BY {order}{end}")
        names = [each.name for each in columns]
        with connection.execute(query, execution_options={"yield_per": 500}) as rows:
            for row in rows:
                try:
                    yield _STRICT(dict(zip(names, row, strict=True)))
                except (TypeError, ValueError):
                    yield _STRICT(dict(zip(names, map(_member, row), strict=True)))

    def insert(
        self,
        connection: Connection,
        table: Table,
        columns: Sequence[StoredColumn],
        lines: Sequence[str],
        condition: ConditionOf,
        empty: Collection[str] = (),
    ) -> int:
        written = [each for each in columns if not each.generated]
        names = ", ".join(quoted(each.name) for each in written)
        parameters = {each.name: bindparam(f"c{place}", type_=NullType()) for place, each in enumerate(columns)}
        values: list[Any] = ["NULL" if each.name in empty else parameters[each.name] for each in written]
        listed = [part for each in values for part in (", ", each)][1:]
        statement = Statement(
            f"INSERT INTO {table_name(table)} ({names}) SELECT ", *listed, " WHERE ", condition(parameters)
        )
        rows = [_values(columns, line) for line in lines]
        return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount

    def update(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[StoredColumn],
        columns: Sequence[StoredColumn],
        lines: Sequence[str],
    ) -> None:
        every = [*columns, *key]
        sets: list[Any] = []
        for place, each in enumerate(every):
            word = (
                " SET "
                if not place
                else ", "
                if place < len(columns)
                else " WHERE "
                if place == len(columns)
                else " AND "
            )
            sets += [f"{word}{quoted(each.name)} = ", bindparam(f"c{place}", type_=NullType())]
        rows = [_values(every, line) for line in lines]
        connection.execute(Statement(f"UPDATE {table_name(table)}", *sets), rows)

    def delete(
        self, connection: Connection, table: Table, key: Mapping[str, StoredColumn], lines: Sequence[str]
    ) -> int:
        conditions: list[Any] = []
        for place, name in enumerate(key):
            word = " AND " if place else " WHERE "
            conditions += [f"{word}{quoted(name)} = ", bindparam(f"c{place}", type_=NullType())]
        rows = [_values(list(key.values()), line) for line in lines]
        statement = Statement(f"DELETE FROM {table_name(table)}", *conditions)
        return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount

    def count_existing(
        self, connection: Connection, table: Table, key: Sequence[StoredColumn], lines: Sequence[str]
    ) -> int:
        names = ", ".join(quoted(each.name) for each in key)
        marks = f"({', '.join('?' * len(key))})"
        size = max(1, _PARAMETERS // len(key))
        existing = 0
        for start in range(0, len(lines), size):
            rows = [tuple(_values(key, line).values()) for line in lines[start : start + size]]
            listed = ", ".join([marks] * len(rows))
            sql = f"SELECT count(*) FROM {table_name(table)} WHERE ({names}) IN (VALUES {listed})"
            values = tuple(value for row in rows for value in row)
            existing += connection.exec_driver_sql(sql, values).scalar_one()
        return existing

    def matches(
        self, connection: Connection, columns: Sequence[StoredColumn], line: str, condition: ConditionOf
    ) -> bool:
        values = _values(columns, line)
        parameters = {
            each.name: bindparam(f"c{place}", values[f"c{place}"], type_=NullType())
            for place, each in enumerate(columns)
        }
        return bool(connection.execute(Statement("SELECT ", condition(parameters))).scalar())

    def pause_history(self, connection: Connection, source: Table, history: Table) -> Callable[[], None]:
        schema = "" if source.schema is None else f"{quoted(source.schema)}."
        rows = connection.execute(
            Statement(
                f"SELECT name, sql FROM {schema}sqlite_master WHERE type = 'trigger' AND tbl_name IN (",
                bindparam("source", source.name),
                ", ",
                bindparam("history", history.name),
                ") AND substr(name, 1, length(",
                bindparam("prefix", f"{source.name}_history_"),
                ")) = ",
                bindparam("same_prefix", f"{source.name}_history_"),
            )
        ).all()
        for name, _ in rows:
            run(connection, f"DROP TRIGGER {schema}{quoted(name)}")

        def resume() -> None:
            for _, sql in rows:
                connection.exec_driver_sql(sql)

        return resume

    def advance_sequences(self, connection: Connection, table: Table, columns: Collection[str] | None = None) -> None:
        """SQLite keeps the greatest key of an AUTOINCREMENT itself."""

    def defer_constraints(self, connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")

    def settle_constraints(self, connection: Connection) -> None:
        """No DDL of SQLite requires it."""

    def defers(self, deferrable: bool | None) -> bool:  # noqa: ARG002 - SQLite can defer each
        return True
