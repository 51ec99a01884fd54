"""`FullText` declares indexes for SEARCH filters: GIN indexes on PostgreSQL, an FTS5 table on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import DDL, Index, Table, column, event, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.schema import SchemaItem

from ..models.table_columns import ColumnName, column_in
from .base import Column, Condition
from .own_statements import OwnTable
from .rowid import rowid_alias

_INFO = "dotmac_full_text"


class FullText(SchemaItem):
    """Indexes for the SEARCH filters on these columns: ``__table_args__ = (FullText("name", "bio"),)``.

    A column can also be given itself (``FullText(name, bio)``, where these are columns of the declarative class).

    On PostgreSQL each column gets a GIN index on the expression that the filter uses. On SQLite there is an FTS5 table
    ``<table>_fts`` beside the table, and triggers keep it up to date. SQLite needs an integer primary key for that,
    since VACUUM renumbers the rows of other tables (https://www.sqlite.org/lang_vacuum.html). Tables without one are
    searched without an index. `MetaData.create_all` and ``drop_all`` create and drop the indexes together with the
    table; `statements` is for migrations. Raises `ValidationError` for a column that the table does not have.
    """

    __visit_name__ = "full_text"

    def __init__(self, *columns: ColumnName) -> None:
        self.columns = columns

    def _set_parent(self, parent: Any, **_: Any) -> None:
        table: Table = parent
        names = tuple(column_in(table, each, "FullText").name for each in self.columns)
        for name in names:
            target = table.c[name]
            words = target if isinstance(target.type, TSVECTOR) else func.to_tsvector(_SIMPLE, target)
            Index(f"ix_{table.name}_{name}_search"[:63], words, postgresql_using="gin", _table=table).ddl_if(
                dialect="postgresql"
            )
        table.info[_INFO] = names
        key = rowid_alias(table)
        if key is not None:
            for statement in _sqlite_statements(table, key, names):
                event.listen(table, "after_create", _on_sqlite(statement))
            event.listen(table, "before_drop", _on_sqlite(f"DROP TABLE IF EXISTS {_quoted(_fts(table))}"))

    @staticmethod
    def statements(table: Table) -> list[str]:
        """For a migration: the statements that add the FTS5 table and its triggers to an SQLite table, and fill it.

        Empty if the table has no integer primary key.
        """
        key = rowid_alias(table)
        return [] if key is None else list(_sqlite_statements(table, key, table.info.get(_INFO, ())))


_SIMPLE: Column = literal_column("'simple'::regconfig")


def indexed_search(target: Column, query: Column) -> Condition | None:
    """A condition that uses the FTS5 table, and that is true for at least all rows that match the query.

    It is true for all rows if the FTS5 table can't narrow the search. None if the column has no FTS5 table.
    """
    element: Any = target
    plain = element.__clause_element__() if hasattr(element, "__clause_element__") else element
    table = getattr(plain, "table", None)
    if not isinstance(table, Table) or plain.name not in _searched(table):
        return None
    key = rowid_alias(table)
    if key is None:
        return None
    fts_table = OwnTable(_fts(table), column("rowid"), column(_fts(table)), column(plain.name), schema=table.schema)
    candidates = func.dotmac_candidates(query)
    matching = select(fts_table.c.rowid).where(fts_table.c[plain.name].op("MATCH", is_comparison=True)(candidates))
    return or_(candidates.is_(None), key.in_(matching))


def _searched(table: Table) -> tuple[str, ...]:
    columns: tuple[str, ...] = table.info.get(_INFO, ())
    return columns


def _on_sqlite(statement: str) -> Any:
    ddl: Any = DDL  # untyped in SQLAlchemy
    return ddl(statement.replace("%", "%%")).execute_if(dialect="sqlite")


def _fts(table: Table) -> str:
    return f"{table.name}_fts"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sqlite_statements(table: Table, rowid: Column, columns: tuple[str, ...]) -> Iterator[str]:
    """The DDL of an external content table and its triggers.

    https://www.sqlite.org/fts5.html#external_content_tables
    """
    fts, own, key = _quoted(_fts(table)), _quoted(table.name), _quoted(rowid.name)
    names = [_quoted(table.c[name].name) for name in columns]
    column_list = ", ".join(names)
    text = table.name.replace("'", "''")
    yield (
        f"CREATE VIRTUAL TABLE {fts} USING fts5({column_list}, content='{text}', content_rowid='{rowid.name}', "
        "tokenize=\"unicode61 remove_diacritics 0 tokenchars '_'\")"
    )
    insert = (
        f"INSERT INTO {fts}(rowid, {column_list}) VALUES (new.{key}, {', '.join(f'new.{name}' for name in names)});"
    )
    delete = (
        f"INSERT INTO {fts}({fts}, rowid, {column_list}) "
        f"VALUES ('delete', old.{key}, {', '.join(f'old.{name}' for name in names)});"
    )
    for event_name, body in (("INSERT", insert), ("DELETE", delete), ("UPDATE", f"{delete} {insert}")):
        trigger = _quoted(f"{table.name}_fts_{event_name.lower()}")
        yield f"CREATE TRIGGER {trigger} AFTER {event_name} ON {own} BEGIN {body} END"
    yield f"INSERT INTO {fts}({fts}) VALUES ('rebuild')"
