"""The SQL that rebuilds the rows of a table as they were at a moment, from its history.

The rows without a later entry are those of the table. Each other row has, for each column, the value before the
earliest later entry that changed it; a row whose first later entry is its creation did not exist. Private columns are
left out, and so are those that the statement does not read: to rebuild a value from JSON takes most of the time.
"""

# ruff: noqa: S608 - the names are quoted, and the moment is written as digits

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects.postgresql import HSTORE
from sqlalchemy.types import String

from ..errors import MisuseError
from ..models.expressions import is_private

Quote = Callable[[str], str]


def past_rows(
    connection: Connection,
    table: Table,
    history: Table,
    tenant: str | None,
    moment: datetime,
    names: Container[str] | None,
) -> str:
    """The SELECT of the table's rows as they were at a moment in UTC, as the text that is sent to the server.

    ``tenant`` is the name of the tenant column if it is not part of the primary key. ``names`` are the columns that are
    needed; the primary key and the tenant are always there. None: all of them. Raises `MisuseError` for columns whose
    values can't be read from JSON.
    """
    kind = _Sqlite if connection.dialect.name == "sqlite" else _Postgresql
    return kind(connection, table, history, tenant, moment, names).select()


class _PastRows:
    def __init__(
        self,
        connection: Connection,
        table: Table,
        history: Table,
        tenant: str | None,
        moment: datetime,
        names: Container[str] | None,
    ) -> None:
        translated: Mapping[str | None, str | None] = (
            connection.get_execution_options().get("schema_translate_map") or {}
        )
        preparer = connection.dialect.identifier_preparer
        self.quote: Quote = lambda name: preparer.quote(name).replace("%%", "%")
        schema = translated.get(table.schema, table.schema)
        prefix = "" if schema is None else f"{self.quote(schema)}."
        self.table, self.history = prefix + self.quote(table.name), prefix + self.quote(history.name)
        keys = [each.name for each in table.primary_key.columns]
        self.copied = keys if tenant is None else [*keys, tenant]
        self.key = self.quote(keys[0])
        present = [each for each in table.columns if not is_private(each)]
        self.columns: list[Column[object]] = [
            each for each in present if names is None or each.name in names or each.name in self.copied
        ]
        self.is_whole = len(self.columns) == len(present)
        self.moment = moment
        self.name = table.name

    def same(self, one: str, other: str) -> str:
        """The condition that two rows have the same key and tenant."""
        return " AND ".join(f"{one}.{c} {self.equals} {other}.{c}" for c in map(self.quote, self.copied))

    equals = "="

    def untouched(self, later: str) -> str:
        """The SELECT of the rows without later entries."""
        columns = ", ".join(f"now_.{self.quote(each.name)}" for each in self.columns)
        return (
            f"SELECT {columns} FROM {self.table} AS now_ WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self.history} AS h_ WHERE {self.same('h_', 'now_')} AND {later})"
        )


