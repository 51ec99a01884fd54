"""The mixins for SQLModel: any order of bases, columns that stand last, and the error for the other kind of mixin."""

# Without `from __future__ import annotations`: SQLModel reads the class of a relationship from the annotation itself.

import itertools
import types
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ConfigDict
from sqlalchemy import MetaData, String, UniqueConstraint, create_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    DeclarativeBaseNoMeta,
    Mapped,
    MappedAsDataclass,
    Session,
    declarative_base,
    mapped_column,
    registry,
)
from sqlalchemy.schema import CreateTable
from sqlmodel import Field, Relationship, SQLModel, select

import dotmac_database
import dotmac_database.sqlmodel
from dotmac_database import MisuseError, ValidationError, traits_of
from dotmac_database.sqlmodel import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin

NAMES = ("TenantMixin", "AuditMixin", "SoftDeleteMixin", "VersionMixin")
OF_SQLMODEL = {name: getattr(dotmac_database.sqlmodel, name) for name in NAMES}
DECLARATIVE = {name: getattr(dotmac_database, name) for name in NAMES}
COLUMNS = {
    "TenantMixin": ["tenant_id"],
    "AuditMixin": ["created_at", "updated_at", "created_by", "updated_by"],
    "SoftDeleteMixin": ["is_deleted", "deleted_at"],
    "VersionMixin": ["version"],
}


class Model(SQLModel):
    """An app's own base class."""

    metadata = MetaData()


class NamedBase(Model):
    name: str = "x"


_PLACES = itertools.count()


def new_class(*bases: type, **annotated: Any) -> Any:
    """A table class with a key, a field, and the fields of ``annotated``."""
    namespace: dict[str, Any] = {
        "__module__": __name__,
        "__annotations__": {"id": UUID, "size": int, **{name: each[0] for name, each in annotated.items()}},
        "id": Field(default_factory=uuid4, primary_key=True),
        "size": 3,
        "metadata": MetaData(),
        **{name: each[1] for name, each in annotated.items()},
    }
    return types.new_class(f"Mixed{next(_PLACES)}", bases, {"table": True}, lambda body: body.update(namespace))


def orders() -> Iterator[tuple[type, ...]]:
    """Each mixin, and all of them, with SQLModel, an app's base class or a data model, in each order."""
    for mixins in (*((each,) for each in OF_SQLMODEL.values()), tuple(OF_SQLMODEL.values())):
        yield mixins
        for base in (SQLModel, Model, NamedBase):
            yield (*mixins, base)
            yield (base, *mixins)
    yield (TenantMixin, NamedBase, AuditMixin)
    yield (VersionMixin, SQLModel, TenantMixin)
    yield (VersionMixin, TenantMixin)


