"""The rows of each shape before a method, and the expected rows of the whole database after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, inspect, select
from sqlalchemy.orm import Mapper

from . import shape_models as m

Key = tuple[Any, ...]
Dump = dict[str, dict[Key, dict[str, Any]]]
"""The rows of each table by primary key; a row is a dict by the keys of its columns."""

PLACES = 4
"""The number of rows that each tenant has of each class."""

MOMENTS = ("created_at", "updated_at", "deleted_at")


@dataclass(frozen=True, eq=False)
class Shape:
    """A class for a repository, and the facts about it that the methods need.

    ``key`` makes the primary key of a row from a number; None: the database or the repository generates it. ``more``
    are the values that a row needs besides tenant, name and size. ``fields`` are names to filter and sort by, each with
    a function that computes its value from a row. ``one_table`` says whether one statement can upsert a row.
    """

    model: Any
    key: Callable[[int], Key] | None = None
    made: Callable[[int], Key] = lambda number: (number,)
    """Makes the primary key of a row that exists at the beginning."""
    more: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    forged: Any = None
    """A discriminator of another class."""
    one_table: bool = True
    inserts: bool = True
    """Whether rows of exactly this class can exist."""
    writes_on: tuple[str, ...] = ("sqlite", "postgresql")
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    starts: int = 1
    """The ``size`` of the first row."""
    identity_of: Callable[[dict[str, Any]], Any] | None = None
    """Computes the identity of a row's class, if it is not in a column."""

    @property
    def mapper(self) -> Mapper[Any]:
        mapper: Mapper[Any] = inspect(self.model)
        return mapper

    @property
    def sized(self) -> bool:
        return "size" in self.mapper.column_attrs

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key)

    @property
    def related(self) -> list[str]:
        return [each.key for each in self.mapper.relationships]

    @cached_property
    def classes(self) -> dict[Any, Mapper[Any]]:
        """The mappers of the class and its subclasses by identity; only the key None if there is no identity."""
        if self.model is m.Document:
            return {each.polymorphic_identity: each for each in self.mapper.self_and_descendants if each.concrete}
        if self.mapper.polymorphic_on is None or self.mapper.concrete:
            return {None: self.mapper}
        own = [each for each in self.mapper.self_and_descendants if not each.polymorphic_abstract]
        return {each.polymorphic_identity: each for each in own}

    @property
    def discriminator(self) -> str | None:
        """The attribute of the discriminator, if it is a column; else None."""
        column = self.mapper.polymorphic_on
        if self.model is m.Document or self.mapper.concrete or not isinstance(column, m.Column):
            return None
        return str(self.mapper.get_property_by_column(column).key)


@cache
def parts_of(mapper: Mapper[Any]) -> list[Table]:
    """The tables of a row of exactly this class, parents before children."""
    if mapper.concrete:
        return [mapper.local_table]  # type: ignore[list-item]  # the models have tables here
    tables = [each for each in mapper.tables if isinstance(each, Table)]
    return _ordered(tables)


def _ordered(tables: Iterable[Table]) -> list[Table]:
    return sorted(tables, key=_order().index)


@cache
def _order() -> list[Table]:
    return [*m.METADATA.sorted_tables, *m.VIEWS.sorted_tables]


@cache
def columns_of(mapper: Mapper[Any], table: Table) -> dict[str, str]:
    """For each attribute, the key of its column in this table."""
    found: dict[str, str] = {}
    for prop in mapper.column_attrs:
        for column in prop.columns:
            for base in getattr(column, "base_columns", ()):
                if getattr(base, "table", None) is table:
                    found[prop.key] = base.key
    return found


def key_in(table: Table, row: dict[str, Any]) -> Key:
    return tuple(row[column.key] for column in table.primary_key.columns)


def all_tables(dialect: str) -> list[Table]:
    return [table for table in _order() if table.schema is None or dialect == "postgresql"]


def dump(connection: Connection, tables: Iterable[Table]) -> Dump:
    """The rows of the tables. Timestamps are replaced by a constant, because their values are not tested here."""
    found: Dump = {}
    for table in tables:
        rows = [dict(row) for row in connection.execute(select(table)).mappings()]
        for row in rows:
            row.update({name: "moment" for name in MOMENTS if isinstance(row.get(name), datetime)})
        found[table.fullname] = {key_in(table, row): row for row in rows}
    return found


def _key(number: int) -> Key:
    return (f"r{number % 2}", number)


def _uuid(number: int) -> Key:
    return (UUID(int=number),)


