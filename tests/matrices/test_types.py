"""The matrix of column types, drivers, and ways to read and write.

A value that was read must find its rows, and must be unchanged when it is written again.

The expected result is a plain SELECT by the same driver. Python compares and orders the values that it returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import String, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import CursorPaginationParams, QueryFilter, create_database
from tests.conftest import Face

from .column_types import KINDS, SAMPLE, Kind

# SQLAlchemy's types MONEY and DOMAIN cause this warning in comparisons.
pytestmark = pytest.mark.filterwarnings("ignore:Type object .* does not refer to an OperatorClass")

DRIVERS = {
    "sqlite3": ("sqlite", "sync"),
    "aiosqlite": ("sqlite", "async"),
    "psycopg": ("postgresql", "sync"),
    "psycopg_async": ("postgresql", "async"),
    "asyncpg": ("postgresql", "async"),
}


class Base(DeclarativeBase):
    """The base class of the tables, one for each kind."""


def _model(kind: Kind) -> Any:
    columns = {
        "__tablename__": f"kind_{kind.name}",
        "__module__": __name__,
        "__annotations__": {"id": Mapped[int], "name": Mapped[str], "value": Mapped[Any]},
        "id": mapped_column(primary_key=True),
        "name": mapped_column(String(40), unique=True),
        "value": mapped_column(kind.type(), nullable=True),
    }
    return type(f"Kind_{kind.name}", (Base,), columns)


MODELS = {kind.name: _model(kind) for kind in KINDS}


def _sorts(sort: str, nulls: str | None = None) -> list[dict[str, Any]]:
    return [{"field": sort.lstrip("-"), "order": "desc" if sort.startswith("-") else "asc", "nulls": nulls}]


class Cells:
    """The cells of one kind on one face: the rows of the kind, and the wrong cells."""

    def __init__(self, face: Face, kind: Kind) -> None:
        self.face, self.kind, self.model = face, kind, MODELS[kind.name]
        self.wrong: list[str] = []
        self.rows: list[tuple[int, Any]] = []

    def cell(self, name: str, check: Callable[[Any], Any]) -> None:
        """Run one cell on its own session. An exception, or a result that is not None, is recorded as wrong."""
        try:
            with self.face.session() as session:
                said = check(self.face.repository(session, self.model))
        except Exception as error:  # noqa: BLE001 - the matrix reports every error, and continues
            said = f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
        if said is not None:
            self.wrong.append(f"{self.kind.name}.{name}: {said}")

    def run(self) -> list[str]:
        """Run all cells in order; the wrong ones."""
        self.cell("create", self.create)
        self._read()
        if self.kind.equals:
            for value in self._distinct():
                self._filters(value)
        if self.kind.sorts:
            for sort in ("value", "-value"):
                self.cell(f"stream({sort})", lambda repository, s=sort: self.stream(repository, s))
                for nulls in ("first", "last"):
                    self.cell(
                        f"cursor({sort}, {nulls})", lambda repository, s=sort, n=nulls: self.pages(repository, s, n)
                    )
        for way in ("create", "bulk", "bulk_unreturned", "upsert", "update", "same"):
            self.cell(f"back.{way}", lambda repository, w=way: self.written_back(repository, w))
        return self.wrong

    # Stored rows

    def create(self, repository: Any) -> str | None:
        """Store each value twice, two NULLs, and the forms that only SQL stores."""
        names = iter(range(1000))
        for value in (*self.kind.values, *self.kind.values, None, None):
            self.face(repository.create, {"name": f"n{next(names)}", "value": value})
        engine = self.face.database.engine
        with engine.begin() as connection:
            for sql in (*self.kind.raw, *self.kind.raw):
                name = f"n{next(names)}"
                connection.execute(text(f"INSERT INTO kind_{self.kind.name} (name, value) VALUES ('{name}', {sql})"))
        return None

    def _read(self) -> None:
        with self.face.session() as session:
            rows = self.face(session.execute, select(self.model.id, self.model.value).order_by(self.model.id))
            self.rows = [(row[0], row[1]) for row in rows]

    def _distinct(self) -> list[Any]:
        found: list[Any] = []
        for _, value in self.rows:
            if value is not None and value not in found:
                found.append(value)
        return found

    def stored(self) -> dict[int, str]:
        """The stored value of each row, as text from the database."""
        sqlite = self.face.database.engine.dialect.name == "sqlite"
        expression = "typeof(value) || quote(value)" if sqlite else "value::text"
        with self.face.database.engine.connect() as connection:
            rows = connection.execute(text(f"SELECT id, {expression} FROM kind_{self.kind.name}")).all()
        return {row[0]: row[1] for row in rows}

    # Filters by a value that was read

    def _filters(self, value: Any) -> None:
        known = [(key, each) for key, each in self.rows if each is not None]
        equal = {key for key, each in known if each == value}
        other = {key for key, _ in known} - equal
        self.cell(f"eq {value!r}", lambda r: self.asked(r, equal, "eq", value))
        self.cell(f"ne {value!r}", lambda r: self.asked(r, other, "ne", value))
        self.cell(f"get_by_field {value!r}", lambda r: self.first(r, min(equal), value))
        if self.kind.lists:
            self.cell(f"in {value!r}", lambda r: self.asked(r, equal, "in", [value]))
            self.cell(f"not_in {value!r}", lambda r: self.asked(r, other, "not_in", [value]))
            self.cell("in all", lambda r: self.asked(r, equal | other, "in", self._distinct()))
        if not (self.kind.ranges and self.kind.sorts):
            return
        above = {key for key, each in known if each > value}
        below = {key for key, each in known if each < value}
        self.cell(f"gt {value!r}", lambda r: self.asked(r, above, "gt", value))
        self.cell(f"gte {value!r}", lambda r: self.asked(r, above | equal, "gte", value))
        self.cell(f"lt {value!r}", lambda r: self.asked(r, below, "lt", value))
        self.cell(f"lte {value!r}", lambda r: self.asked(r, below | equal, "lte", value))
        self.cell(f"between {value!r}", lambda r: self.asked(r, equal, "between", [value, value]))

    def asked(self, repository: Any, expected: set[int], operator: Any, value: Any) -> str | None:
        rows = self.face(repository.list, {"filters": [QueryFilter("value", operator, value)]})
        found = {row.id for row in rows}
        return None if found == expected else f"{sorted(found)}, not {sorted(expected)}"

    def first(self, repository: Any, expected: int, value: Any) -> str | None:
        row = self.face(repository.get_by_field, "value", value)
        return None if row is not None and row.id == expected else f"{row and row.id}, not {expected}"

    # Orders: each row exactly once

    def stream(self, repository: Any, sort: str) -> str | None:
        expected = [row.id for row in self.face(repository.list, {"sorts": _sorts(sort)})]
        found = self.face(self._bounded, repository.stream({"sorts": _sorts(sort)}, batch_size=2))
        return None if found == expected else f"{found}, not {expected}"

    def _bounded(self, rows: Any) -> Any:
        most = len(self.rows) + 2
        if hasattr(rows, "__aiter__"):
            return self._abounded(rows, most)
        return [row.id for row, _ in zip(rows, range(most), strict=False)]

    async def _abounded(self, rows: Any, most: int) -> list[int]:
        found: list[int] = []
        async for row in rows:
            found.append(row.id)
            if len(found) >= most:
                break
        await rows.aclose()
        return found

    def pages(self, repository: Any, sort: str, nulls: str) -> str | None:
        """Read all pages forward, then backward from the last one. A walk without end is stopped, and is wrong."""
        sorts = _sorts(sort, nulls)
        expected = [row.id for row in self.face(repository.list, {"sorts": sorts})]

        def page(cursor: str | None) -> Any:
            params = CursorPaginationParams(limit=2, cursor=cursor)
            return self.face(repository.cursor_paginate, {"sorts": sorts, "cursor_pagination": params})

        forward, last = self._walk(page, page(None), "next_cursor")
        if forward != expected:
            return f"forward {forward}, not {expected}"
        back, _ = self._walk(page, last, "prev_cursor")
        return None if back == expected else f"back {back}, not {expected}"

    def _walk(self, page: Callable[[str | None], Any], at: Any, direction: str) -> tuple[list[int], Any]:
        found = [row.id for row in at.items]
        for _ in range(len(self.rows) + 2):
            cursor = getattr(at, direction)
            if cursor is None:
                break
            at = page(cursor)
            items = [row.id for row in at.items]
            found = [*found, *items] if direction == "next_cursor" else [*items, *found]
        return found, at

    # Writes of a value that was read

    def written_back(self, repository: Any, way: str) -> str | None:
        """Write the values that were read: the new rows must have the same stored values as the old ones."""
        before = self.stored()
        if way in ("update", "same"):
            return self._updated(repository, way, before)
        given = [{"name": f"{way}{key}", "value": value} for key, value in self.rows]
        match way:
            case "create":
                for each in given:
                    self.face(repository.create, each)
            case "bulk":
                self.face(repository.bulk_create, given)
            case "bulk_unreturned":
                self.face(repository.bulk_create, given, returning=False)
            case _:
                for each in given:
                    self.face(repository.upsert, each, ["name"])
                    self.face(repository.upsert, each, ["name"])
        after = self.stored()
        copies = {each.name: each.id for each in self.face(repository.list)}
        pairs = [(key, before[key], after[copies[f"{way}{key}"]]) for key, _ in self._exact()]
        self._forget(way)
        return self._differing(pairs)

    def _updated(self, repository: Any, way: str, before: dict[int, str]) -> str | None:
        for key, value in self.rows:
            if way == "update":
                self.face(repository.update, key, {"value": None})
            self.face(repository.update, key, {"value": value})
        after = self.stored()
        return self._differing([(key, before[key], after[key]) for key, _ in self._exact()])

    def _exact(self) -> list[tuple[int, Any]]:
        """The rows that the toolkit wrote. SQL may have stored forms that no Python value has."""
        return self.rows[: 2 * len(self.kind.values) + 2] if self.kind.equals or not self.kind.sorts else []

    def _differing(self, pairs: list[tuple[int, str, str]]) -> str | None:
        differing = [f"{key}: {old} became {new}" for key, old, new in pairs if old != new]
        return "; ".join(differing)[:200] or None

    def _forget(self, way: str) -> None:
        with self.face.database.engine.begin() as connection:
            connection.execute(text(f"DELETE FROM kind_{self.kind.name} WHERE name LIKE '{way}%'"))


@pytest.fixture(params=list(DRIVERS), scope="module")
def driver(request: pytest.FixtureRequest) -> str:
    """A driver, with its own database."""
    return str(request.param)


@pytest.fixture
def types_face(driver: str, request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Face]:
    """The face of a driver."""
    dialect, name = DRIVERS[driver]
    if dialect == "sqlite":
        url = f"sqlite:///{tmp_path}/types.db"
    else:
        url = str(request.getfixturevalue("postgres_url"))
        url = url.replace("postgresql://", "postgresql+psycopg://") if driver == "psycopg_async" else url
    database = create_database(url)
    with asyncio.Runner() as runner:
        yield Face(name, database, runner)
        if "async_engine" in database.__dict__:
            runner.run(database.async_engine.dispose())
    database.dispose()


def run(face: Face, kinds: list[Kind]) -> list[str]:
    """The wrong cells of these kinds on one face."""
    dialect = face.database.engine.dialect.name
    chosen = [kind for kind in kinds if dialect in kind.on]
    tables = [MODELS[kind.name].__table__ for kind in chosen]
    for table in tables:  # not create_all, which would create PostgreSQL's types on SQLite
        table.create(face.database.engine)
    try:
        return [wrong for kind in chosen for wrong in Cells(face, kind).run()]
    finally:
        for table in tables:
            table.drop(face.database.engine)


def test_a_sample_of_types(types_face: Face) -> None:
    wrong = run(types_face, [kind for kind in KINDS if kind.name in SAMPLE])
    assert not wrong, "\n".join(wrong)


@pytest.mark.matrix
def test_every_type(types_face: Face) -> None:
    wrong = run(types_face, list(KINDS))
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong)
