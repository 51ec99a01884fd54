"""What an object brings along by itself counts on create: a Pydantic object's defaults, a class's own constructor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.alias_generators import to_camel
from sqlalchemy import JSON, Column, MetaData, String, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, validates
from sqlmodel import Field as SqlField
from sqlmodel import SQLModel

from dotmac_database import ValidationError
from dotmac_database.models import AuditMixin, TenantMixin
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face


class Base(DeclarativeBase):
    """The tables of this module."""


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    balance: Mapped[int] = mapped_column(default=0)
    role: Mapped[str] = mapped_column(server_default=text("'guest'"))
    note: Mapped[str | None]
    settings: Mapped[Any] = mapped_column(JSON, nullable=True, default=lambda: {"column": 1})


class Theme(BaseModel):
    colour: str = "blue"
    sizes: list[int] = Field(default_factory=lambda: [1, 2])


class New(BaseModel):
    name: str
    balance: int = 7
    role: str | None = None
    note: str | None = "by default"
    settings: Theme = Field(default_factory=Theme)


class NewCamel(New):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class NewFrozen(New):
    model_config = ConfigDict(frozen=True, extra="allow")
    _secret: int = PrivateAttr(default=5)


class NewConfirmed(New):
    confirmation: str = Field(default="yes", exclude=True)


class NewTyped(New):
    confirmation: str = Field("yes", exclude=True)
    note: str | None = Field("by default", exclude=True)


class NewSqlModel(SQLModel):
    name: str
    balance: int = 7
    role: str | None = None
    note: str | None = "by default"
    settings: dict[str, Any] = SqlField(default_factory=lambda: {"colour": "blue", "sizes": [1, 2]})


SCHEMAS = (New, NewCamel, NewFrozen, NewConfirmed, NewTyped, NewSqlModel)

Create = Callable[[Face, Any, Any], Any]


def one_of_many(face: Face, rows: Any, data: Any) -> None:
    name = data["name"] if isinstance(data, dict) else data.name
    others = [{"name": f"{name}{n}"} for n in range(30)]
    face(rows.bulk_create, [data, *others], returning=False)


CREATES: dict[str, Create] = {
    "create": lambda face, rows, data: face(rows.create, data),
    "bulk_create": lambda face, rows, data: face(rows.bulk_create, [data]),
    "bulk_create of many": one_of_many,
    "upsert": lambda face, rows, data: face(rows.upsert, data, ["name"]),
    "bulk_upsert": lambda face, rows, data: face(rows.bulk_upsert, [data], ["name"]),
}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def stored(face: Face, model: Any, name: str) -> Any:
    with Session(face.database.engine, expire_on_commit=False) as other:
        return other.query(model).filter_by(name=name).one()


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda each: str(each.__name__))
def test_an_objects_defaults_are_written(face: Face, schema: Any) -> None:
    for method, create in CREATES.items():
        with face.session() as session:
            create(face, face.repository(session, Account), schema(name=method))
        row = stored(face, Account, method)
        found = (row.balance, row.role, row.note, row.settings)
        assert found == (7, "guest", "by default", {"colour": "blue", "sizes": [1, 2]}), method


def test_none_that_was_set_is_written(face: Face) -> None:
    """Where the column has no default, that is: with one None has always left the column to it."""
    for method, create in CREATES.items():
        with face.session() as session:
            create(face, face.repository(session, Account), New(name=method, note=None))
        assert stored(face, Account, method).note is None, method


def test_an_update_writes_what_was_set_alone(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Account)
        key = face(rows.create, {"name": "a", "balance": 1, "note": "mine"}).id
        face(rows.update, key, New(name="b"))
        with_key = type("NewWithKey", (New,), {"__annotations__": {"id": int}})
        face(rows.bulk_update, [with_key(id=key, name="c")])
        face(rows.update_where, [{"field": "id", "value": key}], New(name="c"))
    row = stored(face, Account, "c")
    assert (row.balance, row.note) == (1, "mine")


def test_an_upsert_leaves_of_a_row_what_was_not_set(face: Face) -> None:
    """A default is for a new row; a row that exists keeps what it has."""
    with face.session() as session:
        rows = face.repository(session, Account)
        for name in ("a", "b", "c"):
            face(rows.create, {"name": name, "balance": 1, "note": "mine", "settings": {"own": 1}})
        changed = face(rows.upsert, New(name="a", note="new"), ["name"])
        assert (changed.balance, changed.note, changed.settings) == (1, "new", {"own": 1})
        several = face(rows.bulk_upsert, [New(name="b", balance=2), New(name="c"), New(name="d")], ["name"])
    assert [(row.name, row.balance, row.note) for row in several] == [
        ("b", 2, "mine"), ("c", 1, "mine"), ("d", 7, "by default")
    ]  # fmt: skip


def test_a_field_that_is_no_column_is_refused(face: Face) -> None:
    class Wrong(BaseModel):
        name: str
        blance: int = 3

    with face.session() as session:
        rows = face.repository(session, Account)
        for create in CREATES.values():
            with pytest.raises(ValidationError, match="balance"):
                create(face, rows, Wrong(name="a"))


def test_the_callers_object_is_not_changed(face: Face) -> None:
    data = New(name="a")
    before = data.model_dump(), set(data.model_fields_set)
    with face.session() as session:
        face(face.repository(session, Account).create, data)
    assert (data.model_dump(), data.model_fields_set) == before


def test_mocks_do_the_same() -> None:
    rows = MockRepository(Account)
    assert rows.create(New(name="a")).balance == 7
    assert rows.upsert(New(name="a", note="x"), ["name"]).balance == 7
    assert AsyncMockRepository(Account).add_mock_data([{"name": "b"}])[0].balance == 0


class Entry(TenantMixin, AuditMixin, Base):
    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


def test_a_default_does_not_decide_who_and_when(face: Face) -> None:
    """None leaves it to the repository; a moment of the object's own is written."""

    class NewEntry(BaseModel):
        name: str
        tenant_id: str | None = None
        created_at: datetime | None = None
        updated_at: datetime | None = None
        created_by: str | None = None
        updated_by: str | None = "import"

    with face.session() as session:
        rows = face.repository(session, Entry, "t")
        row = face(rows.create, NewEntry(name="a"), "ann")
        assert (row.tenant_id, row.created_by, row.updated_by) == ("t", "ann", "import")
        assert row.created_at is not None
        assert row.updated_at is not None
        again = face(rows.upsert, NewEntry(name="a"), ["name"], "bob")
        assert (again.created_by, again.updated_at >= row.updated_at) == ("ann", True)


