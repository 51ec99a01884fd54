"""Every method of a repository and every inheritance: what is in the whole database afterwards, and what is not.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import MetaData, insert, select
from sqlalchemy.exc import SQLAlchemyError

from dotmac_database import ALL_TENANTS, Database, DatabaseError, QueryFilter, QueryOptions, ValidationError, unscoped
from tests.conftest import Face, empty

from .inherited import ROWS, SHAPES, Base, Shape

Dump = dict[str, dict[int, dict[str, Any]]]
"""Table → primary key → row."""


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def key_name(name: str) -> str:
    return "edge_id" if name == "edges" else "id"


class State:
    """The module's database, filled anew only where a test has changed it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.held: Dump | None = None

    def dump(self) -> Dump:
        with self.database.engine.connect() as connection:
            found = {
                table.name: {
                    row[key_name(table.name)]: dict(row) for row in connection.execute(select(table)).mappings()
                }
                for table in Base.metadata.sorted_tables
            }
        if found != self.held:
            self.held = None
        return found

    def fill(self) -> Dump:
        if self.held is None:
            empty(self.database, Base.metadata)
            with self.database.engine.begin() as connection:
                for table, rows in ROWS:
                    connection.execute(insert(table), rows)
                    if connection.dialect.name == "postgresql":
                        name = f"{table.name}_{key_name(table.name)}_seq"
                        connection.exec_driver_sql(f"ALTER SEQUENCE IF EXISTS {name} RESTART WITH 1000")
            self.held = self.dump()
        return self.held


@pytest.fixture(scope="module")
def state(_database: Database) -> State:
    return State(_database)


@pytest.fixture
def database(_database: Database) -> Database:
    """The rows stay from test to test; `State` looks whether they are still the same."""
    return _database


class Cell:
    """One repository over the filled database, and what is expected of it."""

    def __init__(self, face: Face, repository: Any, shape: Shape, before: Dump, tenant: Any) -> None:
        self.face, self.repository, self.shape, self.before, self.tenant = face, repository, shape, before, tenant
        self.expected = copy.deepcopy(before)

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.face(getattr(self.repository, method), *args, **kwargs)

    def entities(self, *, deleted: bool = False) -> dict[int, dict[str, Any]]:
        """The rows that are the repository's: all of an entity's tables as one dict."""
        found: dict[int, dict[str, Any]] = {}
        own = {table.name for table in self.shape.model.__mapper__.tables}
        for key in sorted(set.intersection(*(set(self.before[name]) for name in own))):
            row = {name: value for each in own for name, value in self.before[each][key].items()}
            if self.shape.kinds is not None and row["kind"] not in self.shape.kinds:
                continue
            gone = row.get("is_deleted") or row.get("deleted_at") is not None
            if (self.tenant is ALL_TENANTS or row["tenant_id"] == self.tenant) and (deleted or not gone):
                found[key] = row
        return found

    def ids(self, *, deleted: bool = False, **values: Any) -> list[int]:
        found = self.entities(deleted=deleted)
        return [key for key, row in found.items() if all(row[name] == value for name, value in values.items())]

    def removed(self, ids: list[int]) -> None:
        for table, _ in self.shape.tables:
            for each in ids:
                self.expected[table.name].pop(each, None)

    def changed(self, ids: list[int], **values: Any) -> None:
        if "version" in self.columns:
            for each in ids:
                self.put(each, "version", self.held(each, "version") + 1)
        for name, value in values.items():
            for each in ids:
                self.put(each, name, value)

    @property
    def columns(self) -> set[str]:
        return {column.name for table in self.shape.model.__mapper__.tables for column in table.columns}

    def place(self, key: int, name: str) -> dict[str, Any]:
        return next(
            self.expected[table.name][key]
            for table, _ in self.shape.tables
            if name in table.columns and key in self.expected[table.name]
        )

    def held(self, key: int, name: str) -> Any:
        return self.place(key, name)[name]

    def put(self, key: int, name: str, value: Any) -> None:
        self.place(key, name)[name] = value

    @property
    def field(self) -> str:
        """A column of the child's table, where the class has one."""
        return "size" if self.shape.sized else "name"

    @property
    def value(self) -> Any:
        return 1 if self.shape.sized else "n1"

    def marked(self, ids: list[int]) -> None:
        """Soft-deleted; a moment is compared as such."""
        self.changed(ids, **({"is_deleted": True} if "is_deleted" in self.columns else {"deleted_at": "moment"}))

    @property
    def softly(self) -> bool:
        return bool({"is_deleted", "deleted_at"} & self.columns)

    def new(self, name: str, size: int = 7) -> dict[str, Any]:
        row = {"name": name, **self.shape.more, **({"size": size} if self.shape.sized else {})}
        return {**row, "tenant_id": "a"} if self.tenant is ALL_TENANTS else row

    def inserted(self, found: Dump, rows: list[dict[str, Any]]) -> None:
        """The new rows are in each table of the class and name it; their keys are the database's."""
        own = self.shape.model.__mapper__.tables
        for table in own:
            new = found[table.name].keys() - self.before[table.name].keys()
            assert len(new) == len(rows)
        kind = self.shape.model.__mapper__.polymorphic_identity
        root = next(table for table, _ in reversed(self.shape.tables))
        news = sorted(found[root.name].keys() - self.before[root.name].keys())
        for key, given in zip(news, rows, strict=True):
            row = {name: value for table in own for name, value in found[table.name].pop(key).items()}
            wanted = {"tenant_id": "a", **given, **({} if kind is None else {"kind": kind})}
            assert {name: row[name] for name in wanted} == wanted


