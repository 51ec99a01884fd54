"""The triggers that record the history of a table, on PostgreSQL and SQLite.

Triggers see every way of writing. An entry belongs to a key: if an UPDATE gives a row another primary key or tenant,
the old key's row is deleted, and the new key's row is created.

PostgreSQL's triggers run once for each statement, on its transition tables, since a call for each row costs more than
the entry. Only for a partitioned table they run for each row: a statement on a partition does not call the triggers of
its parent. The values are what ``to_jsonb`` makes of a row, so a column that is added later is recorded too.

SQLite has no function that makes JSON of a row, so its triggers name the columns. A number with a fraction is stored
as ``{"real": "0.5"}`` and a BLOB as ``{"blob": "00ff"}``, since SQLite's JSON would round the one and refuse the other.

The actor is the setting `ACTOR`: see `dialects.settings`. A program without the toolkit has none, and writes as usual.
"""

# ruff: noqa: S608 - the statements are made of quoted names of tables and columns

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from sqlalchemy import Connection, text
from sqlalchemy.sql.compiler import IdentifierPreparer

from .settings import SETTINGS_TABLE

ACTOR = "dotmac.audit_user"
"""The setting with the actor of the writes; not `dotmac.actor`, which the policies of row-level security read."""

RETENTION = "dotmac.retention"
"""The setting that is ``on`` while entries are deleted because of their age."""

SUFFIX = "_history"
_EVENTS = ("INSERT", "UPDATE", "DELETE")
MAX_NAME = 63
"""The most bytes of a name on PostgreSQL."""


class MarkKind(Enum):
    """How the value of a column marks a row as deleted."""

    FLAG = "flag"
    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True)
class Recorded:
    """A table with a history: its name, and the names of the columns that the triggers must know.

    ``tenant``: the tenant column; None: it has none, or the primary key contains it. ``mark`` is the column that marks
    deleted rows. ``private`` are the columns that are not recorded. ``columns`` are the others, which only SQLite's
    triggers name. ``by_row``: PostgreSQL's triggers run for each row.
    """

    table: str
    schema: str | None
    keys: tuple[str, ...]
    tenant: str | None = None
    mark: str | None = None
    mark_kind: MarkKind = MarkKind.FLAG
    private: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    by_row: bool = False

    @property
    def copied(self) -> tuple[str, ...]:
        """The columns whose values are columns of an entry, too."""
        return self.keys if self.tenant is None else (*self.keys, self.tenant)


def history_name(table: str) -> str:
    """The name of a table's history table."""
    return f"{table}{SUFFIX}"


def create_statements(connection: Connection, recorded: Recorded) -> list[str]:
    """The DDL that creates the triggers of a table and of its history table. It can be run repeatedly."""
    if connection.dialect.name == "sqlite":
        return _Sqlite(connection, recorded).create()
    return _Postgresql(connection, recorded).create()


def drop_statements(connection: Connection, recorded: Recorded) -> list[str]:
    """The DDL that drops what `create_statements` has created. It can be run repeatedly."""
    if connection.dialect.name == "sqlite":
        return _Sqlite(connection, recorded).drop()
    return _Postgresql(connection, recorded).drop()


def is_current(connection: Connection, recorded: Recorded) -> bool:
    """Whether the database has the triggers that `create_statements` would create. One statement."""
    if connection.dialect.name == "sqlite":
        return _Sqlite(connection, recorded).is_current()
    return _Postgresql(connection, recorded).is_current()


