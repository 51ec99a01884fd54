"""`delete(expected_version=…)`: softly, for good, by the unit of work and over several tables.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    DatabaseTransaction,
    StaleEntityError,
    ValidationError,
)
from dotmac_database.models import SoftDeleteMixin, VersionMixin
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The tables of this module."""


class Plain(VersionMixin, Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)


class Soft(VersionMixin, SoftDeleteMixin, Base):
    __tablename__ = "soft"
    id: Mapped[int] = mapped_column(primary_key=True)


class Parent(VersionMixin, Base):
    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    children: Mapped[list[Child]] = relationship(cascade="all, delete-orphan")


class Child(Base):
    __tablename__ = "children"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))


class Animal(VersionMixin, Base):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Dog(Animal):
    __tablename__ = "dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)


class Counted(Base):
    """SQLAlchemy's own version column."""

    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Unversioned(Base):
    __tablename__ = "unversioned"
    id: Mapped[int] = mapped_column(primary_key=True)


MODELS = {each.__name__: each for each in (Plain, Soft, Parent, Dog, Counted)}
CASES = [(name, softly) for name in MODELS for softly in (True, False)]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize(("name", "softly"), CASES)
def test_a_row_is_deleted_at_its_version_alone(face: Face, name: str, softly: bool, inside: bool) -> None:
    model = MODELS[name]
    with face.session() as session:
        rows = face.repository(session, model)
        face(rows.create, {"id": 1})
        face(rows.create, {"id": 2})
        made = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
        for version in (0, 2, 7):
            with pytest.raises(StaleEntityError), face.entered(made(session)) if inside else nullcontext():
                face(rows.delete, 1, softly, expected_version=version)
        assert face(rows.exists, 1)
        assert face(rows.delete, 3, softly, expected_version=1) is False
        assert face(rows.delete, 1, softly, expected_version=1) is True
        assert face(rows.delete, 1, softly, expected_version=1) is False
        assert not face(rows.exists, 1)
        assert face(rows.exists, 2)


@pytest.mark.fast_way("update-statements")
@pytest.mark.parametrize(("name", "softly"), [("Plain", True), ("Soft", True), ("Soft", False), ("Counted", True)])
def test_it_is_one_statement(face: Face, name: str, softly: bool) -> None:
    with face.session() as session:
        rows = face.repository(session, MODELS[name])
        face(rows.create, {"id": 1})
        with counted(face.engine) as sent:
            assert face(rows.delete, 1, softly, expected_version=1)
    assert len([each for each in sent if each not in ("BEGIN", "COMMIT")]) == 1


def test_a_changed_row_is_another_version(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Soft)
        face(rows.create, {"id": 1})
        face(rows.delete, 1, expected_version=1)
        assert face(rows.restore, 1).version == 3
        with pytest.raises(StaleEntityError):
            face(rows.delete, 1, expected_version=1)
        assert face(rows.delete, 1, expected_version=3)
        with pytest.raises(StaleEntityError):
            face(rows.delete, 1, soft_delete=False, expected_version=3)
        assert face(rows.delete, 1, soft_delete=False, expected_version=4)


def test_a_class_without_a_version_has_none_to_expect(face: Face) -> None:
    with face.session() as session, pytest.raises(ValidationError, match="no version"):
        face(face.repository(session, Unversioned).delete, 1, expected_version=1)


def test_mocks_do_alike() -> None:
    mock = MockRepository(Soft)
    mock.create({"id": 1})
    with pytest.raises(StaleEntityError):
        mock.delete(1, expected_version=2)
    assert mock.delete(1, expected_version=1)


async def _mocked() -> None:
    mock = AsyncMockRepository(Plain)
    await mock.create({"id": 1})
    with pytest.raises(StaleEntityError):
        await mock.delete(1, expected_version=2)
    assert await mock.delete(1, expected_version=1)


def test_awaited_mocks_do_alike() -> None:
    asyncio.run(_mocked())


@pytest.mark.parametrize("kind", [BaseRepository, AsyncRepository])
def test_the_version_is_named(kind: Any) -> None:
    parameter = inspect.signature(kind.delete).parameters["expected_version"]
    assert parameter.kind is parameter.KEYWORD_ONLY