SHAPES: dict[str, Shape] = {
    "plain": Shape(m.Plain),
    "marked": Shape(m.Marked),
    "joined root": Shape(m.Asset, forged="router"),
    "joined child": Shape(m.Router, forged="asset", one_table=False),
    "joined grandchild": Shape(m.Edge, forged="router", one_table=False, more={"place": "p"}),
    "joined UUID root": Shape(m.Token, made=_uuid, forged="api"),
    "joined UUID child": Shape(m.ApiToken, made=_uuid, forged="token", one_table=False),
    "joined marked root": Shape(m.Page),
    "joined marked child": Shape(m.Article, one_table=False),
    "joined composite root": Shape(m.Branch, key=_key, made=_key, forged="depot"),
    "joined composite child": Shape(m.Depot, key=_key, made=_key, forged="branch", one_table=False),
    "single root": Shape(m.Vehicle, forged="truck"),
    "single child": Shape(m.Car, forged="truck"),
    "single grandchild": Shape(m.SportsCar, forged="car"),
    "single renamed root": Shape(m.Animal, forged="nothing"),
    "single renamed child": Shape(m.Cat, forged="dog"),
    "single abstract root": Shape(m.Payment, inserts=False, forged=m.Kind.CARD),
    "single enum child": Shape(m.Cash, forged=m.Kind.CARD),
    "expression root": Shape(m.Person, identity_of=lambda row: "senior" if row["grade"] > 5 else "person"),
    "expression child": Shape(
        m.Senior, more={"grade": 9}, identity_of=lambda row: "senior" if row["grade"] > 5 else "person"
    ),
    "function root": Shape(m.Signal, more={"code": "PLAIN"}, identity_of=lambda row: row["code"].lower()),
    "function child": Shape(m.Alarm, more={"code": "ALARM"}, identity_of=lambda row: row["code"].lower()),
    "concrete root": Shape(m.Paper),
    "concrete child": Shape(m.Memo),
    "abstract base": Shape(m.Derived),
    "abstract concrete root": Shape(m.Document, inserts=False, one_table=False),
    "abstract concrete child": Shape(m.Letter),
    "select's table": Shape(m.Ticket),
    "select": Shape(m.OpenTicket, one_table=False),
    "view": Shape(m.ViewedTicket, writes_on=("postgresql",)),
    "join's table": Shape(m.Account),
    "join": Shape(m.SizedAccount, one_table=False),
    "composite key": Shape(m.Seat, key=_key, made=_key),
    "tenant in the key": Shape(m.Locker, key=lambda number: ("a", number), made=lambda number: ("?", number)),
    "identity": Shape(m.Numbered),
    "UUID key": Shape(m.Device, made=_uuid),
    "tree": Shape(m.Node),
    "many to many": Shape(m.Post),
    "association": Shape(
        m.Membership, key=lambda number: (number, 1), made=lambda number: (number, 1 if number <= PLACES else 5)
    ),
    "one to one": Shape(m.Profile),
    "quoted": Shape(m.Quoted),
    "renamed": Shape(m.Renamed),
    "schema": Shape(m.Apart, databases=("postgresql",)),
    "expressions": Shape(
        m.Expressed,
        fields={
            "doubled": lambda row: row["size"] * 2,
            "tripled": lambda row: row["size"] * 3,
            "quadrupled": lambda row: row["size"] * 4,
            "clubs": lambda _: 1,
            "title": lambda row: row["name"],
        },
    ),
    "deferred": Shape(m.Deferred, more={"note": "a note"}),
    "dataclass": Shape(m.Dataclass),
    "SQLModel": Shape(m.Modelled),
}


def root_of(shape: Shape) -> Mapper[Any]:
    mapper = shape.mapper
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def family_of(shape: Shape) -> Shape:
    """The shape of the root class, which defines the rows that exist at the beginning."""
    names = {"select": "select's table", "view": "select's table", "join's table": "join"}
    names["joined marked root"] = "joined marked child"
    name = next(name for name, each in SHAPES.items() if each is shape)
    if name in names:
        return SHAPES[names[name]]
    root = root_of(shape)
    if root.polymorphic_on is None:
        return shape
    return next((each for each in SHAPES.values() if each.model is root.class_), shape)


