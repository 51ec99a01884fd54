"""Keys that carry the tenant: no row points at another tenant's, and a duplicate tells nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import MetaData, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from dotmac_database import ConstraintViolationError, TenantMixin, ValidationError, bind_tenant
from dotmac_database.tenancy import loose_keys, tenant_foreign_key, tenant_primary_key, tenant_unique
from tests.conftest import Face

from .conftest import Guarded
from .models import Base as LooseBase


class Base(DeclarativeBase):
    """Composite keys throughout."""


class Folder(TenantMixin, Base):
    __tablename__ = "folders"
    __table_args__ = (tenant_primary_key("id"), tenant_unique("name"))

    id: Mapped[int]
    name: Mapped[str]
    papers: Mapped[list[Paper]] = relationship(back_populates="folder", overlaps="folder")


class Paper(TenantMixin, Base):
    __tablename__ = "papers"
    __table_args__ = (tenant_primary_key("id"), tenant_foreign_key("folder_id", "folders.id"))

    id: Mapped[int]
    folder_id: Mapped[int | None]
    title: Mapped[str] = mapped_column(default="")
    folder: Mapped[Folder | None] = relationship(back_populates="papers")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def guarded(face: Face) -> Iterator[Guarded]:
    with face.database.engine.begin() as connection:
        connection.execute(
            insert(Folder.__table__),
            [{"tenant_id": "a", "id": 1, "name": "mine"}, {"tenant_id": "b", "id": 2, "name": "secret"}],
        )
    made = Guarded(face)
    yield made
    made.close()


def test_a_row_can_not_point_at_another_tenants(guarded: Guarded) -> None:
    session = guarded.session()
    papers = guarded.face.repository(session, Paper, "a")
    for unknown in (2, 99):
        with pytest.raises(ConstraintViolationError) as refused:
            guarded.face(papers.create, {"id": 1, "folder_id": unknown})
        if guarded.face.engine.dialect.name == "postgresql":  # SQLite does not tell which key it was
            assert refused.value.fields == ("folder_id",)
    assert guarded.face(papers.create, {"id": 1, "folder_id": 1}).folder_id == 1
    assert guarded.face(papers.create, {"id": 2}).folder_id is None


def test_duplicates_tell_nothing(guarded: Guarded) -> None:
    """The same key and the same unique name, which another tenant has: both are free."""
    session = guarded.session()
    folders = guarded.face.repository(session, Folder, "a")
    made = guarded.face(folders.create, {"id": 2, "name": "secret"})
    assert made.name == "secret"
    assert guarded.face(folders.get_by_id, ("a", 2)) is not None
    assert guarded.face(folders.get_by_id, ("b", 2)) is None
    upserted = guarded.face(folders.upsert, {"id": 2, "name": "changed"}, ["id"])
    assert upserted.name == "changed"


def test_a_merge_tells_nothing(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> list[str]:
        s.merge(Folder(tenant_id="a", id=2, name="secret"))
        s.commit()
        return list(s.scalars(select(Folder.name).order_by(Folder.id)))

    assert guarded.run(session, work) == ["mine", "secret"]


def test_relationships_work_over_composite_keys(guarded: Guarded) -> None:
    session = guarded.session()
    bind_tenant(session, "a")

    def work(s: Session) -> list[str]:
        folder = s.get(Folder, ("a", 1))
        assert folder is not None
        folder.papers.append(Paper(id=7, title="kept", tenant_id="a"))
        s.commit()
        s.expunge_all()
        folder = s.get(Folder, ("a", 1))
        assert folder is not None
        return [paper.title for paper in folder.papers]

    assert guarded.run(session, work) == ["kept"]


def test_raw_foreign_keys_are_refused_by_the_database(guarded: Guarded) -> None:
    with guarded.face.database.engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(insert(Paper.__table__).values(tenant_id="a", id=9, folder_id=2, title=""))


def test_loose_keys_are_named() -> None:
    assert list(loose_keys(Base.metadata)) == []
    told = {(each.table, each.columns, each.referred) for each in loose_keys(LooseBase.metadata)}
    assert told == {
        ("accounts", ("email",), None),
        ("notes", ("account_id",), "accounts"),
        ("note_labels", ("note_id",), "notes"),
        ("note_labels", ("label_id",), "labels"),
    }


def test_bad_arguments_are_refused() -> None:
    for wrong in (
        tenant_primary_key,
        tenant_unique,
        lambda: tenant_foreign_key("a", "b"),
        lambda: tenant_foreign_key(["a", "b"], "t.a"),
        lambda: tenant_foreign_key(["a", "b"], ["t.a", "u.b"]),
    ):
        with pytest.raises(ValidationError):
            wrong()


def test_set_null_leaves_the_tenant() -> None:
    key = tenant_foreign_key("folder_id", "folders.id", ondelete="SET NULL")
    assert key.ondelete == "SET NULL (folder_id)"
