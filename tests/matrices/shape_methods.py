"""Each public method of a repository, called on any shape, with the expected results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import inspect

from dotmac_database import (
    DatabaseError,
    DuplicateEntityError,
    EntityNotFoundError,
    QueryFilter,
    QueryOptions,
    SortField,
    TenantIsolationError,
    ValidationError,
)
from tests.conftest import Face

from . import shape_models as m
from .shapes import PLACES, Dump, Expectation, Key, Shape, columns_of, parts_of


class Cell:
    """A repository of a shape with its rows. Returned objects are compared with the database at the end of the cell."""

    def __init__(self, face: Face, repository: Any, shape: Shape, before: Dump, dialect: str) -> None:
        self.face, self.repository, self.shape, self.dialect = face, repository, shape, dialect
        self.expected = Expectation(shape, before)
        self.given: list[tuple[dict[str, Any], Key]] = []
        self.new_rows: list[dict[str, Any]] = []

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.face(getattr(self.repository, method), *args, **kwargs)

    @property
    def number(self) -> str:
        """A field to filter and sort by: the child's own field, if it has one."""
        return "size" if self.shape.sized else "name"

    def id(self, key: Key) -> Any:
        return key[0] if len(key) == 1 else key

    def entity(self, entity: Any, key: Key | None = None) -> Any:
        """Record an object that a method returned. At the end it must have the values of its row."""
        assert entity is not None
        found = tuple(inspect(entity).dict[name] for name in self.shape.keys)
        assert key is None or found == key
        self.given = [each for each in self.given if each[1] != found]
        self.given.append((dict(inspect(entity).dict), found))
        return entity

    def entities(self, entities: Sequence[Any], keys: Sequence[Key]) -> None:
        """Record the objects that a method returned, in any order. Their keys must be ``keys``."""
        found = sorted(inspect(self.entity(each)).identity for each in entities)
        assert found == sorted(keys), f"{found} instead of {sorted(keys)}"

    def new(self, number: int, **more: Any) -> dict[str, Any]:
        """The data of a new row."""
        row: dict[str, Any] = {"name": f"new {number:03}", **self.shape.more, **more}
        if self.shape.sized:
            row.setdefault("size", number + 2)
        if self.shape.key is not None:
            key = self.shape.key(1000 + number)
            row |= {name: part for name, part in zip(self.shape.keys, key, strict=True) if name != "tenant_id"}
        return row

    def inserted(self, *rows: dict[str, Any]) -> None:
        self.new_rows += rows

    def settled(self, found: Dump) -> None:
        """Check that the new rows in the database have the requested values, and add them to the expected rows."""
        mapper = self.shape.mapper
        table_of_all = parts_of(mapper)[0].fullname
        news = [key for key in found[table_of_all] if key not in self.expected.before[table_of_all]]
        assert len(news) == len(self.new_rows), f"{len(news)} new rows"
        values = {}
        for key in news:
            row: dict[str, Any] = {}
            for table in parts_of(mapper):
                held = found[table.fullname][key]
                row |= {attr: held[column] for attr, column in columns_of(mapper, table).items()}
                self.expected.rows[table.fullname][key] = held
            values[row["name"]] = row
        for given in self.new_rows:
            wanted = {"tenant_id": "a", **given}
            if self.shape.discriminator is not None:
                wanted[self.shape.discriminator] = mapper.polymorphic_identity
            held = values[given["name"]]
            assert {name: held[name] for name in wanted} == wanted

    def agree(self) -> None:
        """Check that each recorded object has the values of its row."""
        rows = self.expected.entities(deleted=True)
        for given, key in self.given:
            held = {name: value for name, value in given.items() if name in rows[key]}
            held |= {
                name: "moment" for name in ("created_at", "updated_at", "deleted_at") if held.get(name) is not None
            }
            assert held == {name: rows[key][name] for name in held}
            assert {"name", "tenant_id"} <= held.keys()


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not isinstance(error, kinds or DatabaseError):
            raise
        return
    raise AssertionError("It was not refused.")


Method = Callable[[Cell], None]
READS: dict[str, Method] = {}
WRITES: dict[str, Method] = {}


def reads(method: Method) -> Method:
    READS[method.__name__] = method
    return method


def writes(method: Method) -> Method:
    WRITES[method.__name__] = method
    return method


def _own(c: Cell, place: int = 1, *, deleted: bool = False) -> list[Key]:
    return c.expected.keys(deleted=deleted, name=f"n{place}")


def _others(c: Cell) -> list[Key]:
    """The keys of rows that the repository must not see: those of the other tenant, and of sibling classes."""
    own = set(c.expected.keys(deleted=True))
    return [key for key in c.expected.before[parts_of(c.shape.mapper)[0].fullname] if key not in own]