@cache
def tables_of(shape: Shape) -> list[Table]:
    """The tables of a family, and the tables that are related to them."""
    family = family_of(shape)
    found = {table for each in family.classes.values() for table in parts_of(each)}
    waiting = list(found)
    while waiting:
        table = waiting.pop()
        near = {key.column.table for key in table.foreign_keys}
        near |= {each for each in (m.post_labels,) if table.name == "post"}
        near |= {each for each in (m.Remark.__table__,) if table.name == "article"}
        waiting += near - found
        found |= near
    if shape.model is m.ViewedTicket:
        found.add(m.ViewedTicket.__table__)
    if shape.model is m.Expressed:
        found.add(m.Club.__table__)
    return _ordered(table for table in found if isinstance(table, Table))


def rows_of(shape: Shape) -> list[tuple[Table, list[dict[str, Any]]]]:
    """The rows of a family at the beginning: `PLACES` of each class for each of two tenants, and their related rows."""
    family = family_of(shape)
    rows: dict[Table, list[dict[str, Any]]] = {table: [] for table in tables_of(shape) if table.metadata is not m.VIEWS}
    number = 0
    for tenant in ("a", "b"):
        for place in range(PLACES):
            for identity, mapper in family.classes.items():
                number += 1
                values: dict[str, Any] = {"tenant_id": tenant, "name": f"n{place}", "size": place + 1}
                values |= _marks(mapper, place, number) | _of_identity(family, identity)
                for table in parts_of(mapper):
                    columns = columns_of(mapper, table)
                    row = {column: values[key] for key, column in columns.items() if key in values}
                    key = tuple(tenant if part == "?" else part for part in family.made(number))
                    row |= {each.key: part for each, part in zip(table.primary_key.columns, key, strict=True)}
                    rows[table].append(row)
    _neighbours(rows)
    return list(rows.items())


def _of_identity(family: Shape, identity: Any) -> dict[str, Any]:
    if family.discriminator is not None:
        return {family.discriminator: identity}
    return {"senior": {"grade": 9}, "person": {"grade": 1}, "alarm": {"code": "ALARM"}, "plain": {"code": "PLAIN"}}.get(
        identity, {}
    )


def _marks(mapper: Mapper[Any], place: int, number: int) -> dict[str, Any]:
    gone = place == 2
    marks = {
        "version": 1,
        "is_deleted": gone,
        "deleted_at": datetime(2026, 1, 1) if gone else None,  # noqa: DTZ001 - one of the columns has no time zone
        "created_at": datetime(2026, 1, 1),  # noqa: DTZ001 - as above
        "updated_at": datetime(2026, 1, 1),  # noqa: DTZ001 - as above
        "place": f"p{place}",
        "note": f"note {place}",
        "site_id": 1 if number <= 4 * PLACES and mapper is not inspect(m.ApiToken) else None,
        "club_id": place + 1 + (PLACES if number > PLACES else 0),
        "parent_id": number - 3 * (4 if mapper.isa(inspect(m.Asset)) else 1) if place == 3 else None,
    }
    return {key: value for key, value in marks.items() if key in mapper.column_attrs}


def _neighbours(rows: dict[Table, list[dict[str, Any]]]) -> None:
    """Add the related rows: 1 to 4 belong to tenant a, and 5 to 8 to tenant b."""
    for table, held in rows.items():
        if table.name in ("site", "club", "label") and not held:
            for number in range(1, 2 * PLACES + 1):
                place = (number - 1) % PLACES
                tenant = "a" if number <= PLACES else "b"
                held.append({"id": number, "tenant_id": tenant, "name": f"n{place}", "size": place + 1})
        if table.name == "remark":
            held += [
                {"id": number, "article_id": number, "name": "n1", "tenant_id": "a" if number <= PLACES else "b"}
                for number in range(1, 2 * PLACES + 1)
            ]
        if table is m.post_labels:
            held += [{"post_id": number, "label_id": number} for number in range(1, 2 * PLACES + 1)]


