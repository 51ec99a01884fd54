"""A version column of any name and any generator: every write counts it, so that what was read before is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, String, UniqueConstraint, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, synonym
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Field, SQLModel

from dotmac_database import QueryFilter, StaleEntityError, ValidationError, traits_of
from dotmac_database.models import SoftDeleteMixin, TenantMixin, VersionMixin
from tests.conftest import Face


class Base(DeclarativeBase):
    """The tables of this module."""


class Sheet(TenantMixin, SoftDeleteMixin):
    """What all of them have."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    note: Mapped[str | None]


def unique(*, table: str) -> Any:
    return (UniqueConstraint("tenant_id", "name", name=f"{table}_name"),)


class Named(Sheet, Base):
    __tablename__ = "named"
    __table_args__ = unique(table="named")
    rev: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": rev}  # noqa: RUF012 - SQLAlchemy's way


class Renamed(Sheet, Base):
    """Whose column has another name than its attribute, and another name of the attribute."""

    __tablename__ = "renamed"
    __table_args__ = unique(table="renamed")
    revision: Mapped[int] = mapped_column("rev_no")
    edition = synonym("revision")
    __mapper_args__ = {"version_id_col": revision}  # noqa: RUF012


class Lenient(Sheet, Base):
    """Whose rows of before have no version."""

    __tablename__ = "lenient"
    __table_args__ = unique(table="lenient")
    rev: Mapped[int | None] = mapped_column(Integer)
    __mapper_args__ = {"version_id_col": rev}  # noqa: RUF012


class Random(Sheet, Base):
    __tablename__ = "random"
    __table_args__ = unique(table="random")
    tag: Mapped[UUID] = mapped_column()
    __mapper_args__ = {"version_id_col": tag, "version_id_generator": lambda _: uuid4()}  # noqa: RUF012


class ByTen(Sheet, Base):
    """Whose generator needs the version before."""

    __tablename__ = "by_ten"
    __table_args__ = unique(table="by_ten")
    rev: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": rev, "version_id_generator": lambda last: (last or 0) + 10}  # noqa: RUF012


class ByServer(Sheet, Base):
    __tablename__ = "by_server"
    __table_args__ = unique(table="by_server")
    rev: Mapped[float] = mapped_column(server_default=text("1"), onupdate=func.random())
    __mapper_args__ = {  # noqa: RUF012
        "version_id_col": rev,
        "version_id_generator": False,
        "eager_defaults": True,
    }


class Beside(VersionMixin, Sheet, Base):
    """Which has the mixin's column, too."""

    __tablename__ = "beside"
    __table_args__ = unique(table="beside")
    rev: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": rev}  # noqa: RUF012


class Computing(Sheet, Base):
    """Which has an expression, so that its rows are changed as objects."""

    __tablename__ = "computing"
    __table_args__ = unique(table="computing")
    rev: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": rev}  # noqa: RUF012


Computing.shout = column_property(Computing.__table__.c.name + "!")  # type: ignore[attr-defined]


class SqlModelBase(SQLModel):
    metadata = Base.metadata


REV = Column("rev", Integer, nullable=False)


class Modelled(SqlModelBase, table=True):
    __tablename__ = "modelled"
    __table_args__ = (UniqueConstraint("tenant_id", "name", name="modelled_name"),)
    id: int | None = Field(default=None, primary_key=True)
    tenant_id: str = ""
    name: str
    note: str | None = None
    is_deleted: bool = False
    rev: int = Field(default=1, sa_column=REV)
    __mapper_args__ = {"version_id_col": REV}


MODELS = (Named, Renamed, Lenient, Random, ByTen, ByServer, Beside, Computing, Modelled)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def names(model: Any) -> str:
    return str(model.__name__)


Write = Callable[[Face, Any, Any], Any]
"""What a method does to a stored row, given the face, the repository and the row's id."""