@contextmanager
def cell(face: Face, state: State, name: str, *, guarded: bool, tenant: Any = "a") -> Iterator[Cell]:
    before = state.fill()
    with face.guarded() if guarded else face.session() as session:
        repository = face.repository(session, SHAPES[name].model, tenant)
        if tenant is ALL_TENANTS and guarded:
            with unscoped(session, reason="the matrix"):
                yield Cell(face, repository, SHAPES[name], before, tenant)
        else:
            yield Cell(face, repository, SHAPES[name], before, tenant)


def moments(dump: Dump, before: Dump) -> Dump:
    """The dump with new moments as the word: what time it is is not the matter here."""
    for key, row in dump["pages"].items():
        if row["deleted_at"] is not None and row["deleted_at"] != before["pages"].get(key, {}).get("deleted_at"):
            row["deleted_at"] = "moment"
    return dump


def _delete_where_parent(c: Cell) -> None:
    ids = c.ids(name="n1")
    assert c("delete_where", [QueryFilter("name", value="n1")]) == len(ids)
    (c.marked if c.softly else c.removed)(ids)


def _delete_where_child(c: Cell) -> None:
    ids = c.ids(**{c.field: c.value})
    assert c("delete_where", [QueryFilter(c.field, value=c.value)]) == len(ids)
    (c.marked if c.softly else c.removed)(ids)


def _delete_where_for_good(c: Cell) -> None:
    ids = c.ids(deleted=True, name="n2")
    assert c("delete_where", [QueryFilter("name", value="n2")], False) == len(ids)
    c.removed(ids)


def _delete_all(c: Cell) -> None:
    ids = c.ids(deleted=True)
    assert c("delete_where", [], False, allow_all=True) == len(ids)
    c.removed(ids)


def _delete_held(c: Cell) -> None:
    """Objects that the session holds are no hindrance."""
    c("list")
    _delete_where_for_good(c)


def _delete(c: Cell) -> None:
    key = c.ids(name="n1")[-1]
    assert c("delete", key)
    (c.marked if c.softly else c.removed)([key])


def _delete_for_good(c: Cell) -> None:
    key = c.ids(deleted=True, name="n2")[-1]
    assert c("delete", key, soft_delete=False)
    c.removed([key])


def _foreign_keys(c: Cell) -> list[int]:
    """Keys in the class's tables that are not the repository's: others' rows and siblings'."""
    root = c.shape.tables[-1][0].name
    return [key for key in c.before[root] if key not in c.ids(deleted=True)]


def _delete_foreign(c: Cell) -> None:
    assert not any(c("delete", key, soft_delete=False) for key in _foreign_keys(c))


def _update_foreign(c: Cell) -> None:
    for key in _foreign_keys(c):
        with pytest.raises(DatabaseError):
            c("update", key, {"name": "stolen"})
    assert c("bulk_update", [{"id": key, "name": "stolen"} for key in _foreign_keys(c)]) == 0


def _update(c: Cell) -> None:
    key = c.ids(name="n1")[-1]
    values = {"name": "new", **({"size": 70} if c.shape.sized else {})}
    updated = c("update", key, values)
    assert updated.name == "new"
    c.changed([key], **values)


def _update_where_parent(c: Cell) -> None:
    ids = c.ids(name="n1")
    values = {"size": 70} if c.shape.sized else {"name": "new"}
    assert c("update_where", [QueryFilter("name", value="n1")], values) == len(ids)
    c.changed(ids, **values)


def _update_where_child(c: Cell) -> None:
    ids = c.ids(**{c.field: c.value, "name": "n1"})
    filters = [QueryFilter(c.field, value=c.value), QueryFilter("name", value="n1")]
    values = {"name": "new"}
    assert c("update_where", filters, values) == len(ids)
    c.changed(ids, **values)


def _bulk_update(c: Cell) -> None:
    ids = c.ids(name="n1")[-1:]
    assert c("bulk_update", [{"id": key, "name": f"new {key}"} for key in ids]) == len(ids)
    for key in ids:
        c.changed([key], name=f"new {key}")


