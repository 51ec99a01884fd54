"""Where a search has an index: what `FullText` declares, and how each database makes it and uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import DDL, Index, Integer, Table, TypeDecorator, column, event, func, literal_column, or_, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.schema import SchemaItem

from ..errors import ValidationError
from .base import Column, Condition
from .own import OwnTable

_INFO = "dotmac_full_text"


class FullText(SchemaItem):
    """Lets SEARCH filters use an index: ``__table_args__ = (FullText("name", "bio"),)``, columns of the table.

    On PostgreSQL each column gets the GIN index that the filter's SQL uses. On SQLite the table gets an FTS5 table
    beside it, ``<table>_fts``, which triggers keep up to date; SQLite needs an integer primary key for it, as it
    renumbers the rows of other tables (https://www.sqlite.org/lang_vacuum.html), so that those are searched without.
    Both are made and dropped with the table by `MetaData.create_all` and ``drop_all``; `statements` are for migrations.
    Raises `ValidationError` for a column that the table does not have.
    """

    __visit_name__ = "full_text"

    def __init__(self, *columns: str) -> None:
        self.columns = columns

    def _set_parent(self, parent: Any, **_: Any) -> None:
        table: Table = parent
        for name in self.columns:
            if name not in table.c:
                raise ValidationError(f"{table.name} has no column {name!r} to search.", field=name)
            target = table.c[name]
            words = target if isinstance(target.type, TSVECTOR) else func.to_tsvector(_SIMPLE, target)
            Index(f"ix_{table.name}_{name}_search"[:63], words, postgresql_using="gin", _table=table).ddl_if(
                dialect="postgresql"
            )
        table.info[_INFO] = self.columns
        if _rowid(table) is not None:
            for statement in _sqlite_statements(table, self.columns):
                event.listen(table, "after_create", _on_sqlite(statement))
            event.listen(table, "before_drop", _on_sqlite(f"DROP TABLE IF EXISTS {_quoted(_fts(table))}"))

    @staticmethod
    def statements(table: Table) -> list[str]:
        """SQLite's statements for a table that exists already, rows and all: for a migration."""
        return list(_sqlite_statements(table, table.info.get(_INFO, ()))) if _rowid(table) is not None else []


_SIMPLE: Column = literal_column("'simple'::regconfig")


def indexed_search(target: Column, query: Column) -> Condition | None:
    """That a row is among those that the FTS5 table finds for a query; None: there is no such table."""
    made: Any = target
    plain = made.__clause_element__() if hasattr(made, "__clause_element__") else made
    table = getattr(plain, "table", None)
    if not isinstance(table, Table) or plain.name not in _searched(table):
        return None
    key = _rowid(table)
    if key is None:
        return None
    found = OwnTable(_fts(table), column("rowid"), column(_fts(table)), column(plain.name), schema=table.schema)
    wanted = func.dotmac_candidates(query)
    matching = select(found.c.rowid).where(found.c[plain.name].op("MATCH", is_comparison=True)(wanted))
    return or_(wanted.is_(None), key.in_(matching))


def _searched(table: Table) -> tuple[str, ...]:
    columns: tuple[str, ...] = table.info.get(_INFO, ())
    return columns


def _rowid(table: Table) -> Any:
    """The column that is SQLite's rowid, if the table has one; https://www.sqlite.org/lang_createtable.html#rowid"""
    keys = list(table.primary_key.columns)
    if len(keys) != 1:
        return None
    type_ = keys[0].type.impl_instance if isinstance(keys[0].type, TypeDecorator) else keys[0].type
    rowid = isinstance(type_, Integer) and type_.compile(dialect=sqlite.dialect()) == "INTEGER"
    return keys[0] if rowid else None


def _on_sqlite(statement: str) -> Any:
    make: Any = DDL  # untyped in SQLAlchemy
    return make(statement.replace("%", "%%")).execute_if(dialect="sqlite")


def _fts(table: Table) -> str:
    return f"{table.name}_fts"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sqlite_statements(table: Table, columns: tuple[str, ...]) -> Iterator[str]:
    """An external content table and its triggers; https://www.sqlite.org/fts5.html#external_content_tables"""
    fts, own, key = _quoted(_fts(table)), _quoted(table.name), _quoted(_rowid(table).name)
    names = [_quoted(table.c[name].name) for name in columns]
    listed = ", ".join(names)
    text = table.name.replace("'", "''")
    yield (
        f"CREATE VIRTUAL TABLE {fts} USING fts5({listed}, content='{text}', content_rowid='{_rowid(table).name}', "
        "tokenize=\"unicode61 remove_diacritics 0 tokenchars '_'\")"
    )
    added = f"INSERT INTO {fts}(rowid, {listed}) VALUES (new.{key}, {', '.join(f'new.{name}' for name in names)});"
    removed = (
        f"INSERT INTO {fts}({fts}, rowid, {listed}) "
        f"VALUES ('delete', old.{key}, {', '.join(f'old.{name}' for name in names)});"
    )
    for when, does in (("INSERT", added), ("DELETE", removed), ("UPDATE", f"{removed} {added}")):
        trigger = _quoted(f"{table.name}_fts_{when.lower()}")
        yield f"CREATE TRIGGER {trigger} AFTER {when} ON {own} BEGIN {does} END"
    yield f"INSERT INTO {fts}({fts}) VALUES ('rebuild')"
