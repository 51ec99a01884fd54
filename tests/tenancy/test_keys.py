"""Keys that carry the tenant: no row points at another tenant's, and a duplicate tells nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    delete,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import CompileError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from dotmac_database import (
    ConstraintViolationError,
    LivingUnique,
    TenantIsolationError,
    TenantMixin,
    ValidationError,
    bind_tenant,
    check_tenant_keys,
)
from dotmac_database.tenancy import loose_keys, tenant_foreign_key, tenant_primary_key, tenant_unique
from dotmac_database.testing import InMemoryDatabase
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


@pytest.mark.parametrize("action", ["SET NULL", "set  default"])
def test_a_key_that_clears_leaves_the_tenant(action: str) -> None:
    key = tenant_foreign_key(["folder_id", "Shelf of"], ["folders.id", "folders.shelf"], ondelete=action)
    assert key.ondelete == f'SET {action[3:].strip().upper()} (folder_id, "Shelf of")'


def _clearing() -> MetaData:
    """A parent, and a child whose column needs quotes, in which a deleted parent leaves NULL."""
    metadata = MetaData()
    for name, more in {
        "parents": (tenant_primary_key("id"),),
        "children": (
            Column("Parent", Integer),
            tenant_primary_key("id"),
            tenant_foreign_key("Parent", "parents.id", ondelete="SET NULL"),
        ),
    }.items():
        Table(name, metadata, Column("tenant_id", String(20)), Column("id", Integer), *more)
    return metadata


def test_postgresql_clears_the_column_and_not_the_tenant(postgres_url: str) -> None:
    metadata = _clearing()
    parents, children = metadata.tables["parents"], metadata.tables["children"]
    engine = create_engine(postgres_url)
    with engine.connect() as connection:  # nothing is committed
        metadata.create_all(connection)
        for tenant in ("a", "b"):
            connection.execute(insert(parents).values(tenant_id=tenant, id=1))
            connection.execute(insert(children).values(tenant_id=tenant, id=1, Parent=1))
        connection.execute(delete(parents).where(parents.c.tenant_id == "a"))
        rows = connection.execute(select(children).order_by(children.c.tenant_id)).all()
    engine.dispose()
    assert rows == [("a", 1, None), ("b", 1, 1)]


def test_sqlite_refuses_a_key_that_clears() -> None:
    engine = create_engine("sqlite://")
    refused = r"SQLite can't have ON DELETE SET NULL \(\"Parent\"\) of the key of children \(tenant_id, Parent\)"
    with pytest.raises(CompileError, match=refused):
        _clearing().create_all(engine)
    with pytest.warns(UserWarning, match=refused), InMemoryDatabase(_clearing()) as session:
        assert inspect(session.connection()).get_table_names() == ["parents"]
    engine.dispose()


def _tables(*keys: Any, tenant: str = "tenant_id", parents: tuple[Any, ...] = ()) -> MetaData:
    """A parent's table and a child's, with these keys. No class maps them; their column says whose they are."""
    metadata = MetaData()
    Table("parents", metadata, Column("id", Integer, primary_key=True), Column(tenant, String(20)), *parents)
    columns = [Column(name, Integer) for name in ("parent_id", "a", "b")]
    more = [Column("name", String(20)), Column("is_deleted", Integer)]
    Table(
        "children",
        metadata,
        Column("id", Integer, primary_key=True),
        Column(tenant, String(20)),
        *columns,
        *more,
        *keys,
    )
    return metadata


LOOSE: dict[str, tuple[Any, tuple[Any, ...], str, str]] = {
    "foreign key": (
        lambda: [ForeignKeyConstraint(["parent_id"], ["parents.id"])],
        (),
        "The foreign key of children (parent_id) to parents does not carry the tenant.",
        'Use tenant_foreign_key("parent_id", "parents.id"), and tenant_unique("id") for parents.',
    ),
    "named": (
        lambda: [ForeignKeyConstraint(["parent_id"], ["parents.id"], name="fk_parent", ondelete="CASCADE")],
        (),
        "The foreign key fk_parent of children (parent_id) to parents does not carry the tenant.",
        'Use tenant_foreign_key("parent_id", "parents.id", ondelete="CASCADE"), and tenant_unique("id") for parents.',
    ),
    "to a parent that is ready": (
        lambda: [ForeignKeyConstraint(["parent_id"], ["parents.id"])],
        (lambda: tenant_unique("id"),),
        "The foreign key of children (parent_id) to parents does not carry the tenant.",
        'Use tenant_foreign_key("parent_id", "parents.id").',
    ),
    "two columns": (
        lambda: [ForeignKeyConstraint(["a", "b"], ["parents.x", "parents.y"])],
        (lambda: Column("x", Integer), lambda: Column("y", Integer), lambda: UniqueConstraint("x", "y")),
        "The foreign key of children (a, b) to parents does not carry the tenant.",
        'Use tenant_foreign_key(["a", "b"], ["parents.x", "parents.y"]), and tenant_unique("x", "y") for parents.',
    ),
    "to itself": (
        lambda: [ForeignKeyConstraint(["parent_id"], ["children.id"])],
        (),
        "The foreign key of children (parent_id) to children does not carry the tenant.",
        'Use tenant_foreign_key("parent_id", "children.id"), and tenant_unique("id") for children.',
    ),
    "unique": (
        lambda: [UniqueConstraint("name", name="uq_name")],
        (),
        "The unique key uq_name of children (name) does not carry the tenant.",
        'Use tenant_unique("name").',
    ),
    "unique index": (
        lambda: [Index("ix_name", "name", "a", unique=True)],
        (),
        "The unique key ix_name of children (name, a) does not carry the tenant.",
        'Use Index("ix_name", "tenant_id", "name", "a", unique=True).',
    ),
    "living": (
        lambda: [LivingUnique("name", name="living", tenant="nothing")],
        (),
        "The unique key living of children (name) does not carry the tenant.",
        'Name "tenant_id" first in it.',
    ),
}


class TestCheck:
    @pytest.mark.parametrize("case", list(LOOSE))
    def test_each_loose_key_is_warned_of_by_name_and_with_the_remedy(
        self, case: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        keys, parents, told, remedy = LOOSE[case]
        metadata = _tables(*keys(), parents=tuple(make() for make in parents))
        with caplog.at_level(logging.WARNING, "dotmac_database.tenancy"):
            found = check_tenant_keys(metadata)
        others = [each for each in found if each.table == "parents"]  # such as its own UNIQUE (x, y)
        assert len(found) == 1 + len(others)
        mine = next(each for each in found if each.table == "children")
        assert (str(mine), mine.remedy) == (told, remedy)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * len(found)
        assert f"{told} {remedy}" in caplog.messages
        with pytest.raises(TenantIsolationError, match=re.escape(f"{told} {remedy}")):
            check_tenant_keys(metadata, strict=True)

    @pytest.mark.parametrize("case", ["foreign key", "named", "two columns", "unique", "unique index"])
    def test_the_remedy_is_code_that_mends_it(self, case: str) -> None:
        _, parents, _, remedy = LOOSE[case]
        calls = {"tenant_foreign_key": tenant_foreign_key, "tenant_unique": tenant_unique, "Index": Index}
        written = re.findall(r"(\w+\(.*?\))(?: for (\w+))?(?:, and |\.$)", remedy.removeprefix("Use "))
        made = [(eval(code, calls), table or "children") for code, table in written]  # our own code
        columns = [make() for make in parents if isinstance(make(), Column)]
        metadata = _tables(
            *(key for key, table in made if table == "children"),
            parents=(*columns, *(key for key, table in made if table == "parents")),
        )
        assert check_tenant_keys(metadata, strict=True) == []
        metadata.create_all(create_engine("sqlite://"))

    def test_another_tenant_column_is_named(self) -> None:
        class Orgs(DeclarativeBase):
            pass

        class Parent(Orgs):
            __tablename__ = "parents"
            __tenant_column__ = "owner"
            id: Mapped[int] = mapped_column(primary_key=True)
            owner: Mapped[str]

        class Child(Orgs):
            __tablename__ = "children"
            __tenant_column__ = "org"
            id: Mapped[int] = mapped_column(primary_key=True)
            org: Mapped[str]
            code: Mapped[str] = mapped_column(unique=True)
            parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))

        assert [each.remedy for each in check_tenant_keys(Orgs.metadata)] == [
            (
                'Use tenant_foreign_key("parent_id", "parents.id", tenant="org", referred_tenant="owner"), '
                'and tenant_unique("id", tenant="owner") for parents.'
            ),
            'Use tenant_unique("code", tenant="org").',
        ]

    def test_a_table_without_a_column_for_the_tenant_needs_one(self) -> None:
        found = [each for each in loose_keys(LooseBase.metadata) if each.table == "note_labels"]
        assert {each.remedy for each in found} == {
            "The table note_labels needs a column for the tenant first, which such a key can carry."
        }

    @pytest.mark.parametrize(
        "key",
        [
            lambda: UniqueConstraint("name", info={"across_tenants": True}),
            lambda: Index("ix", "name", unique=True, info={"across_tenants": True}),
            lambda: ForeignKeyConstraint(["parent_id"], ["parents.id"], info={"across_tenants": True}),
            lambda: LivingUnique("name", tenant=None),
            lambda: tenant_unique("name"),
            lambda: UniqueConstraint("name", "tenant_id"),
            lambda: Index("ix", "name"),
            lambda: LivingUnique("name"),
        ],
    )
    def test_what_is_sound_or_meant_so_is_silent(self, key: Any, caplog: pytest.LogCaptureFixture) -> None:
        assert check_tenant_keys(_tables(key()), strict=True) == []
        assert caplog.records == []

    def test_a_database_that_is_sound_is_silent(self) -> None:
        assert check_tenant_keys(Base.metadata, strict=True) == []
