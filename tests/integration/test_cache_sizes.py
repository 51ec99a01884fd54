"""Many calls of different shapes: no cache of statements exceeds its limit, and the memory does not grow."""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import ValidationError, create_database, observers
from dotmac_database.execution import compiling, driver
from dotmac_database.models import traits as traits_module
from dotmac_database.models.traits import MAX_SHAPES, traits_of
from tests.conftest import DRIVERS, Face
from tests.ways import create_tables, way_of

pytestmark = pytest.mark.fast_way("driver")

COLUMNS = tuple(f"number_{place}" for place in range(8))


class Base(DeclarativeBase):
    """The tables of these tests."""


def model_of(name: str) -> Any:
    """A new class with a primary key and the `COLUMNS`, whose caches are empty."""
    columns = {column: mapped_column(index=False, nullable=True) for column in COLUMNS}
    fixed = {
        "__tablename__": name,
        "__module__": __name__,
        "__annotations__": {"id": Mapped[int], **dict.fromkeys(COLUMNS, Mapped[int])},
        "id": mapped_column(primary_key=True, autoincrement=False),
    }
    return type(name, (Base,), {**fixed, **columns})


class Shapes:
    """Calls with random filters, sorts, fields and page sizes, always in the same order for the same seed."""

    def __init__(self, face: Face, model: Any, seed: int) -> None:
        self._face, self._model = face, model
        self._random = random.Random(seed)
        self._calls = (self._list, self._page, self._values, self._cursor, self._count, self._update, self._get)

    def run(self, count: int) -> None:
        """Make ``count`` calls, ten on each session."""
        for _ in range(count // 10):
            with self._face.session(expire_on_commit=False) as session:
                repository = self._face.repository(session, self._model)
                for _ in range(10):
                    self._random.choice(self._calls)(repository)

    def _filters(self) -> list[dict[str, Any]]:
        return [self._filter() for _ in range(self._random.randrange(5))]

    def _filter(self) -> dict[str, Any]:
        operator = self._random.choice(("eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "between", "is_null"))
        values: Any = [self._random.randrange(100) for _ in range(2 if operator == "between" else 3)]
        listed = operator in ("in", "not_in", "between")
        value = None if operator == "is_null" else values if listed else values[0]
        return {"field": self._random.choice(COLUMNS), "operator": operator, "value": value}

    def _sorts(self) -> list[dict[str, Any]]:
        fields = self._random.sample(COLUMNS, self._random.randrange(4))
        return [
            {
                "field": field,
                "order": self._random.choice(("asc", "desc")),
                "nulls": self._random.choice((None, "first", "last")),
            }
            for field in fields
        ]

    def _options(self) -> dict[str, Any]:
        page = {"page": self._random.randrange(1, 4), "per_page": self._random.randrange(1, 100)}
        return {"filters": self._filters(), "sorts": self._sorts(), "pagination": page}

    def _list(self, repository: Any) -> None:
        self._face(repository.list, self._options())

    def _page(self, repository: Any) -> None:
        self._face(repository.list_paginated, self._options())

    def _values(self, repository: Any) -> None:
        fields = self._random.sample(COLUMNS, self._random.randrange(1, len(COLUMNS)))
        self._face(repository.values(*fields).list, self._options())

    def _cursor(self, repository: Any) -> None:
        options = {**self._options(), "pagination": None}
        limit = {"limit": self._random.randrange(1, 100)}
        self._face(repository.cursor_paginate, {**options, "cursor_pagination": limit})

    def _count(self, repository: Any) -> None:
        self._face(repository.count, self._filters())

    def _update(self, repository: Any) -> None:
        fields = self._random.sample(COLUMNS, self._random.randrange(1, len(COLUMNS)))
        self._face(repository.update, 1, {field: self._random.randrange(100) for field in fields})

    def _get(self, repository: Any) -> None:
        self._face(repository.get_by_id, self._random.randrange(3))


@contextmanager
def opened(name: str, url: str, model: Any) -> Iterator[Face]:
    """The face of a driver with one connection, and a table with three rows."""
    face = Face(DRIVERS[name][0], create_database(url, pool_size=1, max_overflow=0))
    try:
        tables = model.metadata.tables[model.__tablename__].to_metadata(type(model.metadata)()).metadata
        create_tables(face, tables)
        with face.session() as session:
            repository = face.repository(session, model)
            for number in range(3):
                face(repository.create, {"id": number, **dict.fromkeys(COLUMNS, number)})
        yield face
    finally:
        face.runner.run(face.database.dispose_async())
        face.runner.close()


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[[str], str]:
    def url(name: str) -> str:
        scheme = DRIVERS[name][1]
        if scheme == "sqlite":
            return f"sqlite:///{tmp_path}/shapes.db"
        return str(request.getfixturevalue("postgres_url")).replace("postgresql", scheme, 1)

    return url


def observe(*_: object) -> None:
    """A listener that only observes, for which the driver needs SQLAlchemy's compiled statements."""


observe.dotmac_observes = True  # type: ignore[attr-defined]


def processors(face: Face) -> int:
    """The number of statements whose conversions the only connection has cached."""
    with face.session() as session:
        connection = face(session.connection)
        info = (connection.sync_connection if face.is_async else connection).info
        return len(info[driver._PROCESSORS])


def check_sizes(face: Face, model: Any) -> dict[str, int]:
    """Check that no cache exceeds its limit; the number of entries of each."""
    traits, dialect = traits_of(model), vars(face.engine.dialect)
    gc.collect()
    sizes = {
        "statements": len(traits.statements),
        "fields": len(traits.fields),
        "driver": len(dialect[compiling._DRIVER_STATEMENTS]),
        "compiled": len(dialect.get(compiling._COMPILED, ())),
        "processors": processors(face),
    }
    assert sizes["statements"] <= traits_module.MAX_SHAPES
    assert sizes["fields"] <= len(traits.columns)
    assert sizes["compiled"] <= compiling._MAX_COMPILED
    assert sizes["processors"] <= driver._MAX_PROCESSORS
    # A statement lives as long as a cache refers to it; the compiled ones refer to theirs, and so does the last call.
    assert sizes["driver"] <= sizes["statements"] + sizes["compiled"] + 1
    return sizes


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])
def test_the_caches_of_a_connection_and_an_engine(name: str, observed: bool, url_of: Callable[[str], str]) -> None:
    """There are more shapes than the caches of the connection and of the dialect may hold."""
    model = model_of(f"cached_{name.replace('-', '_')}_{observed}")
    with opened(name, url_of(name), model) as face:
        if observed:
            event.listen(face.engine, "before_cursor_execute", observe)
        largest = dict.fromkeys(("compiled", "processors"), 0)
        with way_of(face.engine, "driver") as sent:
            for seed in range(3):
                Shapes(face, model, seed).run(120)
                sizes = check_sizes(face, model)
                largest = {key: max(largest[key], sizes[key]) for key in largest}
        assert len({each.sql for each in sent}) > max(compiling._MAX_COMPILED, driver._MAX_PROCESSORS)
        assert largest["processors"] > 50
        assert (largest["compiled"] > 50) == observed


def test_the_cache_of_a_class(url_of: Callable[[str], str]) -> None:
    """There are more shapes than the cache of a class may hold, so that it is cleared at least once."""
    model = model_of("cached_shapes")
    with opened("sqlite3", url_of("sqlite3"), model) as face:
        sizes: list[int] = []
        with way_of(face.engine, "driver"):
            for seed in range(20):
                Shapes(face, model, seed).run(100)
                sizes.append(check_sizes(face, model)["statements"])
        assert max(sizes) > MAX_SHAPES // 2
        assert any(later < earlier for earlier, later in itertools.pairwise(sizes))


def unknown_calls(repository: Any, name: str) -> list[Callable[[], object]]:
    """Calls with the name of a field that does not exist."""
    return [
        lambda: repository.update(1, {name: 1}),
        lambda: repository.create({"id": 99, name: 1}),
        lambda: repository.list({"filters": [{"field": name, "value": 1}]}),
        lambda: repository.list({"sorts": [{"field": name}]}),
        lambda: repository.values(name).list(),
    ]


def test_names_that_are_no_fields_are_not_cached(url_of: Callable[[str], str]) -> None:
    model = model_of("cached_names")
    with opened("sqlite3", url_of("sqlite3"), model) as face, face.session() as session:
        repository = face.repository(session, model)
        Shapes(face, model, 1).run(50)
        before = check_sizes(face, model)
        for number in range(300):
            for call in unknown_calls(repository, f"unknown_{number}"):
                with pytest.raises(ValidationError):
                    call()
        assert check_sizes(face, model) == before


@pytest.mark.parametrize("name", ["sqlite3", "asyncpg"])
def test_the_memory_stays_flat(name: str, url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a warm-up that has filled and cleared each cache, more shapes need no more memory."""
    for module, limit in ((traits_module, "MAX_SHAPES"), (compiling, "_MAX_COMPILED"), (driver, "_MAX_PROCESSORS")):
        monkeypatch.setattr(module, limit, 40)  # so that a few hundred calls clear each cache several times
    model = model_of(f"flat_{name}")
    with opened(name, url_of(name), model) as face:
        event.listen(face.engine, "before_cursor_execute", observe)
        with way_of(face.engine, "driver"):
            Shapes(face, model, 0).run(200)
        tracemalloc.start()
        try:
            used = [used_after(face, model, seed) for seed in range(1, 7)]
        finally:
            tracemalloc.stop()
        # What grows, grows each time. What is loaded once, by this or by another thread, is not meant.
        assert median(after - before for before, after in itertools.pairwise(used)) < 50_000


def used_after(face: Face, model: Any, seed: int) -> int:
    """The memory in use after more calls, with the caches cleared that may be full or empty by chance."""
    Shapes(face, model, seed).run(100)
    traits_of(model).statements.clear()
    vars(face.engine.dialect)[compiling._COMPILED].clear()
    observers._is_control.cache_clear()  # an observer of another test may still be there
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_class_that_nothing_uses_is_released(url_of: Callable[[str], str]) -> None:
    """What the toolkit knows of a class lives as long as the class."""

    def used() -> weakref.ref[Any]:
        model = model_of("cached_for_a_while")
        with opened("sqlite3", url_of("sqlite3"), model) as face:
            Shapes(face, model, 0).run(50)
        return weakref.ref(model)

    released = used()
    gc.collect()
    assert released() is None