WRITES: dict[str, Write] = {
    "update": lambda face, rows, key: face(rows.update, key, {"note": "new"}),
    "bulk_update": lambda face, rows, key: face(rows.bulk_update, [{"id": key, "note": "new"}]),
    "update_where": lambda face, rows, key: face(rows.update_where, [QueryFilter("id", "eq", key)], {"note": "new"}),
    "upsert": lambda face, rows, key: face(rows.upsert, {"name": "a", "note": "new"}, ["name"]),
    "bulk_upsert": lambda face, rows, key: face(
        rows.bulk_upsert, [{"name": "a", "note": "new"}, *({"name": f"b{n}", "note": "x"} for n in range(30))], ["name"]
    ),
    "upsert of nothing else": lambda face, rows, key: face(rows.upsert, {"name": "a"}, ["name"]),
    "delete": lambda face, rows, key: face(rows.delete, key),
    "delete_where": lambda face, rows, key: face(rows.delete_where, [QueryFilter("id", "eq", key)]),
    "restore": lambda face, rows, key: face(rows.restore, key),
    "delete for good": lambda face, rows, key: face(rows.delete, key, soft_delete=False),
}


def created(face: Face, model: Any) -> tuple[Any, Any]:
    """A new row's key and version."""
    with face.session() as session:
        entity = face(face.repository(session, model, "t").create, {"name": "a", "note": "old"})
        return entity.id, version(entity)


def version(entity: Any) -> Any:
    return getattr(entity, traits_of(type(entity)).version or "")


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_the_mappers_version_column_is_the_version(model: Any) -> None:
    traits = traits_of(model)
    assert traits.version is not None
    assert traits.columns[traits.version] is traits.mapper.version_id_col


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_every_write_counts(face: Face, model: Any) -> None:
    """The object that another session has read before can't be written after it."""
    wrong = []
    for method, write in WRITES.items():
        key, first = created(face, model)
        if method == "restore":
            with face.session() as session:
                face(face.repository(session, model, "t").delete, key)
                first = version(face(face.repository(session, model, "t").get_by_id, key, include_deleted=True))
        with Session(face.database.engine) as other:
            stale = other.get(model, key)
            assert stale is not None, method
            if version(stale) != first or first is None:
                wrong.append(f"{method}: a new row has {version(stale)!r}, and said {first!r}")
            other.expunge(stale)
        with face.session() as session:
            try:
                write(face, face.repository(session, model, "t"), key)
            except Exception as error:  # noqa: BLE001 - all wrong cells at once
                wrong.append(f"{method}: {error!r}")
        with Session(face.database.engine) as other:
            now = other.get(model, key)
            other.expunge_all()
            if now is not None and (version(now) == first or version(now) is None):
                wrong.append(f"{method} does not count: {first!r} stays {version(now)!r}")
            other.add(stale)
            stale.note = "lost"
            try:
                other.flush()
            except StaleDataError:
                pass
            else:
                wrong.append(f"{method}: a stale object was written")
            other.rollback()
        with Session(face.database.engine) as other:
            other.execute(model.__table__.delete())
            other.commit()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("model", MODELS, ids=names)
def test_every_way_of_creating_begins_to_count(face: Face, model: Any) -> None:
    wrong = []
    counter = itertools.count()

    def rows(number: int) -> list[dict[str, str]]:
        return [{"name": f"n{next(counter)}"} for _ in range(number)]

    with face.session() as session:
        repository = face.repository(session, model, "t")
        face(repository.create, rows(1)[0])
        face(repository.bulk_create, rows(3))
        face(repository.bulk_create, rows(30), returning=False)
        face(repository.bulk_create, rows(30))
        face(repository.bulk_create, rows(600), returning=False)
        face(repository.upsert, rows(1)[0], ["name"])
        face(repository.bulk_upsert, rows(30), ["name"])
    with Session(face.database.engine) as other:
        found = other.query(model).all()
        assert len(found) == next(counter)
        wrong = [row.name for row in found if version(row) is None or version(row) == 0]
        assert not wrong
        for row in found[:2]:
            row.note = "by hand"  # the ORM finds the version that it expects
        other.commit()


