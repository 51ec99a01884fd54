"""`StoredRows` of PostgreSQL, which makes and reads the JSON itself, so that Python touches lines and not values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Connection, Table, Text, bindparam
from sqlalchemy import Sequence as DatabaseSequence
from sqlalchemy.sql import ClauseElement

from .stored_rows import Condition, ConditionOf, Statement, StoredColumn, StoredRows, quoted, raw, run, table_name

_NATIVE = ("int2", "int4", "int8", "bool", "text", "varchar", "bpchar", "name", "uuid")
"""The types whose JSON is exact: https://www.postgresql.org/docs/current/functions-json.html."""

_SETTINGS = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "xmloption": "content",
}
"""What the text of a value depends on."""

_COLUMNS = """SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '', format_type(a.atttypid, -1),
  t.typname, a.attcollation <> 0 OR t.typtype = 'e'
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = to_regclass("""

_SEQUENCES = """SELECT CAST(a.attname AS text), CAST(s.oid AS bigint)
FROM pg_catalog.pg_class s
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype IN ('a', 'i')
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE s.relkind = 'S' AND d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%s)
UNION
SELECT CAST(a.attname AS text), CAST(s.oid AS bigint)
FROM pg_catalog.pg_attrdef e
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' AND d.refclassid = 'pg_class'::regclass
JOIN pg_catalog.pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum
WHERE e.adrelid = to_regclass(%s)"""


def _text(name: str, value: str) -> Any:
    return bindparam(name, value, type_=Text())


def _recordset(columns: Sequence[StoredColumn], lines: Sequence[str]) -> list[str | ClauseElement]:
    """The rows of the lines, as the FROM element ``x`` whose columns are texts."""
    names = ", ".join(f"{quoted(each.name)} text" for each in columns)
    return ["json_to_recordset(CAST(", _text("rows", f"[{','.join(lines)}]"), f" AS json)) AS x({names})"]


def _cast(column: StoredColumn) -> str:
    return f"CAST(x.{quoted(column.name)} AS {column.spelled})"


def _same(table: str, key: Mapping[str, StoredColumn]) -> str:
    return " AND ".join(f"{table}.{quoted(name)} = {_cast(column)}" for name, column in key.items())