class Item(SQLModel, table=True):
    __tablename__ = "items"
    metadata = Base.metadata

    id: int | None = SqlField(default=None, primary_key=True)
    name: str = SqlField(unique=True)
    balance: int = 7
    secret: str = SqlField(default="s", exclude=True)
    tags: list[str] = SqlField(default_factory=lambda: ["new"], sa_column=Column(JSON, nullable=False))
    label: str = SqlField(default="plain", sa_column=Column(String, server_default="server"))
    at: datetime | None = None


def test_sqlmodels_objects(face: Face) -> None:
    """A table object is data like any other; where the column was made by hand SQLModel's default is the object's."""
    for method, create in CREATES.items():
        for kind in ("dict", "object"):
            name = f"{method} {kind}"
            with face.session() as session:
                create(face, face.repository(session, Item), {"name": name} if kind == "dict" else Item(name=name))
            row = stored(face, Item, name)
            assert (row.balance, row.secret, row.tags, row.label) == (7, "s", ["new"], "plain"), name


def test_a_loaded_object_is_all_of_its_row(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Item)
        key = face(rows.create, Item(name="a", balance=1, tags=["x"])).id
    loaded = stored(face, Item, "a")
    with face.session() as session:
        rows = face.repository(session, Item)
        face(rows.update, key, {"balance": 5})
        assert face(rows.upsert, loaded, ["name"]).balance == 1
        new = Item(name="a", tags=["y"])
        changed = face(rows.upsert, new, ["name"])
        assert (changed.balance, changed.tags) == (1, ["y"])


class DataBase(MappedAsDataclass, DeclarativeBase):
    metadata = Base.metadata


class Point(DataBase):
    __tablename__ = "points"

    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    by_value: Mapped[int] = mapped_column(default=1)
    by_factory: Mapped[Any] = mapped_column(JSON, default_factory=lambda: {"f": 1})
    by_column: Mapped[int] = mapped_column(insert_default=3, init=False)
    made: Mapped[int] = mapped_column(init=False, default=4)
    by_server: Mapped[int] = mapped_column(init=False, server_default=text("5"))
    keyword: Mapped[int] = mapped_column(kw_only=True, default=6)
    words: Mapped[str | None] = mapped_column(default=None)

    def __post_init__(self) -> None:
        self.words = self.words or f"of {self.name}"


class Needing(DataBase, kw_only=True):
    """Whose constructor asks for what the database fills."""

    __tablename__ = "needing"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    level: Mapped[int] = mapped_column(server_default=text("2"))
    place: Mapped[str]


class Shaped(Base):
    """With a constructor of its own."""

    __tablename__ = "shaped"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    slug: Mapped[str | None]

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"slug": values["name"].lower().replace(" ", "-"), **values})