def _by(c: Cell, **values: Any) -> list[QueryFilter]:
    return [QueryFilter(name, value=value) for name, value in values.items()]


@reads
def by_key(c: Cell) -> None:
    own = c.expected.keys()
    for key in own:
        c.entity(c("get_by_id", c.id(key)), key)
        c.entity(c("get_by_id_or_raise", c.id(key)), key)
        assert c("exists", c.id(key))
    for key in _others(c):
        assert c("get_by_id", c.id(key)) is None
        assert not c("exists", c.id(key))
        with refused(EntityNotFoundError):
            c("get_by_id_or_raise", c.id(key))


@reads
def get_many(c: Cell) -> None:
    keys = [*_others(c), *c.expected.keys()]
    c.entities(c("get_many", list(map(c.id, keys))), c.expected.keys())


@reads
def by_field(c: Cell) -> None:
    c.entity(c("get_by_field", "name", "n1"), _own(c)[0])
    c.entities(c("list_by_field", "name", "n1"), _own(c))
    if c.shape.sized:
        c.entities(c("list_by_field", "size", 2), _own(c))
        c.entity(c("get_by_field", "size", 2), _own(c)[0])


@reads
def lists(c: Cell) -> None:
    keys = c.expected.keys()
    c.entities(c("list"), keys)
    c.entity(c("first"), keys[0])
    assert c("count") == len(keys)
    assert c("count", _by(c, name="n1")) == len(_own(c))
    listed = c("list", QueryOptions(filters=_by(c, name="n1"), sorts=[SortField(c.number, "desc")]))
    c.entities(listed, _own(c))
    c.entities(c("list", QueryOptions(include_deleted=True)), c.expected.keys(deleted=True))
    c.entities(c("stream", None, 2), keys)


@reads
def pages(c: Cell) -> None:
    keys = c.expected.keys()
    first = c("list_paginated", {"pagination": {"page": 1, "per_page": 2}, "sorts": [SortField("name")]})
    assert (first.total, len(first.items)) == (len(keys), min(2, len(keys)))
    for sorts in ([SortField("name")], [SortField("name", "desc")], [SortField(c.number)], []):
        found: list[Any] = []
        cursor = None
        while True:
            page = c("cursor_paginate", _page(c, sorts, cursor))
            found += page.items
            if not page.has_next:
                break
            cursor = page.next_cursor
        c.entities(found, keys)
        if page.has_prev:
            back = c("cursor_paginate", _page(c, sorts, page.prev_cursor))
            place = len(found) - len(page.items)
            assert [inspect(each).identity for each in back.items] == [
                inspect(each).identity for each in found[max(0, place - 2) : place]
            ]


def _page(c: Cell, sorts: list[SortField], cursor: str | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"cursor_pagination": {"limit": 2, "cursor": cursor, "cursor_field": c.shape.keys[0]}}
    return {**asked, "sorts": sorts} if sorts else asked


@reads
def values(c: Cell) -> None:
    rows = c.expected.entities()
    names = ("name", c.number, *c.shape.keys)
    found = c.repository.values(*dict.fromkeys(names))
    wanted = sorted(({name: row[name] for name in names} for row in rows.values()), key=repr)
    assert sorted(c.face(found.list), key=repr) == wanted
    assert sorted(c.face(found.stream, None, 2), key=repr) == wanted


@reads
def aggregates(c: Cell) -> None:
    rows = list(c.expected.entities().values())
    assert c("aggregate", {"n": "count"}) == [{"n": len(rows)}]
    names = sorted({row["name"] for row in rows})
    assert c("distinct_values", "name") == names
    wanted = [{"name": name, "n": sum(row["name"] == name for row in rows)} for name in names]
    assert c("aggregate", {"n": "count"}, group_by="name") == wanted
    if c.shape.sized:
        assert c("aggregate", {"s": ("sum", "size")}) == [{"s": sum(row["size"] for row in rows)}]
    assert c("get_tenant_stats")["total_entities"] == len(rows)


@reads
def expressions(c: Cell) -> None:
    rows = c.expected.entities()
    for name, value in c.shape.fields.items():
        wanted = sorted({value(row) for row in rows.values()})
        for each in wanted:
            keys = [key for key, row in rows.items() if value(row) == each]
            c.entities(c("list", QueryOptions(filters=_by(c, **{name: each}))), keys)
            assert c("count", _by(c, **{name: each})) == len(keys)
        listed = c("list", QueryOptions(sorts=[SortField(name, "desc")]))
        got = [value(rows[inspect(entity).identity]) for entity in listed]
        assert got == sorted(got, reverse=True)
        assert c("distinct_values", name) == wanted
        assert [each[name] for each in c("aggregate", {"n": "count"}, group_by=name)] == wanted
        assert c("aggregate", {"n": ("max", name)}) == [{"n": wanted[-1]}]
        for entity in listed:
            assert getattr(entity, name) == value(rows[inspect(entity).identity])