class Expectation:
    """The expected rows of a family's tables. Each method updates them as it should change the database."""

    def __init__(self, shape: Shape, before: Dump, tenant: str = "a") -> None:
        self.shape, self.before, self.tenant = shape, before, tenant
        self.rows = copy.deepcopy(before)

    def mapper_of(self, row: dict[str, Any]) -> Mapper[Any] | None:
        """The class of a row of the root table; None if it is not a class of the shape."""
        shape = self.shape
        classes = shape.classes
        if None in classes:
            return classes[None] if shape.model is not m.OpenTicket or row["size"] > 1 else None
        if shape.identity_of is not None:
            return classes.get(shape.identity_of(row))
        assert shape.discriminator is not None
        return classes.get(row[columns_of(shape.mapper, parts_of(shape.mapper)[0])[shape.discriminator]])

    def entities(self, *, deleted: bool = False, tenant: str | None = None) -> dict[Key, dict[str, Any]]:
        """The values of the attributes of each row of the class, by primary key."""
        return {
            key: values
            for key, values in self._all()
            if values["tenant_id"] == (tenant or self.tenant)
            and (deleted or not (values.get("is_deleted") or values.get("deleted_at") is not None))
        }

    def _all(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        if self.shape.model is m.Document:
            for mapper in self.shape.classes.values():
                table = parts_of(mapper)[0]
                for key, row in self.rows[table.fullname].items():
                    yield key, {attr: row[column] for attr, column in columns_of(mapper, table).items()}
            return
        top = parts_of(self.shape.mapper)[0]
        for key, row in self.rows[top.fullname].items():
            mapper = self.mapper_of(row)
            own = parts_of(self.shape.mapper)
            if mapper is None or any(key not in self.rows[table.fullname] for table in own):
                continue
            values: dict[str, Any] = {}
            for table in parts_of(mapper):
                if key in self.rows[table.fullname]:
                    held = self.rows[table.fullname][key]
                    values |= {attr: held[column] for attr, column in columns_of(mapper, table).items()}
            yield key, values

    def keys(self, *, deleted: bool = False, **values: Any) -> list[Key]:
        found = self.entities(deleted=deleted)
        return sorted(key for key, row in found.items() if all(row.get(name) == each for name, each in values.items()))

    def tables(self) -> list[Table]:
        """All tables that can contain a part of a row of the class."""
        found = {table for each in self.shape.classes.values() for table in parts_of(each)}
        if None in self.shape.classes and not self.shape.mapper.concrete:
            found |= {t for each in self.shape.mapper.self_and_descendants if not each.concrete for t in parts_of(each)}
        return _ordered(found)

    def changed(self, keys: Sequence[Key], **values: Any) -> None:
        for key in keys:
            if "version" in self.shape.mapper.column_attrs:
                self._put(key, "version", self._held(key, "version") + 1)
            for name, value in values.items():
                self._put(key, name, value)
            if self.shape.model is m.Expressed:
                self._put(key, "doubled", self._held(key, "size") * 2)

    def _places(self, key: Key, name: str) -> Iterator[tuple[dict[str, Any], str]]:
        for mapper in self.shape.classes.values():
            for table in parts_of(mapper):
                column = columns_of(mapper, table).get(name)
                if column is not None and key in self.rows[table.fullname]:
                    yield self.rows[table.fullname][key], column

    def _held(self, key: Key, name: str) -> Any:
        row, column = next(self._places(key, name))
        return row[column]

    def _put(self, key: Key, name: str, value: Any) -> None:
        for row, column in self._places(key, name):
            row[column] = value

    def marked(self, keys: Sequence[Key]) -> None:
        """Expect these rows to be soft-deleted."""
        names = {"is_deleted": True, "deleted_at": "moment"}
        self.changed(keys, **{name: value for name, value in names.items() if name in self.shape.mapper.column_attrs})

    @property
    def softly(self) -> bool:
        return any(name in self.shape.mapper.column_attrs for name in ("is_deleted", "deleted_at"))

    def removed(self, keys: Sequence[Key]) -> None:
        for key in keys:
            for table in self.tables():
                self.rows[table.fullname].pop(key, None)
            for held in (self.rows.get("post_label", {}),) if self.shape.model is m.Post else ():
                for each in [each for each in held if each[0] == key[0]]:
                    del held[each]
            self._cut_off(key[0])

    def _cut_off(self, number: Any) -> None:
        """Expect that rows which referred to a deleted row are deleted too, or have no parent."""
        if "account_size" in self.rows:
            self.rows["account_size"].pop((number,), None)
        for held in (self.rows.get("remark", {}),):
            for each in [each for each, row in held.items() if row["article_id"] == number]:
                del held[each]
        for name in ("asset", "node"):
            for row in self.rows.get(name, {}).values():
                if row["parent_id"] == number:
                    row["parent_id"] = None

    def shown(self) -> None:
        """Expect the same rows in the table as in its view."""
        if self.shape.model is m.ViewedTicket:
            self.rows["ticket"] = self.rows["viewed_ticket"]


def differences(found: Dump, expected: Dump) -> list[str]:
    """A line for each row that is not as expected."""
    lines: list[str] = []
    for name in expected:
        for key in sorted({*found[name], *expected[name]}, key=repr):
            is_, wanted = found[name].get(key), expected[name].get(key)
            if is_ != wanted:
                lines.append(f"{name}{key}: {is_} instead of {wanted}")
    return lines