def test_a_mapped_dataclass_has_its_defaults(face: Face) -> None:
    for method, create in CREATES.items():
        with face.session() as session:
            create(face, face.repository(session, Point), {"name": method, "keyword": 8})
        row = stored(face, Point, method)
        found = (row.by_value, row.by_factory, row.by_column, row.made, row.by_server, row.keyword, row.words)
        assert found == (1, {"f": 1}, 3, 4, 5, 8, f"of {method}"), method


def test_an_upsert_leaves_of_a_row_what_a_dataclass_fills_in(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Point)
        face(rows.create, {"name": "a", "by_value": 9, "by_factory": {"own": 1}, "keyword": 9})
        row = face(rows.upsert, {"name": "a", "words": "x"}, ["name"])
    assert (row.by_value, row.by_factory, row.keyword, row.words) == (9, {"own": 1}, 9, "x")


def test_a_constructor_is_asked_for_what_the_database_fills(face: Face) -> None:
    for method, create in CREATES.items():
        if method == "bulk_create of many":
            continue  # its other rows name nothing
        with face.session() as session:
            rows = face.repository(session, Needing)
            create(face, rows, {"name": method, "place": "p"})
            with pytest.raises(ValidationError, match="place must be given") as refused:
                create(face, rows, {"name": "other"})
        assert refused.value.field == "place"
        assert stored(face, Needing, method).level == 2


def test_a_constructor_of_ones_own_makes_rows_in_bulk_too(face: Face) -> None:
    for method, create in CREATES.items():
        with face.session() as session:
            create(face, face.repository(session, Shaped), {"name": f"A {method}"})
        assert stored(face, Shaped, f"A {method}").slug == f"a-{method.replace(' ', '-')}"


class Checked(Base):
    __tablename__ = "checked"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str | None]
    settings: Mapped[Any] = mapped_column(JSON, nullable=True)

    @validates("email", "settings")
    def _see(self, key: str, value: Any) -> Any:
        if key == "settings":
            return value if value is None else {**value, "seen": True}
        if value is not None and "@" not in value:
            raise ValueError("no e-mail address")
        return value and value.lower()


def test_validators_see_every_value(face: Face) -> None:
    for method, create in CREATES.items():
        data = {"name": method, "email": "A@X", "settings": {"a": 1}}
        with face.session() as session:
            rows = face.repository(session, Checked)
            create(face, rows, data)
            with pytest.raises(ValueError, match="no e-mail address"):
                create(face, rows, {"name": "other", "email": "nowhere"})
            create(face, rows, {"name": f"{method} of nothing", "settings": None})
        assert data["email"] == "A@X"
        row = stored(face, Checked, method)
        assert (row.email, row.settings) == ("a@x", {"a": 1, "seen": True}), method


def test_validators_see_every_change(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Checked)
        row = face(rows.create, {"name": "a"})
        changes = {
            "update": lambda email: face(rows.update, row.id, {"email": email}),
            "bulk_update": lambda email: face(rows.bulk_update, [{"id": row.id, "email": email}]),
            "update_where": lambda email: face(rows.update_where, [{"field": "id", "value": row.id}], {"email": email}),
            "upsert": lambda email: face(rows.upsert, {"name": "a", "email": email}, ["name"]),
        }
        for method, change in changes.items():
            change(f"{method}@X")
            assert stored(face, Checked, "a").email == f"{method}@x"
            with pytest.raises(ValueError, match="no e-mail address"):
                change("nowhere")


def test_an_objects_events_are_not_of_bulk_ways(face: Face) -> None:
    """As their docstrings say: no object is flushed, so no listener to flushes hears of it."""
    heard: list[str] = []

    def listener(_mapper: Any, _connection: Any, target: Any) -> None:
        heard.append(target.name)

    event.listen(Account, "before_insert", listener)
    try:
        with face.session() as session:
            rows = face.repository(session, Account)
            face(rows.create, {"name": "a"})
            face(rows.bulk_create, [{"name": "b"}])
            face(rows.upsert, {"name": "c"}, ["name"])
    finally:
        event.remove(Account, "before_insert", listener)
    assert heard == ["a"]


def test_moments_are_made_for_each_row(face: Face) -> None:
    class Timed(BaseModel):
        name: str
        settings: dict[str, str] = Field(default_factory=lambda: {"at": datetime.now(UTC).isoformat()})

    with face.session() as session:
        made = face(face.repository(session, Account).bulk_create, [Timed(name="a"), Timed(name="b")])
    assert made[0].settings["at"] <= made[1].settings["at"]