@reads
def relationships(c: Cell) -> None:
    targets = {"site": "site_id", "club": "club_id", "parent": "parent_id"}
    for name in c.shape.related:
        all_of = c("list", QueryOptions(relationships=[name]))
        c.entities(all_of, c.expected.keys())
        path = f"{name}.name"
        if name in targets:
            near = {"parent": parts_of(c.shape.mapper)[0].name}.get(name, name)
            rows = c.expected.entities()
            known = {key[0]: row["name"] for key, row in c.expected.before[near].items()}
            for entity in all_of:
                held = inspect(entity).dict[name]
                assert (None if held is None else held.name) == known.get(getattr(entity, targets[name]))
            for wanted in {*known.values()}:
                keys = [key for key, row in rows.items() if known.get(row[targets[name]]) == wanted]
                c.entities(c("list", QueryOptions(filters=_by(c, **{path: wanted}))), keys)
                assert c("count", _by(c, **{path: wanted})) == len(keys)
            c.entities(c("list", QueryOptions(sorts=[SortField(path)])), c.expected.keys())
            assert sum(each["n"] for each in c("aggregate", {"n": "count"}, group_by=path)) == len(rows)
        else:
            c("list", QueryOptions(filters=_by(c, **{path: "n1"})))


@reads
def locked(c: Cell) -> None:
    c.repository = c.repository.for_update()
    c.repository.auto_commit = False
    if c.shape.model is m.Document:
        with refused(ValidationError):  # the rows of a union can't be locked
            c("list")
        return
    c.entities(c("list", QueryOptions(filters=_by(c, name="n1"))), _own(c))
    c.entity(c("get_by_id", c.id(_own(c)[0])), _own(c)[0])


@reads
def another_tenant(c: Cell) -> None:
    with refused(TenantIsolationError, ValidationError):
        c("create", c.new(0, tenant_id="b"))
    other = c.repository.with_tenant("b")
    try:
        found = c.face(other.list)
    except TenantIsolationError:
        return  # a guarded session that is bound to tenant a
    keys = sorted(c.expected.entities(tenant="b"))
    assert sorted(inspect(each).identity for each in found) == keys


@writes
def create(c: Cell) -> None:
    row = c.new(0)
    created = c.entity(c("create", row))
    assert type(created) is c.shape.model
    c.inserted(row)


def _bulk(number: int, *, returning: bool) -> Method:
    def method(c: Cell) -> None:
        rows = [c.new(each) for each in range(number)]
        made = c("bulk_create", rows, returning=returning)
        if returning:
            assert [c.entity(each).name for each in made] == [row["name"] for row in rows]
            assert {type(each) for each in made} == {c.shape.model}
        else:
            assert made == number
        c.inserted(*rows)

    method.__name__ = f"bulk_create_{number}_{'returning' if returning else 'counting'}"
    return method


for _number in (1, 3, 30, 501):
    for _returning in (True, False):
        writes(_bulk(_number, returning=_returning))


def _forged(way: str) -> Method:
    def method(c: Cell) -> None:
        name = c.shape.discriminator
        if name is None:
            return
        keyed = dict(zip(c.shape.keys, _sure(c)[0], strict=True))
        creates = way not in ("update", "update_where", "bulk_update")
        for kind in (c.shape.forged, *(() if creates else (None,))):
            with refused():
                _forge(c, way, {name: kind}, keyed)

    method.__name__ = f"{way}_forged"
    return method


def _forge(c: Cell, way: str, what: dict[str, Any], keyed: dict[str, Any]) -> None:
    """Write a row with the discriminator of another class, or without one."""
    if way == "update":
        c("update", tuple(keyed.values()), what)
    elif way == "update_where":
        c("update_where", _by(c, name="n1"), what)
    elif way == "bulk_update":
        c("bulk_update", [{**keyed, **what}])
    elif way == "create":
        c("create", c.new(0, **what))
    elif way == "upsert":
        c("upsert", {**c.new(0), **keyed, **what}, c.shape.keys)
    else:
        c("bulk_create", [c.new(each, **what) for each in range(30)], returning=way == "bulk_create_returning")