def _restore(c: Cell) -> None:
    if not c.softly:
        with pytest.raises(ValidationError):
            c("restore", c.ids()[0])
        return
    key = c.ids(deleted=True, name="n2")[0]
    assert c("restore", key).id == key
    c.changed([key], **({"is_deleted": False} if "is_deleted" in c.columns else {"deleted_at": None}))


def _in_batches(c: Cell) -> None:
    given: list[int] = []
    assert c("in_batches", lambda rows: given.extend(row.id for row in rows), batch_size=2) == len(c.ids())
    assert given == c.ids()


def _locked(c: Cell) -> None:
    c.repository = c.repository.for_update()
    c.repository.auto_commit = False
    assert sorted(row.id for row in c("list", QueryOptions(filters=[QueryFilter("name", value="n1")]))) == c.ids(
        name="n1"
    )
    assert c("get_by_id", c.ids()[0]).id == c.ids()[0]


def _reads(c: Cell) -> None:
    ids = c.ids()
    filters = [QueryFilter(c.field, value=c.value), QueryFilter("name", value="n1")]
    few = c.ids(**{c.field: c.value, "name": "n1"})
    assert c("count") == len(ids)
    assert c("count", filters) == len(few)
    assert sorted(row.id for row in c("list", QueryOptions(filters=filters))) == few
    assert sorted(row.id for row in c("stream", None, 2)) == ids
    assert sorted(row.id for row in c("get_many", [*ids, *_foreign_keys(c)])) == ids
    assert not any(c("exists", key) for key in _foreign_keys(c))
    assert c("list_paginated").total == len(ids)
    page = c("cursor_paginate")
    assert [row.id for row in page.items] == ids[: len(page.items)]
    assert c("aggregate", {"n": "count"}) == [{"n": len(ids)}]
    assert c("distinct_values", "tenant_id") == sorted({row["tenant_id"] for row in c.entities().values()})


METHODS: dict[str, Callable[[Cell], None]] = {
    name.removeprefix("_"): made
    for name, made in list(globals().items())
    if getattr(made, "__annotations__", {}) == {"c": "Cell", "return": "None"}
}


@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_method_touches_the_entities_it_means_and_nothing_else(
    shape: str, *, guarded: bool, face: Face, state: State
) -> None:
    check(face, state, shape, METHODS, guarded=guarded, tenant="a")


def check(face: Face, state: State, shape: str, methods: Iterable[str], *, guarded: bool, tenant: Any) -> None:
    """Each method over the same rows; a test each would take its time with making connections."""
    wrong: dict[str, str] = {}
    for method in methods:
        try:
            with cell(face, state, shape, guarded=guarded, tenant=tenant) as made:
                METHODS[method](made)
                face(made.repository.db.rollback)
            assert moments(state.dump(), made.before) == made.expected
        except (DatabaseError, AssertionError, NotImplementedError, SQLAlchemyError) as error:
            wrong[method] = f"{type(error).__name__}: {error}"
            state.held = None
    assert wrong == {}


EVERYWHERE = ("delete_where_parent", "delete_where_for_good", "update_where_parent", "reads")


@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_method_across_all_tenants(shape: str, *, guarded: bool, face: Face, state: State) -> None:
    check(face, state, shape, EVERYWHERE, guarded=guarded, tenant=ALL_TENANTS)


@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["create", "bulk", "few without returning", "many without returning", "copied"])
def test_new_rows_are_of_the_class(way: str, shape: str, *, guarded: bool, face: Face, state: State) -> None:
    with cell(face, state, shape, guarded=guarded) as made:
        number = {"create": 1, "bulk": 3, "few without returning": 3, "many without returning": 25, "copied": 501}[way]
        rows = [made.new(f"new {place:03}") for place in range(number)]
        if way == "create":
            assert made("create", rows[0]).name == "new 000"
        elif way == "bulk":
            assert [row.name for row in made("bulk_create", rows)] == [row["name"] for row in rows]
        else:
            assert made("bulk_create", rows, returning=False) == number
    found = state.dump()
    made.inserted(found, rows)
    assert found == made.expected


@pytest.mark.parametrize("shape", SHAPES)
def test_an_upsert_of_several_tables_is_refused_and_of_a_siblings_row_too(shape: str, face: Face, state: State) -> None:
    with cell(face, state, shape, guarded=False) as made:
        own = len(made.shape.model.__mapper__.tables) == 1
        taken = _foreign_keys(made)[0] if _foreign_keys(made) else 1
        with pytest.raises(DatabaseError):
            made("upsert", {"id": taken, **made.new("stolen")}, ["id"])
        if own:
            key = made.ids()[-1]
            assert made("upsert", {"id": key, **made.new("new")}, ["id"]).name == "new"
            made.changed([key], name="new", **({"size": 7} if made.shape.sized else {}))
    assert state.dump() == made.expected