@pytest.mark.parametrize("bases", [*orders()], ids=lambda bases: "-".join(base.__name__ for base in bases))
def test_any_order_of_bases_gives_the_same_columns(bases: tuple[type, ...]) -> None:
    model = new_class(*bases)
    own = ["name", "id", "size"] if NamedBase in bases else ["id", "size"]
    expected = [*own, *(column for base in bases for column in COLUMNS.get(base.__name__, []))]
    assert [column.name for column in model.__table__.columns] == expected
    assert list(model.model_fields) == list(model.model_json_schema()["properties"]) == expected
    assert list(model().model_dump()) == expected
    assert issubclass(model, SQLModel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validated = model.model_validate({"size": "5"})
    assert validated.size == 5
    assert type(validated) is model


def test_the_columns_are_as_they_were() -> None:
    model = new_class(*OF_SQLMODEL.values())
    created = str(CreateTable(model.__table__))
    lines = [" ".join(line.split()).rstrip(",") for line in created.splitlines() if line.startswith("\t")]
    assert lines[2:-1] == [
        "tenant_id VARCHAR(128) NOT NULL",
        "created_at DATETIME NOT NULL",
        "updated_at DATETIME NOT NULL",
        "created_by VARCHAR(255)",
        "updated_by VARCHAR(255)",
        "is_deleted BOOLEAN DEFAULT false NOT NULL",
        "deleted_at DATETIME",
        "version INTEGER DEFAULT 1 NOT NULL",
    ]
    assert [[column.name for column in index.columns] for index in model.__table__.indexes] == [["tenant_id"]]
    columns = model.__table__.columns
    assert columns.updated_at.onupdate is not None
    assert columns.created_at.type.impl.timezone
    traits = traits_of(model)
    assert {traits.tenant, traits.is_deleted, traits.created_at, traits.version} == {
        "tenant_id",
        "is_deleted",
        "created_at",
        "version",
    }


def test_no_column_belongs_to_two_tables() -> None:
    one, two = new_class(*OF_SQLMODEL.values()), new_class(*OF_SQLMODEL.values())
    for name in itertools.chain(*COLUMNS.values()):
        first, second = one.__table__.columns[name], two.__table__.columns[name]
        assert first is not second
        assert (first.table, second.table) == (one.__table__, two.__table__)
    defaults = one.__table__.columns.is_deleted.server_default, two.__table__.columns.is_deleted.server_default
    assert all(default.column.table is model.__table__ for default, model in zip(defaults, (one, two), strict=True))


def test_a_field_may_be_declared_again() -> None:
    tenant = (UUID, Field(index=True))
    size = (str, Field(max_length=5, sa_type=String(5)))
    model = new_class(TenantMixin, AuditMixin, SQLModel, tenant_id=tenant, created_by=size)
    names = ["id", "size", "tenant_id", "created_by", "created_at", "updated_at", "updated_by"]
    assert [column.name for column in model.__table__.columns] == names
    assert model.__table__.columns.tenant_id.type.python_type is UUID
    assert model.__table__.columns.created_by.type.length == 5
    with pytest.raises(ValueError, match="tenant_id"):
        model.model_validate({})


def test_another_column_may_be_the_tenants() -> None:
    class Org(TenantMixin, Model, table=True):
        __tablename__ = "mixed_orgs"
        __tenant_column__ = "org_id"
        id: int | None = Field(default=None, primary_key=True)
        org_id: str

    assert traits_of(Org).tenant == "org_id"


def test_a_row_without_a_tenant_is_dumped_without_a_warning() -> None:
    model = new_class(*OF_SQLMODEL.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model().model_dump()["tenant_id"] is None
        assert '"tenant_id":null' in model().model_dump_json()
        assert model(tenant_id="a").model_dump()["tenant_id"] == "a"
    before = datetime.now(UTC)
    row = model()
    assert before <= row.created_at <= datetime.now(UTC)
    assert (row.version, row.is_deleted, row.deleted_at, row.created_by) == (1, False, None, None)


def test_an_apps_base_class_may_have_the_mixins() -> None:
    class Owned(TenantMixin, AuditMixin, SQLModel):
        metadata = MetaData()

    class Room(Owned, SoftDeleteMixin, table=True):
        id: int | None = Field(default=None, primary_key=True)
        desks: list["Desk"] = Relationship(back_populates="room")

    class Desk(SQLModel, Owned, table=True):
        __table_args__ = (UniqueConstraint("tenant_id", "number"),)
        id: int | None = Field(default=None, primary_key=True)
        number: int
        room_id: int | None = Field(default=None, foreign_key="room.id")
        room: Room | None = Relationship(back_populates="desks")

    class DeskRead(Owned):
        number: int

    assert next(iter(Room.model_fields)) == "id"
    assert [column.name for column in Desk.__table__.columns][:4] == ["id", "number", "room_id", "tenant_id"]  # type: ignore[attr-defined]  # set by SQLModel
    assert list(DeskRead.model_fields)[:2] == ["number", "tenant_id"]
    engine = create_engine("sqlite://")
    Owned.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Room(tenant_id="a", desks=[Desk(tenant_id="a", number=1)]))
        session.commit()
        desk = session.scalars(select(Desk)).one()
        assert desk.room is not None
        assert desk.room.desks == [desk]
        assert DeskRead.model_validate(desk).tenant_id == "a"
    engine.dispose()


def test_two_registries_may_have_classes_of_one_name() -> None:
    class One(SQLModel, registry=registry()):
        """The base class of one registry."""

    class Two(SQLModel, registry=registry()):
        """The base class of another registry."""

    made = []
    for base in (One, Two):

        class Thing(TenantMixin, AuditMixin, base, table=True):  # type: ignore[valid-type,misc]  # a base in a loop
            id: int | None = Field(default=None, primary_key=True)

        made.append(Thing)
    one, two = made
    assert (one.metadata is One.metadata, two.metadata is Two.metadata) == (True, True)
    assert One.metadata is not Two.metadata
    assert [column.name for column in one.__table__.columns] == [column.name for column in two.__table__.columns]


def test_an_inheriting_table_class_is_ordered_too() -> None:
    class Animal(TenantMixin, Model, table=True):
        __tablename__ = "mixed_animals"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
        id: int | None = Field(default=None, primary_key=True)
        kind: str = "animal"

    assert [column.name for column in Animal.__table__.columns] == ["id", "kind", "tenant_id"]  # type: ignore[attr-defined]  # set by SQLModel


def test_an_apps_own_settings_hold() -> None:
    class Strict(SQLModel):
        model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)  # type: ignore[assignment]  # SQLModel's example

    class Line(TenantMixin, Strict):
        text: str

    assert Line(text=" x ").text == "x"
    with pytest.raises(ValueError, match="extra"):
        Line.model_validate({"text": "x", "other": 1})


