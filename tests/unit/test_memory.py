"""Databases in memory: which tables they have, and what they say of those that SQLite can't have."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, ForeignKey, MetaData, Text, func, inspect, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import ConstraintViolationError, create_async_repository, create_repository
from dotmac_database.testing import InMemoryDatabase
from tests.models import Base, Country, Post, User

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_with_gives_a_session() -> None:
    with InMemoryDatabase(Base.metadata) as session:
        assert isinstance(session, Session)
        create_repository(session, Country).create({"code": "IS", "name": "Iceland"})
        assert session.scalar(select(func.count()).select_from(Country)) == 1


async def test_async_with_gives_an_async_session() -> None:
    async with InMemoryDatabase(Base.metadata) as session:
        assert isinstance(session, AsyncSession)
        countries = create_async_repository(session, Country)
        await countries.create({"code": "IS", "name": "Iceland"})
        await session.rollback()
        assert (await countries.get_by_id_or_raise("IS")).name == "Iceland"


def test_each_block_has_a_database_of_its_own() -> None:
    database = InMemoryDatabase(Base.metadata)
    for _ in range(2):
        with database as session:
            countries = create_repository(session, Country)
            assert countries.count() == 0
            countries.create({"code": "IS", "name": "Iceland"})


def test_foreign_keys_are_enforced() -> None:
    with InMemoryDatabase(Base.metadata) as session:
        posts = create_repository(session, Post, "a")
        with pytest.raises(ConstraintViolationError):
            posts.create({"title": "Orphan", "parent_id": 7})
        assert posts.count() == 0


class Odd(DeclarativeBase):
    """Tables that only PostgreSQL can have, among others; in no test are they created without metadata."""

    metadata = MetaData()


class Document(Odd):
    __tablename__ = "odd_documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[Any] = mapped_column(JSONB)


class Word(Odd):
    __tablename__ = "odd_words"

    id: Mapped[int] = mapped_column(primary_key=True)
    vector: Mapped[Any] = mapped_column(TSVECTOR)


class Form(Odd):
    __tablename__ = "odd_forms"

    id: Mapped[int] = mapped_column(primary_key=True)
    names: Mapped[list[str]] = mapped_column(ARRAY(Text))


class Stamp(Odd):
    __tablename__ = "odd_stamps"
    __table_args__ = (CheckConstraint("made ~ '^[0-9]+$'"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    made: Mapped[str]


class Plain(Odd):
    __tablename__ = "odd_plain"

    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int | None] = mapped_column(ForeignKey("odd_documents.id"))


class Apart(Odd):
    __tablename__ = "odd_plain"
    __table_args__ = ({"schema": "apart"},)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


async def test_what_sqlite_cannot_create_is_left_out_by_name() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with InMemoryDatabase(Odd.metadata) as session:
            assert inspect(session.connection()).get_table_names() == ["odd_documents", "odd_plain"]
        async with InMemoryDatabase(Odd.metadata) as other:
            assert (await other.scalars(select(Plain))).all() == []
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 6
    for name, reason in [("odd_words", "TSVECTOR"), ("odd_forms", "ARRAY"), ("odd_stamps", "syntax error")]:
        named = [message for message in messages if repr(name) in message]
        assert len(named) == 2, messages
        assert "left out" in named[0]
        assert reason in named[0]


@pytest.mark.filterwarnings("ignore:SQLite can't have")
def test_a_schema_is_a_database_beside() -> None:
    with InMemoryDatabase(Odd.metadata) as session:
        create_repository(session, Plain).create({"id": 1})
        create_repository(session, Apart).create({"id": 2, "name": "beside"})
        assert session.scalars(select(Apart.name)).all() == ["beside"]
        assert session.scalars(select(Plain.id)).all() == [1]


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_leaves_no_connection_behind() -> None:
    with pytest.raises(UserWarning, match="odd_"), InMemoryDatabase(Odd.metadata):
        pass
    gc.collect()


ALONE = """
    import asyncio
    from sqlalchemy import Column, ForeignKey, Integer, Table
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
    from dotmac_database import ValidationError, create_async_repository
    from dotmac_database.testing import InMemoryDatabase

    class One(DeclarativeBase): pass
    class Two(DeclarativeBase): pass

    links = Table("links", One.metadata,
        Column("a", ForeignKey("users.id"), primary_key=True), Column("b", ForeignKey("users.id"), primary_key=True))

    class User(One):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        friends: Mapped[list["User"]] = relationship(
            secondary=links, primaryjoin=lambda: User.id == links.c.a, secondaryjoin=lambda: User.id == links.c.b)

    class Thing(Two):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)

    async def main():
        async with InMemoryDatabase() as session:
            for model in (User, Thing):
                assert (await create_async_repository(session, model).create({"id": 1})).id == 1

        class Double(Two):
            __tablename__ = "users"
            id: Mapped[int] = mapped_column(primary_key=True)

        try:
            async with InMemoryDatabase():
                raise AssertionError("two tables of one name")
        except ValidationError as error:
            assert "'users'" in str(error) and "metadata=" in str(error), error
        async with InMemoryDatabase(Two.metadata) as session:
            assert (await create_async_repository(session, Double).create({"id": 2})).id == 2

    asyncio.run(main())
"""


def test_without_metadata_every_mapped_class_has_its_table(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(textwrap.dedent(ALONE))
    done = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_models_of_these_tests_fit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with InMemoryDatabase(Base.metadata) as session:
            users = create_repository(session, User, "a")
            assert users.create({"name": "Ann"}).tenant_id == "a"
