"""All rows of tables as text, by one statement: enough to see in an instant whether a test has changed any of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Connection, Table
from sqlalchemy.sql.compiler import IdentifierPreparer


def rows_as_text(connection: Connection, tables: Sequence[Table]) -> list[tuple[str, str]]:
    """The name of the table and the text of each row, sorted. NULL and an empty text differ."""
    statement = _statement(connection.dialect.name, connection.dialect.identifier_preparer, tuple(tables))
    return sorted((row[0], row[1]) for row in connection.exec_driver_sql(statement))


@cache
def _statement(dialect: str, preparer: IdentifierPreparer, tables: tuple[Table, ...]) -> str:
    selects = []
    for table in tables:
        columns = " || ',' || ".join(f"quote({preparer.quote(column.name)})" for column in table.columns)
        text = "rows_as_text::text" if dialect == "postgresql" else columns
        selects.append(f"SELECT '{table.fullname}', {text} FROM {preparer.format_table(table)} AS rows_as_text")
    return " UNION ALL ".join(selects).replace("%", "%%" if dialect == "postgresql" else "%")