def test_names_that_are_known_later_do_not_change_the_order() -> None:
    class Later(TenantMixin, Model):
        one: "Unknown"  # type: ignore[name-defined]  # noqa: F821
        two: int

    assert list(Later.model_fields) == ["one", "two", "tenant_id"]


class Base(DeclarativeBase):
    """A declarative base."""


class WithoutMeta(DeclarativeBaseNoMeta):
    """A declarative base without a metaclass."""


class Data(MappedAsDataclass, DeclarativeBase):
    """A declarative base of dataclasses."""


class Intermediate(Base):
    """An abstract declarative class."""

    __abstract__ = True


Old: Any = declarative_base()


@pytest.mark.parametrize("name", NAMES)
def test_a_declarative_mixin_on_an_sqlmodel_class_says_which_import_is_right(name: str) -> None:
    mixin = DECLARATIVE[name]
    derived = type("Derived", (mixin,), {})
    others = [each for each in OF_SQLMODEL.values() if each.__name__ != name]
    for bases in (
        (mixin, SQLModel),
        (SQLModel, mixin),
        (mixin, NamedBase),
        (NamedBase, mixin),
        (derived, SQLModel),
        (others[0], mixin),
        (mixin, others[1], SQLModel),
    ):
        for options in ({"table": True}, {}):
            with pytest.raises(MisuseError) as caught:
                types.new_class("User", bases, options)
            assert str(caught.value) == (
                "User is an SQLModel class, and the mixins of dotmac_database are for declarative models. "
                f"Use `from dotmac_database.sqlmodel import {name}`."
            )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("base", [Base, WithoutMeta, Data, Intermediate, Old], ids=lambda base: base.__name__)
def test_an_sqlmodel_mixin_on_a_declarative_class_says_which_import_is_right(name: str, base: type) -> None:
    mixin = OF_SQLMODEL[name]
    derived = types.new_class("Derived", (mixin, SQLModel))
    for bases in ((mixin, base), (base, mixin), (derived, base), (base, derived)):
        with pytest.raises(MisuseError) as caught:
            types.new_class("User", bases)
        assert str(caught.value) == (
            f"User is a declarative class, since it derives from {base.__name__}, and the mixins of "
            f"dotmac_database.sqlmodel are for SQLModel. Use `from dotmac_database import {name}`."
        )


def test_all_mixins_of_the_wrong_kind_are_named() -> None:
    with pytest.raises(MisuseError, match="import TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin`"):
        types.new_class("User", (*OF_SQLMODEL.values(), Base))
    with pytest.raises(ValidationError, match="import TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin`"):
        types.new_class("User", (*DECLARATIVE.values(), SQLModel), {"table": True})


def test_declarative_mixins_pass_the_options_of_a_class_on() -> None:
    class Labelled(DeclarativeBase):
        def __init_subclass__(cls, *, label: str = "", **options: Any) -> None:
            super().__init_subclass__(**options)
            cls.label = label  # type: ignore[attr-defined]  # of the test

    class Row(dotmac_database.VersionMixin, Labelled, label="x"):
        __tablename__ = "mixed_rows"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert vars(Row)["label"] == "x"