class _Postgresql(_PastRows):
    def select(self) -> str:
        hstore = next((each.name for each in self.columns if isinstance(each.type, HSTORE)), None)
        if hstore is not None:
            raise MisuseError(f"as_of() can't read {self.name}.{hstore}: an hstore can't be read from JSON.")
        quote = self.quote
        later = f"h_.at > TIMESTAMPTZ '{self.moment:%Y-%m-%d %H:%M:%S.%f}+00'"
        copied = ", ".join(f"h_.{quote(each)}" for each in self.copied)
        # The keys come from the entries, so that a condition on them reaches the index of the history.
        columns = ", ".join(
            f"{'later_' if each.name in self.copied else 'then_'}.{quote(each.name)}" for each in self.columns
        )
        rebuilt = [each.name for each in self.columns if each.name not in self.copied]
        values, merged, row = self._rebuilding(rebuilt)
        # A row that was never deleted since, and is not there, is hidden by row-level security.
        return f"""{self.untouched(later)}
UNION ALL
SELECT {columns} FROM (
  SELECT {copied}, min(h_.history_id) AS first_, min(h_.history_id) FILTER (WHERE h_.operation = 'create') AS created_,
    bool_or(h_.operation = 'delete') AS whole_{merged}
  FROM {self.history} AS h_{values}
  WHERE {later} GROUP BY {copied}
) AS later_ LEFT JOIN {self.table} AS now_ ON {self.same("later_", "now_")}{row}
WHERE later_.created_ IS DISTINCT FROM later_.first_ AND (later_.whole_ OR now_.{self.key} IS NOT NULL)"""

    def _rebuilding(self, names: Sequence[str]) -> tuple[str, str, str]:
        """The parts of the SELECT that read values of these columns from JSON, merge them, and make a row of them."""
        if not names:
            return "", "", ""
        texts = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        condition = "true" if self.is_whole else f"e_.key IN ({texts})"
        merged = "jsonb_object_agg(e_.key, e_.value ORDER BY h_.history_id DESC) FILTER (WHERE e_.key IS NOT NULL)"
        return (
            f" LEFT JOIN LATERAL jsonb_each(h_.before) AS e_ ON {condition}",
            f",\n    {merged} AS before_",
            "\nCROSS JOIN LATERAL jsonb_populate_record(now_, COALESCE(later_.before_, '{}')) AS then_",
        )

    def same(self, one: str, other: str) -> str:
        return " AND ".join(
            f"{one}.{c} = {other}.{c}"
            if number < len(self.copied) - 1 or number == 0
            else f"({one}.{c} = {other}.{c} OR {one}.{c} IS NULL AND {other}.{c} IS NULL)"
            for number, c in enumerate(map(self.quote, self.copied))
        )


class _Sqlite(_PastRows):
    """Without aggregates, so that SQLite looks up the entries of the rows that a condition on the key leaves."""

    equals = "IS"

    def select(self) -> str:
        later = f"at > '{self.moment:%Y-%m-%d %H:%M:%S.%f}'"
        columns = ", ".join(self._column(each, later) for each in self.columns)
        return f"""{self.untouched(f"h_.{later}")}
UNION ALL
SELECT {columns} FROM {self.history} AS first_ LEFT JOIN {self.table} AS now_ ON {self.same("now_", "first_")}
WHERE first_.{later} AND first_.operation <> 'create' AND NOT EXISTS (SELECT 1 FROM {self.history} AS h_
  WHERE {self.same("h_", "first_")} AND h_.{later} AND h_.history_id < first_.history_id)"""

    def _column(self, column: Column[object], later: str) -> str:
        name, text = self.quote(column.name), "'" + column.name.replace("'", "''") + "'"
        if column.name in self.copied:
            return f"first_.{name} AS {name}"
        real = "json_extract(e_.value, '$.real')"
        value = (
            f"CASE WHEN e_.type <> 'object' THEN e_.value "
            f"WHEN {real} IS NULL THEN dotmac_bytes(json_extract(e_.value, '$.blob')) "
            f"WHEN {real} LIKE '%inf' THEN CASE WHEN {real} LIKE '-%' THEN -9e999 ELSE 9e999 END "
            f"ELSE CAST({real} AS REAL) END"
        )
        changes = (
            f"FROM {self.history} AS h_, json_each(h_.before) AS e_ "
            f"WHERE {self.same('h_', 'first_')} AND h_.{later} AND e_.key = {text}"
        )
        then = f"(SELECT {value} {changes} ORDER BY h_.history_id LIMIT 1)"
        collation = getattr(column.type, "collation", None) if isinstance(column.type, String) else None
        collate = "" if collation is None else f" COLLATE {self.quote(collation)}"
        return f"CASE WHEN EXISTS (SELECT 1 {changes}) THEN {then} ELSE now_.{name} END{collate} AS {name}"
