"""Guarded sessions on both dialects and faces, over a database with the rows of two tenants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import Database
from dotmac_database.tenancy import guard_tenants
from tests.conftest import Face, empty
from tests.rows_as_text import rows_as_text

from .models import DOGS, LABELLED, ROWS, Animal, Base, Dog, note_labels

T = TypeVar("T")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def fill(connection: Connection) -> None:
    """Insert the rows of all tenants, without a guard."""
    for model, rows in ROWS.items():
        connection.execute(insert(model.__table__), rows)
    for dog in DOGS:
        connection.execute(insert(Animal.__table__), {key: dog[key] for key in ("id", "tenant_id", "kind", "name")})
        connection.execute(insert(Dog.__table__), {key: dog[key] for key in ("id", "tricks")})
    connection.execute(insert(note_labels), LABELLED)
    if connection.dialect.name == "postgresql":
        for table in Base.metadata.sorted_tables:
            if table.autoincrement_column is not None and table.autoincrement_column.server_default is None:
                name = f"{table.name}_{table.autoincrement_column.name}_seq"
                connection.exec_driver_sql(f"ALTER SEQUENCE IF EXISTS {name} RESTART WITH 100")


def contents(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, to see what an attack changed."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in Base.metadata.sorted_tables:
        rows = connection.execute(select(table)).all()
        found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


def foreign(held: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """The rows that belong to other tenants than a, 1 or 10."""
    tables: dict[str, Table] = Base.metadata.tables  # type: ignore[assignment]
    result: dict[str, list[tuple[Any, ...]]] = {}
    for name, rows in held.items():
        names = [column.name for column in tables[name].columns]
        at = next((names.index(each) for each in ("tenant_id", "org") if each in names), None)
        if at is not None:
            result[name] = [row for row in rows if str(row[at]) in ("b", "2", str(UUID_B))]
    dogs = {row[0] for row in held["dogs"] if row[0] == 12}
    result["dogs"] = [row for row in held["dogs"] if row[0] in dogs]
    result["note_labels"] = [row for row in held["note_labels"] if row[0] == 2]
    return result


UUID_B = ROWS[next(model for model in ROWS if model.__name__ == "Device")][1]["tenant_id"]


class Guarded:
    """Guarded sessions of one face; ``run`` calls sync code on either face."""

    def __init__(self, face: Face, **options: Any) -> None:
        self.face = face
        if face.is_async:
            self.maker: Any = guard_tenants(
                async_sessionmaker(face.database.async_engine, expire_on_commit=False), **options
            )
        else:
            self.maker = guard_tenants(sessionmaker(face.database.engine, expire_on_commit=False), **options)
        self.opened: list[Any] = []

    def session(self, **options: Any) -> Any:
        """A new session, which is closed at the end of the test."""
        session = self.maker(**options)
        self.opened.append(session)
        return session

    def sync(self, session: Any) -> Session:
        """The sync session in or behind ``session``."""
        found: Session = session.sync_session if self.face.is_async else session
        return found

    def run(self, session: Any, work: Callable[[Session], T]) -> T:
        """The result of ``work`` for the sync session, on either face."""
        if self.face.is_async:
            result: T = self.face(session.run_sync, work)
            return result
        return work(session)

    def close(self) -> None:
        for session in self.opened:
            self.face(session.close)


class Rows:
    """The rows of both tenants in a module's database. They stay there from test to test until a test changes them."""

    def __init__(self, database: Database, tables: MetaData) -> None:
        self.database = database
        self.tables = tables
        self.held: dict[str, list[tuple[Any, ...]]] | None = None
        self._text: list[tuple[str, str]] = []

    def fill(self) -> dict[str, list[tuple[Any, ...]]]:
        """Insert the rows, unless they are there already; the contents of the database."""
        if self.held is None:
            with self.database.engine.begin() as connection:
                fill(connection)
                self.held = contents(connection)
                self._text = rows_as_text(connection, Base.metadata.sorted_tables)
        return self.held

    def after(self) -> dict[str, list[tuple[Any, ...]]]:
        """The contents of the database after a test. If they have changed, the next test fills the database again."""
        with self.database.engine.begin() as connection:
            if self.held is not None and rows_as_text(connection, Base.metadata.sorted_tables) == self._text:
                return self.held
            found = contents(connection)
        if found != self.held:
            self.held = None
        return found

    def clear(self) -> None:
        empty(self.database, self.tables)
        self.held = None


@pytest.fixture(scope="module")
def rows(_database: Database, tables: MetaData) -> Rows:
    return Rows(_database, tables)


@pytest.fixture
def database(_database: Database, rows: Rows, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with the tables, and without rows unless the test uses `guarded`."""
    if rows.held is not None and "guarded" not in request.fixturenames:
        rows.clear()
    yield _database
    if rows.held is None:
        rows.clear()


@pytest.fixture
def guarded(face: Face, rows: Rows) -> Iterator[Guarded]:
    """Guarded sessions on the rows of two tenants. After the test, the rows of the other tenant must be unchanged."""
    before = rows.fill()
    made = Guarded(face)
    yield made
    made.close()
    assert foreign(rows.after()) == foreign(before), "an attack changed another tenant's row"
