"""Every shape of a class and every method of a repository: the whole database before and after.

Every cell is a shape, a method, a database, a face, and a session that is guarded or plain. Another tenant's rows stand
beside each, and must stay as they are, as must all other tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, Table, insert

from dotmac_database import Database
from tests.conftest import Face

from . import shape_models as m
from .shape_methods import READS, WRITES, Cell
from .shapes import SHAPES, Dump, Shape, all_tables, differences, dump, rows_of, tables_of

METHODS = {**READS, **WRITES}

_VIEW = "CREATE VIEW viewed_ticket AS SELECT id, tenant_id, name, size FROM ticket"

UNFINISHED: dict[tuple[str, str], str] = {}
"""Shape and method of cells that are known to be wrong, and why."""


@pytest.fixture(scope="module")
def tables() -> MetaData:
    """None: the module makes its own."""
    return MetaData()


class State:
    """The module's database; the rows of one family at a time."""

    def __init__(self, database: Database, dialect: str) -> None:
        self.database, self.dialect = database, dialect
        self.all = all_tables(dialect)
        with database.engine.begin() as connection:
            if dialect == "postgresql":
                connection.exec_driver_sql("CREATE SCHEMA aside")
            m.METADATA.create_all(connection, [table for table in self.all if table.metadata is m.METADATA])
            connection.exec_driver_sql(_VIEW)
        self.held: Dump = {}

    def fill(self, shape: Shape) -> Dump:
        """The family's rows, and nothing else's; nothing is sent where they are there."""
        own = tables_of(shape)
        if not self.held:
            with self.database.engine.begin() as connection:
                self._clear(connection, own)
                for table, rows in rows_of(shape):
                    if rows:
                        connection.execute(_insert(table), rows)
                self.held = dump(connection, own)
                self._begin_sequences(connection, own)
        return self.held

    def _clear(self, connection: Connection, tables: list[Table]) -> None:
        for table in reversed(tables):
            if table.metadata is not m.VIEWS:
                connection.execute(table.delete())

    def _begin_sequences(self, connection: Connection, tables: list[Table]) -> None:
        if self.dialect != "postgresql":
            return
        for table in tables:
            if table.autoincrement_column is not None and table.metadata is not m.VIEWS:
                name = connection.dialect.identifier_preparer.format_table(table)
                column = table.autoincrement_column.name
                connection.exec_driver_sql(
                    "SELECT setval(pg_get_serial_sequence(%s, %s), 500)", (name, column)
                )

    def now(self, shape: Shape) -> Dump:
        with self.database.engine.connect() as connection:
            found = dump(connection, tables_of(shape))
        if found != self.held:
            self.held = {}
        return found

    def leave(self, shape: Shape) -> None:
        """Clear the family's tables; every other table must be empty still."""
        with self.database.engine.begin() as connection:
            self._clear(connection, tables_of(shape))
            self.held = {}
            assert not any(dump(connection, self.all).values())


def _insert(table: Table) -> Any:
    statement: Any = insert(table)
    return _Overriding(statement) if any(column.identity for column in table.columns) else statement


def _Overriding(statement: Any) -> Any:  # noqa: N802 - it stands for a class
    return statement


@pytest.fixture(scope="module")
def state(_database: Database, dialect: str) -> State:
    return State(_database, dialect)


@pytest.fixture
def database(_database: Database) -> Database:
    return _database


@contextmanager
def session_of(face: Face, *, guarded: bool) -> Iterator[Any]:
    with face.guarded() if guarded else face.session() as session:
        yield session


def wrong(face: Face, state: State, name: str, method: str, *, guarded: bool) -> str | None:
    """What is wrong about a cell, if anything is."""
    shape = SHAPES[name]
    before = state.fill(shape)
    try:
        with session_of(face, guarded=guarded) as session:
            cell = Cell(face, face.repository(session, shape.model, "a"), shape, before, state.dialect)
            METHODS[method](cell)
            face(session.rollback)
            found = state.now(shape)
            cell.settled(found)
            cell.expected.shown()
            lines = differences(found, cell.expected.rows)
            assert not lines, "; ".join(lines[:4])
            cell.agree()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
        state.now(shape)
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


def methods_of(shape: Shape, dialect: str) -> list[str]:
    """What can be asked of a shape: rows of a class that has none of its own can't be made."""
    if dialect not in shape.databases:
        return []
    found = list(READS)
    if dialect in shape.writes_on:
        makes = ("create", "bulk_create", "upsert", "bulk_upsert")
        found += [each for each in WRITES if shape.inserts or not each.startswith(makes)]
    return found


def check(face: Face, state: State, shapes: list[str], *, guarded: bool) -> None:
    faults: dict[str, str] = {}
    for name in shapes:
        shape = SHAPES[name]
        methods = methods_of(shape, state.dialect)
        for method in methods:
            fault = wrong(face, state, name, method, guarded=guarded)
            if fault is not None and (name, method) not in UNFINISHED:
                faults[f"{name} {method}"] = fault
        if methods:
            state.leave(shape)
    assert not faults, "\n".join([f"{len(faults)} cells are wrong", *(f"{k}: {v}" for k, v in faults.items())])


@pytest.mark.matrix
@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "guarded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_method_does_to_a_shape_what_it_says_and_nothing_else(
    shape: str, *, guarded: bool, face: Face, state: State
) -> None:
    check(face, state, [shape], guarded=guarded)