@pytest.mark.parametrize("model", [each for each in MODELS if each is not ByServer], ids=names)
def test_a_version_that_is_expected(face: Face, model: Any) -> None:
    key, first = created(face, model)
    with face.session() as session:
        repository = face.repository(session, model, "t")
        changed = face(repository.update, key, {"note": "new"}, expected_version=first)
        now = version(changed)
        assert now != first
        with pytest.raises(StaleEntityError):
            face(repository.update, key, {"note": "newer"}, expected_version=first)
        # As a client sends it.
        face(repository.update, key, {"note": "newer"}, expected_version=str(now))
        assert face(repository.get_by_id, key).note == "newer"


@pytest.mark.parametrize("model", [each for each in MODELS if each is not ByServer], ids=names)
def test_a_version_is_not_written_by_hand(face: Face, model: Any) -> None:
    key, first = created(face, model)
    given = {key for key in ("edition", traits_of(model).version) if hasattr(model, key or "")}
    with face.session() as session:
        for name in given:
            with pytest.raises(ValidationError) as refused:
                face(face.repository(session, model, "t").update, key, {name: first})
            assert refused.value.field == traits_of(model).version


class ByHand(Sheet, Base):
    """Whose version the app sets itself, when it sees fit."""

    __tablename__ = "by_hand"
    __table_args__ = unique(table="by_hand")
    tag: Mapped[str] = mapped_column(String(40), default="first")
    __mapper_args__ = {"version_id_col": tag, "version_id_generator": False}  # noqa: RUF012


def test_a_version_that_the_app_sets(face: Face) -> None:
    with face.session() as session:
        repository = face.repository(session, ByHand, "t")
        row = face(repository.create, {"name": "a"})
        assert row.tag == "first"
        assert face(repository.update, row.id, {"note": "x"}).tag == "first"
        assert face(repository.update, row.id, {"tag": "second"}).tag == "second"
        assert face(repository.upsert, {"name": "a", "tag": "third"}, ["name"]).tag == "third"
        face(repository.bulk_update, [{"id": row.id, "tag": "fourth"}])
        assert face(repository.get_by_id, row.id).tag == "fourth"


# A flush of SQLAlchemy's can't update a row whose version is NULL.
@pytest.mark.fast_way("update-statements")
def test_rows_without_a_version_begin_to_count(face: Face) -> None:
    with Session(face.database.engine) as other:
        other.execute(text("INSERT INTO lenient (id, tenant_id, name, is_deleted) VALUES (1, 't', 'a', false)"))
        other.commit()
    seen = []
    with face.session() as session:
        repository = face.repository(session, Lenient, "t")
        seen.append(face(repository.update, 1, {"note": "1"}).rev)
        face(repository.update_where, [QueryFilter("id", "eq", 1)], {"note": "2"})
        seen.append(face(repository.upsert, {"name": "a", "note": "3"}, ["name"]).rev)
        face(repository.bulk_update, [{"id": 1, "note": "4"}])
        seen.append(face(repository.get_by_id, 1).rev)
    assert seen == [1, 3, 4]


def test_an_upsert_by_a_generator_leaves_another_tenants_row(face: Face) -> None:
    class_ = Random
    with face.session() as session:
        face(face.repository(session, class_, "a").create, {"name": "same"})
    with face.session() as session:
        mine = face(face.repository(session, class_, "b").upsert, {"name": "same", "note": "b"}, ["name"])
        assert mine.tenant_id == "b"
    with face.session() as session:
        assert face(face.repository(session, class_, "a").first).note is None


def test_a_class_that_names_two_version_columns_is_refused() -> None:
    class Other(DeclarativeBase):
        pass

    class Torn(Other):
        __tablename__ = "torn"
        __version_column__ = "count"
        id: Mapped[int] = mapped_column(primary_key=True)
        count: Mapped[int]
        rev: Mapped[int] = mapped_column()
        __mapper_args__ = {"version_id_col": rev}  # noqa: RUF012

    with pytest.raises(ValidationError, match="rev"):
        traits_of(Torn)