for _way in ("update", "update_where", "bulk_update", "create", "upsert", "bulk_create_returning", "bulk_create"):
    writes(_forged(_way))


@writes
def update(c: Cell) -> None:
    for number, key in enumerate(_own(c)):
        values = {"name": f"new {number}", **({"size": 70} if c.shape.sized else {})}
        c.entity(c("update", c.id(key), values), key)
        c.expected.changed([key], **values)


@writes
def update_parent_and_child(c: Cell) -> None:
    key = _own(c)[-1]
    c.entity(c("update", c.id(key), {"name": "new"}), key)
    c.expected.changed([key], name="new")
    if c.shape.sized:
        c.entity(c("update", c.id(key), {"size": 71}), key)
        c.expected.changed([key], size=71)


@writes
def update_same_class(c: Cell) -> None:
    """An update can contain the row's own discriminator, like a form that sends back all values."""
    name, own = c.shape.discriminator, c.shape.mapper.polymorphic_identity
    key = next((k for k in _own(c) if name and c.expected.entities()[k][name] == own), None)
    if name is None or key is None or c.shape.mapper.polymorphic_abstract:
        return
    c.entity(c("update", c.id(key), {"name": "new", name: own}), key)
    c.expected.changed([key], name="new")


@writes
def change_foreign(c: Cell) -> None:
    for key in _others(c):
        with refused(EntityNotFoundError):
            c("update", c.id(key), {"name": "stolen"})
        assert not c("delete", c.id(key), soft_delete=False)
        assert not c("delete", c.id(key))
    rows = [{**dict(zip(c.shape.keys, key, strict=True)), "name": "stolen"} for key in _others(c)]
    if "tenant_id" in c.shape.keys:
        with refused(TenantIsolationError):
            c("bulk_update", rows)
    else:
        assert c("bulk_update", rows) == 0


@writes
def update_where(c: Cell) -> None:
    keys = _own(c)
    values: dict[str, Any] = {"size": 70} if c.shape.sized else {"name": "new"}
    assert c("update_where", _by(c, name="n1"), values) == len(keys)
    c.expected.changed(keys, **values)
    if c.shape.sized:
        assert c("update_where", _by(c, size=70), {"name": "new"}) == len(keys)
        c.expected.changed(keys, name="new")


@writes
def update_where_held(c: Cell) -> None:
    held = c("list")
    update_where(c)
    c("list")
    for entity in held:
        c.entity(entity)


@writes
def bulk_update(c: Cell) -> None:
    keys = _own(c)
    rows = [{**dict(zip(c.shape.keys, key, strict=True)), "name": f"new {n}"} for n, key in enumerate(keys)]
    assert c("bulk_update", rows) == len(keys)
    for number, key in enumerate(keys):
        c.expected.changed([key], name=f"new {number}")
    if c.shape.sized:
        rows = [{**dict(zip(c.shape.keys, key, strict=True)), "size": 70} for key in keys]
        assert c("bulk_update", rows) == len(keys)
        c.expected.changed(keys, size=70)


@writes
def delete(c: Cell) -> None:
    for key in _own(c):
        assert c("delete", c.id(key))
        (c.expected.marked if c.expected.softly else c.expected.removed)([key])


@writes
def delete_for_good(c: Cell) -> None:
    for key in c.expected.keys(deleted=True, name="n2"):
        assert c("delete", c.id(key), soft_delete=False)
        c.expected.removed([key])


@writes
def delete_held(c: Cell) -> None:
    c("list", QueryOptions(include_deleted=True))
    delete_for_good(c)
    assert c("count", None, True) == len(c.expected.keys(deleted=True))


@writes
def delete_where(c: Cell) -> None:
    keys = _own(c)
    assert c("delete_where", _by(c, name="n1")) == len(keys)
    (c.expected.marked if c.expected.softly else c.expected.removed)(keys)
    if c.shape.sized:
        keys = c.expected.keys(size=PLACES)
        assert c("delete_where", _by(c, size=PLACES)) == len(keys)
        (c.expected.marked if c.expected.softly else c.expected.removed)(keys)


@writes
def delete_where_held(c: Cell) -> None:
    c("list")
    keys = c.expected.keys(deleted=True, name="n2")
    assert c("delete_where", _by(c, name="n2"), False) == len(keys)
    c.expected.removed(keys)
    c("list")