def outdated(connection: Connection, tables: Sequence[Recorded]) -> list[Recorded]:
    """The tables whose triggers are missing or differ from those that `create_statements` would create.

    Two statements on PostgreSQL and one on SQLite, whatever the number of tables.
    """
    if not tables:
        return []
    if connection.dialect.name == "sqlite":
        triggers = set(connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'trigger'")).scalars())
        return [each for each in tables if not _Sqlite(connection, each).expected() <= triggers]
    default = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
    bodies = {row.name: (row.prosrc, row.triggers) for row in connection.execute(text(_FUNCTIONS))}
    names = [_Postgresql(connection, each, default) for each in tables]
    return [each.recorded for each in names if bodies.get(each.function) != each.expected()]


_FUNCTIONS = """
SELECT format('%I.%I', n.nspname, p.proname) AS name, p.prosrc,
  (SELECT count(*) FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgparentid = 0) AS triggers
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prorettype = 'trigger'::regtype AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


def needs_columns(dialect: str) -> bool:
    """Whether the triggers name the columns of the table, and are dropped with it when a migration recreates it."""
    return dialect == "sqlite"


def has_history(dialect: str) -> bool:
    """Whether the database can record a history."""
    return dialect in ("postgresql", "sqlite")


def _name(table: str, suffix: str) -> str:
    """A name that is derived from a table's, and not too long."""
    name = f"{table}{suffix}"
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{table.encode()[:40].decode(errors='ignore')}_{sha256(name.encode()).hexdigest()[:8]}{suffix[-10:]}"


def _literal(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


class _Names:
    """The quoted names of a recorded table and its columns."""

    def __init__(self, connection: Connection, recorded: Recorded) -> None:
        self.preparer: IdentifierPreparer = connection.dialect.identifier_preparer
        self.connection, self.recorded = connection, recorded
        translated = connection.get_execution_options().get("schema_translate_map") or {}
        self.schema: str | None = translated.get(recorded.schema, recorded.schema)

    def quote(self, name: str) -> str:
        """A quoted name. SQLAlchemy doubles a percent sign for some drivers; `run_ddl` expects single ones."""
        return self.preparer.quote(name).replace("%%", "%")

    def qualified(self, name: str) -> str:
        """A quoted name with its schema."""
        return self.quote(name) if self.schema is None else f"{self.quote(self.schema)}.{self.quote(name)}"

    def copied(self) -> str:
        """The quoted names of the columns that an entry copies."""
        return ", ".join(map(self.quote, self.recorded.copied))


class _Postgresql(_Names):
    def __init__(self, connection: Connection, recorded: Recorded, default_schema: str | None = None) -> None:
        super().__init__(connection, recorded)
        if self.schema is None:
            # The function finds the table in the schema in which it was created, whatever the caller's search_path is.
            self.schema = default_schema or connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        table = recorded.table
        self.table, self.history = self.qualified(table), self.qualified(history_name(table))
        self.function = self.qualified(_name(table, "_record_history"))
        self.guard = self.qualified(_name(table, "_guard_history"))

    def create(self) -> list[str]:
        statements = [self._function(), self._guard_function()]
        for event in _EVENTS:
            statements += self._trigger(event)
        statements += [
            f"DROP TRIGGER IF EXISTS dotmac_history_truncate ON {self.table}",
            f"""CREATE TRIGGER dotmac_history_truncate BEFORE TRUNCATE ON {self.table}
FOR EACH STATEMENT EXECUTE FUNCTION {self.function}()""",
            f"DROP TRIGGER IF EXISTS dotmac_guard ON {self.history}",
            f"""CREATE TRIGGER dotmac_guard BEFORE INSERT OR UPDATE OR DELETE ON {self.history}
FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION {self.guard}()""",
        ]
        return statements

    def drop(self) -> list[str]:
        return [f"DROP FUNCTION IF EXISTS {each}() CASCADE" for each in (self.function, self.guard)]

    def expected(self) -> tuple[str, int]:
        """The body of the function, and the number of triggers that call it."""
        return self._function().split("$dotmac$")[1], len(_EVENTS) + 1

    def is_current(self) -> bool:
        query = text("""SELECT p.prosrc, (SELECT count(*) FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgparentid = 0)
FROM pg_proc p WHERE p.oid = to_regprocedure(:name)""")
        rows = self.connection.execute(query, {"name": f"{self.function}()"}).one_or_none()
        return rows is not None and (rows[0], rows[1]) == self.expected()

    def _trigger(self, event: str) -> Iterator[str]:
        name = f"dotmac_history_{event.lower()}"
        yield f"DROP TRIGGER IF EXISTS {name} ON {self.table}"
        old = "OLD TABLE AS old_rows" if event != "INSERT" else ""
        new = "NEW TABLE AS new_rows" if event != "DELETE" else ""
        scope = "FOR EACH ROW" if self.recorded.by_row else f"REFERENCING {old} {new} FOR EACH STATEMENT"
        yield f"CREATE TRIGGER {name} AFTER {event} ON {self.table} {scope} EXECUTE FUNCTION {self.function}()"

    def _function(self) -> str:
        old, new = ("(SELECT OLD.*)", "(SELECT NEW.*)") if self.recorded.by_row else ("old_rows", "new_rows")
        return f"""CREATE OR REPLACE FUNCTION {self.function}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET IntervalStyle = 'postgres' AS $dotmac$
DECLARE
  actor_ text := NULLIF(current_setting('{ACTOR}', true), '');
  at_ timestamptz := clock_timestamp();
BEGIN
  IF TG_OP = 'INSERT' THEN
    {self._all("create", "after", new)};
  ELSIF TG_OP = 'DELETE' THEN
    {self._all("delete", "before", old)};
  ELSIF TG_OP = 'TRUNCATE' THEN
    {self._all("delete", "before", f"ONLY {self.table}" if not self.recorded.by_row else self.table)};
  ELSE
    {self._changed(old, new)};
  END IF;
  RETURN NULL;
END $dotmac$"""

    def _guard_function(self) -> str:
        return f"""CREATE OR REPLACE FUNCTION {self.guard}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $dotmac$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('{RETENTION}', true) = 'on' THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'entries of a history are written by triggers only' USING ERRCODE = 'insufficient_privilege';
END $dotmac$"""

    def _json(self, row: str) -> str:
        private = self.recorded.private
        return f"to_jsonb({row})" + (f" - ARRAY[{', '.join(map(_literal, private))}]" if private else "")

    def _all(self, operation: str, side: str, rows: str) -> str:
        values = ", ".join(f"r.{self.quote(each)}" for each in self.recorded.copied)
        return (
            f"INSERT INTO {self.history} ({self.copied()}, at, actor, operation, {side}) "
            f"SELECT {values}, at_, actor_, '{operation}', {self._json('r')} FROM {rows} AS r"
        )

    def _changed(self, old: str, new: str) -> str:
        recorded, quote = self.recorded, self.quote
        read = ", ".join(f"r.{quote(each)}" for each in recorded.copied)
        mark = "false" if recorded.mark is None else self._is_marked(f"r.{quote(recorded.mark)}")
        # OFFSET 0 keeps the planner from computing the JSON of a row again for each of its columns.
        rows = f"(SELECT {read}, {mark} AS mark_, {self._json('r')} AS json_ FROM %s AS r OFFSET 0) AS %s"
        keys = [f"o.{quote(each)} = n.{quote(each)}" for each in recorded.keys]
        if recorded.tenant is not None:
            column = quote(recorded.tenant)
            keys.append(f"COALESCE(o.{column}::text, '') = COALESCE(n.{column}::text, '')")
        values = ", ".join(f"COALESCE(n.{quote(each)}, o.{quote(each)})" for each in recorded.copied)
        return f"""INSERT INTO {self.history} ({self.copied()}, at, actor, operation, before, after)
    SELECT {values}, at_, actor_,
      CASE WHEN o.json_ IS NULL THEN 'create' WHEN n.json_ IS NULL THEN 'delete'
        WHEN n.mark_ AND NOT o.mark_ THEN 'soft_delete' WHEN o.mark_ AND NOT n.mark_ THEN 'restore' ELSE 'update' END,
      o.json_ - same.keys_, n.json_ - same.keys_
    FROM {rows % (old, "o")} FULL JOIN {rows % (new, "n")} ON {" AND ".join(keys)}
    CROSS JOIN LATERAL (
      SELECT ARRAY(SELECT e.key FROM jsonb_each(o.json_) AS e WHERE n.json_ -> e.key = e.value) AS keys_ OFFSET 0
    ) AS same
    WHERE o.json_ IS DISTINCT FROM n.json_"""

    def _is_marked(self, column: str) -> str:
        match self.recorded.mark_kind:
            case MarkKind.FLAG:
                return f"{column} IS TRUE"
            case MarkKind.NUMBER:
                return f"COALESCE({column} = 1, false)"
            case MarkKind.TIME:
                return f"{column} IS NOT NULL"


_MOST_COLUMNS = 50
"""The most columns that SQLite's ``json_object`` gets here; functions take at most 127 arguments by default."""


def _json_value(value: str, other: str) -> str:
    """The JSON of a value of SQLite, which is ``other`` unless it is a number with a fraction or a BLOB."""
    return (
        f"CASE typeof({value}) WHEN 'real' THEN json('{{\"real\":\"' || printf('%!.17g', {value}) || '\"}}') "
        f"WHEN 'blob' THEN json('{{\"blob\":\"' || hex({value}) || '\"}}') ELSE {other} END"
    )


class _Sqlite(_Names):
    def __init__(self, connection: Connection, recorded: Recorded) -> None:
        super().__init__(connection, recorded)
        self.table, self.history = self.quote(recorded.table), self.quote(history_name(recorded.table))

    def create(self) -> list[str]:
        compared = " OR ".join(f"OLD.{c} IS NOT NEW.{c} COLLATE BINARY" for c in map(self.quote, self.recorded.columns))
        moved = " OR ".join(f"OLD.{c} IS NOT NEW.{c} COLLATE BINARY" for c in map(self.quote, self.recorded.copied))
        created, deleted = self._entry("NEW", "'create'", after=True), self._entry("OLD", "'delete'", before=True)
        changed = self._entry("NEW", self._operation(), before=True, after=True, changes=True)
        return [
            f"CREATE TABLE IF NOT EXISTS {SETTINGS_TABLE} (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
            *self.drop(),
            self._trigger("create", "AFTER INSERT", [created]),
            self._trigger("delete", "AFTER DELETE", [deleted]),
            self._trigger("update", "AFTER UPDATE", [changed], f"({compared}) AND NOT ({moved})"),
            self._trigger("move", "AFTER UPDATE", [deleted, created], moved),
            self._guard("no_update", "BEFORE UPDATE", ""),
            self._guard(
                "no_delete",
                "BEFORE DELETE",
                f" WHERE NOT EXISTS (SELECT 1 FROM {SETTINGS_TABLE} WHERE name = '{RETENTION}' AND value = 'on')",
            ),
        ]

    def expected(self) -> set[str]:
        """The DDL of the triggers."""
        return {each for each in self.create() if each.startswith("CREATE TRIGGER")}

    def is_current(self) -> bool:
        query = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN (:table, :history)")
        names = {"table": self.recorded.table, "history": history_name(self.recorded.table)}
        return self.expected() <= set(self.connection.execute(query, names).scalars())

    def drop(self) -> list[str]:
        names = ("create", "delete", "update", "move", "no_update", "no_delete")
        return [f"DROP TRIGGER IF EXISTS {self._named(each)}" for each in names]

    def _named(self, name: str) -> str:
        return self.qualified(f"{self.recorded.table}_history_{name}")

    def _trigger(self, name: str, when: str, statements: Iterable[str], condition: str | None = None) -> str:
        where = "" if condition is None else f" WHEN {condition}"
        body = "; ".join(statements)
        return f"CREATE TRIGGER {self._named(name)} {when} ON {self.table}{where} BEGIN {body}; END"

    def _guard(self, name: str, when: str, condition: str) -> str:
        message = "SELECT RAISE(ABORT, 'entries of a history are written by triggers only')"
        return f"CREATE TRIGGER {self._named(name)} {when} ON {self.history} BEGIN {message}{condition}; END"

    def _entry(
        self, row: str, operation: str, *, before: bool = False, after: bool = False, changes: bool = False
    ) -> str:
        values = ", ".join(f"{row}.{self.quote(each)}" for each in self.recorded.copied)
        actor = f"(SELECT NULLIF(value, '') FROM {SETTINGS_TABLE} WHERE name = '{ACTOR}')"
        sides = [
            self._json(side, changes=changes) if wanted else "NULL"
            for side, wanted in (("OLD", before), ("NEW", after))
        ]
        return (
            f"INSERT INTO {self.history} ({self.copied()}, at, actor, operation, before, after) "
            f"VALUES ({values}, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000', {actor}, {operation}, "
            f"{', '.join(sides)})"
        )

    def _json(self, row: str, *, changes: bool) -> str:
        """The values of a row as JSON; only those that an UPDATE ``changes``, if it is True."""
        other = "NEW" if row == "OLD" else "OLD"
        columns: Sequence[str] = self.recorded.columns
        if not changes and len(columns) <= _MOST_COLUMNS:
            # Half as much work as an aggregate: json_object takes numbers without a fraction, texts and NULL as is.
            values = ((_literal(each), f"{row}.{self.quote(each)}") for each in columns)
            return f"json_object({', '.join(f'{key}, {_json_value(value, value)}' for key, value in values)})"
        rows = " UNION ALL ".join(
            f"SELECT {_literal(each)} AS k, {row}.{self.quote(each)} AS v"
            + (f", {other}.{self.quote(each)} AS w" if changes else "")
            for each in columns
        )
        value = f"json({_json_value('v', 'json_quote(v)')})"
        return f"(SELECT json_group_object(k, {value}) FROM ({rows}){' WHERE v IS NOT w' if changes else ''})"

    def _operation(self) -> str:
        if self.recorded.mark is None:
            return "'update'"
        column = self.quote(self.recorded.mark)
        test = "IS NOT NULL" if self.recorded.mark_kind is MarkKind.TIME else "IS 1"
        old, new = f"(OLD.{column} {test})", f"(NEW.{column} {test})"
        return (
            f"CASE WHEN {new} AND NOT {old} THEN 'soft_delete' WHEN {old} AND NOT {new} THEN 'restore' "
            "ELSE 'update' END"
        )