class PostgresqlRows(StoredRows):
    """The rows of a PostgreSQL database."""

    snapshot = "One transaction (REPEATABLE READ, READ ONLY) has read all rows, so they are the state of one moment."

    def begin_reading(self, connection: Connection) -> None:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.begin()

    def prepare(self, connection: Connection, *, sees_all: bool) -> None:
        settings = {**_SETTINGS, **({"row_security": "off"} if sees_all else {})}
        parts: list[str | ClauseElement] = []
        for place, (name, value) in enumerate(settings.items()):
            parts += [", " if parts else "SELECT ", f"set_config('{name}', ", _text(f"v{place}", value), ", true)"]
        connection.execute(Statement(*parts))

    def columns(self, connection: Connection, table: Table) -> list[StoredColumn]:
        query = Statement(_COLUMNS, _text("name", table_name(table)), ") ORDER BY a.attnum")
        return [
            StoredColumn(name, type_, generated, spelled, typname in _NATIVE, text_order)
            for name, type_, generated, spelled, typname, text_order in connection.execute(query)
        ]

    def server(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SHOW server_version").scalar_one())

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
        members = ", ".join(
            f"{name}.{quoted(each.name)}"
            if each.native
            else f"CAST({name}.{quoted(each.name)} AS text) AS {quoted(each.name)}"
            for each in columns
        )
        # Without a primary key, all columns are the key, and some types (json) have no order.
        order = ", ".join(
            f'CAST({name}.{quoted(each.name)} AS text) COLLATE "C"'
            if each.text_order or len(key) == len(columns)
            else f"{name}.{quoted(each.name)}"
            for each in key
        )
        end = "" if limit is None else f" LIMIT {limit}"
        query = Statement(
            f"SELECT CAST(row_to_json(dotmac_line) AS text) FROM {name}, "
            f"LATERAL (SELECT {members}) AS dotmac_line WHERE ",
            condition,
            f" ORDER BY {order}{end}",
        )
        options = {"stream_results": True, "yield_per": 500}
        with connection.execute(query, execution_options=options) as rows:
            for (line,) in rows:
                yield line

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
        values = ", ".join("NULL" if each.name in empty else _cast(each) for each in written)
        return run(
            connection,
            f"INSERT INTO {table_name(table)} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM ",
            *_recordset(columns, lines),
            " WHERE ",
            condition({each.name: raw(_cast(each)) for each in columns}),
        )

    def update(
        self,
        connection: Connection,
        table: Table,
        key: Sequence[StoredColumn],
        columns: Sequence[StoredColumn],
        lines: Sequence[str],
    ) -> None:
        name = table_name(table)
        sets = ", ".join(f"{quoted(each.name)} = {_cast(each)}" for each in columns)
        same = _same(name, {each.name: each for each in key})
        run(connection, f"UPDATE {name} SET {sets} FROM ", *_recordset([*key, *columns], lines), f" WHERE {same}")

    def delete(
        self, connection: Connection, table: Table, key: Mapping[str, StoredColumn], lines: Sequence[str]
    ) -> int:
        name = table_name(table)
        rows = _recordset(list(key.values()), lines)
        return run(connection, f"DELETE FROM {name} USING ", *rows, f" WHERE {_same(name, key)}")

    def count_existing(
        self, connection: Connection, table: Table, key: Sequence[StoredColumn], lines: Sequence[str]
    ) -> int:
        name = table_name(table)
        same = _same(name, {each.name: each for each in key})
        query = Statement(f"SELECT count(*) FROM {name} JOIN ", *_recordset(key, lines), f" ON {same}")
        return int(connection.execute(query).scalar_one())

    def matches(
        self, connection: Connection, columns: Sequence[StoredColumn], line: str, condition: ConditionOf
    ) -> bool:
        shown = {each.name: raw(_cast(each)) for each in columns}
        query = Statement("SELECT count(*) FROM ", *_recordset(columns, [line]), " WHERE ", condition(shown))
        return bool(connection.execute(query).scalar_one())

    def pause_history(self, connection: Connection, source: Table, history: Table) -> Callable[[], None]:
        query = Statement(
            "SELECT t.tgname, c.oid = to_regclass(",
            _text("source", table_name(source)),
            ") FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid WHERE "
            " c.oid IN (to_regclass(",
            _text("source_again", table_name(source)),
            "), to_regclass(",
            _text("history", table_name(history)),
            ")) AND t.tgname IN ('dotmac_history_insert', 'dotmac_history_update', 'dotmac_history_delete', "
            "'dotmac_guard') AND t.tgenabled <> 'D'",
        )
        triggers = [
            f"ALTER TABLE {table_name(source if of_source else history)} %s TRIGGER {quoted(name)}"
            for name, of_source in connection.execute(query)
        ]
        for each in triggers:
            run(connection, each.replace("%s", "DISABLE", 1))

        def resume() -> None:
            for each in triggers:
                run(connection, each.replace("%s", "ENABLE", 1))

        return resume

    def advance_sequences(self, connection: Connection, table: Table, columns: Collection[str] | None = None) -> None:
        first, middle, last = _SEQUENCES.split("%s")
        owned = Statement(first, _text("one", table_name(table)), middle, _text("two", table_name(table)), last)
        sequences: list[tuple[str, int]] = [(name, oid) for name, oid in connection.execute(owned)]
        named = ((each.name, each.default) for each in table.columns)
        for name, sequence in ((name, each.name) for name, each in named if isinstance(each, DatabaseSequence)):
            query = Statement("SELECT CAST(to_regclass(", _text("name", sequence), ") AS bigint)")
            oid = connection.execute(query).scalar()
            if oid is not None:
                sequences.append((name, oid))
        for name, oid in dict.fromkeys(sequences):
            if columns is not None and name not in columns:
                continue
            connection.exec_driver_sql(
                f"SELECT setval(CAST({oid} AS regclass), greatest_) FROM "
                f"(SELECT max({quoted(name)}) AS greatest_ FROM {table_name(table)}) AS rows_ WHERE greatest_ > "
                f"COALESCE(pg_sequence_last_value(CAST({oid} AS regclass)), 0)"
            )

    def defer_constraints(self, connection: Connection) -> None:
        run(connection, "SET CONSTRAINTS ALL DEFERRED")

    def settle_constraints(self, connection: Connection) -> None:
        run(connection, "SET CONSTRAINTS ALL IMMEDIATE")

    def defers(self, deferrable: bool | None) -> bool:
        return bool(deferrable)

    def is_confined(self, connection: Connection, tables: Iterable[Table]) -> bool:
        names = [table_name(table) for table in tables]
        query = Statement(
            "SELECT bool_or(row_security_active(CAST(to_regclass(name) AS oid))) FROM unnest(",
            bindparam("names", names, type_=ARRAY(Text())),
            ") AS name",
        )
        return bool(connection.execute(query).scalar())