@writes
def change_by_expression(c: Cell) -> None:
    """A filter by an expression of the class changes only rows of the tenant."""
    for name, value in c.shape.fields.items():
        rows = c.expected.entities()
        wanted = next(value(row) for row in rows.values() if row["size"] == 2)
        keys = [key for key, row in rows.items() if value(row) == wanted]
        assert c("update_where", _by(c, **{name: wanted}), {"size": 2}) == len(keys)
        c.expected.changed(keys, size=2)
    for name, value in list(c.shape.fields.items())[:1]:
        keys = [key for key, row in c.expected.entities().items() if value(row) == 4]
        assert c("delete_where", _by(c, **{name: 4})) == len(keys)
        c.expected.removed(keys)


@writes
def delete_all(c: Cell) -> None:
    keys = c.expected.keys(deleted=True)
    assert c("delete_where", [], False, allow_all=True) == len(keys)
    c.expected.removed(keys)


@writes
def restore(c: Cell) -> None:
    if not c.expected.softly:
        with refused(ValidationError):
            c("restore", c.id(_own(c)[0]))
        return
    for key in c.expected.keys(deleted=True, name="n2"):
        c.entity(c("restore", c.id(key)), key)
        names = {"is_deleted": False, "deleted_at": None}
        c.expected.changed([key], **{k: v for k, v in names.items() if k in c.shape.mapper.column_attrs})


@writes
def upsert(c: Cell) -> None:
    key = next(iter(_sure(c)))
    keyed = dict(zip(c.shape.keys, key, strict=True))
    if not _keys_can_be_given(c):
        with refused():
            c("upsert", {**keyed, **c.new(0)}, c.shape.keys)
        return
    new = {"name": "new", **c.shape.more, **({"size": 70} if c.shape.sized else {})}
    if not c.shape.one_table:
        with refused(ValidationError):
            c("upsert", {**keyed, **new}, c.shape.keys)
        return
    c.entity(c("upsert", {**keyed, **new}, c.shape.keys), key)
    c.expected.changed([key], **new)
    fresh = {**c.new(0), **_new_key(c, 900)}
    c.entity(c("upsert", fresh, c.shape.keys))
    c.inserted(fresh)


@writes
def bulk_upsert(c: Cell) -> None:
    if not c.shape.one_table or not _keys_can_be_given(c):
        return
    keys = _sure(c)
    changed = [{**c.new(0), **dict(zip(c.shape.keys, key, strict=True)), "name": "new"} for key in keys]
    fresh = [{**c.new(number), **_new_key(c, 900 + number)} for number in range(1, 30)]
    for entity in c("bulk_upsert", [*changed, *fresh], c.shape.keys):
        c.entity(entity)
    c.expected.changed(keys, name="new", **({"size": 2} if c.shape.sized else {}), **c.shape.more)
    c.inserted(*fresh)


@writes
def upsert_foreign(c: Cell) -> None:
    if not c.shape.one_table or not _keys_can_be_given(c):
        return
    for key in _others(c):
        keyed = dict(zip(c.shape.keys, key, strict=True))
        with refused(DuplicateEntityError, TenantIsolationError):
            c("upsert", {**keyed, **c.new(0), **keyed}, c.shape.keys)


def _sure(c: Cell) -> list[Key]:
    """The keys of rows that are exactly of this class and not of a subclass, so that an upsert can change them."""
    own = c.shape.mapper.polymorphic_identity
    rows = c.expected.entities()
    return [key for key in _own(c) if c.shape.discriminator is None or rows[key][c.shape.discriminator] == own] or _own(
        c
    )


def _keys_can_be_given(c: Cell) -> bool:
    return c.shape.model is not m.Numbered or c.dialect == "sqlite"


def _new_key(c: Cell, number: int) -> dict[str, Any]:
    made = (c.shape.key or c.shape.made)(number)
    return dict(zip(c.shape.keys, made, strict=True))


@writes
def in_batches_by_repository(c: Cell) -> None:
    keys = c.expected.keys()

    def work(rows: list[Any]) -> Any:
        found = [inspect(row).identity for row in rows]
        return c.repository.bulk_update(
            [{**dict(zip(c.shape.keys, key, strict=True)), "name": "batch"} for key in found]
        )

    if c.shape.model is m.Document:
        with refused(ValidationError):  # the rows of a union can't be locked
            c("in_batches", work)
        return
    assert c("in_batches", work, batch_size=3) == len(keys)
    c.expected.changed(keys, name="batch")


@writes
def in_batches_by_objects(c: Cell) -> None:
    keys = c.expected.keys()

    def work(rows: list[Any]) -> None:
        for row in rows:
            row.name = "batch"

    if c.shape.model is m.Document:
        with refused(ValidationError):  # the rows of a union can't be locked
            c("in_batches", work)
        return
    assert c("in_batches", work, batch_size=3) == len(keys)
    c.expected.changed(keys, name="batch")
