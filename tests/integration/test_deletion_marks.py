"""Kind of the column that marks deleted rows, over database, face and way of writing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Boolean, Integer, MetaData, SmallInteger, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import DuplicateEntityError, FilterOperator, LivingUnique, QueryFilter, UTCDateTime, traits_of
from tests.conftest import Face


class Base(DeclarativeBase):
    """The tables of this module."""


class IntFlag(TypeDecorator[bool]):
    """A bool in an INTEGER column, as older schemas have it."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: Any) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: int | None, dialect: Any) -> bool | None:
        return None if value is None else bool(value)


class Item:
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str]


class ByFlag(Item, Base):
    __tablename__ = "marked_by_flag"
    __table_args__ = (LivingUnique("code"),)
    is_deleted: Mapped[bool] = mapped_column(Boolean)


class ByNullableFlag(Item, Base):
    __tablename__ = "marked_by_nullable_flag"
    __table_args__ = (LivingUnique("code"),)
    is_deleted: Mapped[bool | None] = mapped_column(Boolean)


class ByNumber(Item, Base):
    __tablename__ = "marked_by_number"
    __table_args__ = (LivingUnique("code"),)
    is_deleted: Mapped[int] = mapped_column(Integer)


class ByNullableNumber(Item, Base):
    __tablename__ = "marked_by_nullable_number"
    __table_args__ = (LivingUnique("code"),)
    is_deleted: Mapped[int | None] = mapped_column(SmallInteger)


class ByIntFlag(Item, Base):
    __tablename__ = "marked_by_int_flag"
    __table_args__ = (LivingUnique("code"),)
    is_deleted: Mapped[bool] = mapped_column(IntFlag)


class ByTime(Item, Base):
    __tablename__ = "marked_by_time"
    __table_args__ = (LivingUnique("code"),)
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


class ByBoth(Item, Base):
    __tablename__ = "marked_by_both"
    __table_args__ = (LivingUnique("code", deleted="gone"),)
    is_deleted: Mapped[int] = mapped_column("gone", Integer)
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)


MODELS = [ByFlag, ByNullableFlag, ByNumber, ByNullableNumber, ByIntFlag, ByTime, ByBoth]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def rows(request: pytest.FixtureRequest, face: Face) -> Iterator[Any]:
    with face.session() as session:
        yield face.repository(session, request.param)


def codes(face: Face, rows: Any) -> list[str]:
    return sorted(row.code for row in face(rows.list))


def test_a_deleted_row_is_read_only_on_request_and_comes_back(face: Face, rows: Any) -> None:
    face(rows.create, {"id": 1, "code": "x"})
    face(rows.create, {"id": 2, "code": "y"})
    assert face(rows.delete, 1)
    assert codes(face, rows) == ["y"]
    assert face(rows.get_by_id, 1) is None
    assert face(rows.count) == 1
    assert face(rows.count, include_deleted=True) == 2
    assert not face(rows.delete, 1)
    face(rows.restore, 1)
    assert codes(face, rows) == ["x", "y"]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_rows_that_are_inserted_together_are_not_deleted(face: Face, rows: Any, count: int) -> None:
    face(rows.bulk_create, [{"id": n, "code": f"{n:02}"} for n in range(count)])
    assert codes(face, rows) == [f"{n:02}" for n in range(count)]
    face(rows.bulk_create, [{"id": 50 + n, "code": f"{50 + n}"} for n in range(count)], returning=False)
    assert face(rows.count) == 2 * count


def test_many_are_deleted_at_once(face: Face, rows: Any) -> None:
    face(rows.bulk_create, [{"id": n, "code": f"{n}"} for n in range(4)])
    assert face(rows.delete_where, [QueryFilter("id", FilterOperator.LT, 3)]) == 3
    assert codes(face, rows) == ["3"]


def test_a_code_is_unique_among_the_rows_that_are_not_deleted(face: Face, rows: Any) -> None:
    face(rows.create, {"id": 1, "code": "x"})
    with pytest.raises(DuplicateEntityError):
        face(rows.create, {"id": 2, "code": "x"})
    face(rows.delete, 1)
    face(rows.create, {"id": 3, "code": "x"})
    with pytest.raises(DuplicateEntityError):
        face(rows.restore, 1)
    assert [row.id for row in face(rows.list)] == [3]


def test_an_upsert_meets_only_rows_that_are_not_deleted(face: Face, rows: Any) -> None:
    face(rows.create, {"id": 1, "code": "x"})
    face(rows.delete, 1)
    assert face(rows.upsert, {"id": 2, "code": "x"}, ["code"]).id == 2
    assert face(rows.upsert, {"id": 3, "code": "x"}, ["code"]).id == 2
    found = face(rows.bulk_upsert, [{"id": 10 + n, "code": f"{n}" if n else "x"} for n in range(25)], ["code"])
    assert [row.id for row in found] == [2, *range(11, 35)]


def test_an_upsert_by_the_key_restores_the_row(face: Face, rows: Any) -> None:
    face(rows.create, {"id": 1, "code": "x"})
    face(rows.delete, 1)
    face(rows.upsert, {"id": 1, "code": "y"}, ["id"])
    assert codes(face, rows) == ["y"]


def test_every_model_has_a_mark() -> None:
    assert all(traits_of(model).soft_deletes for model in MODELS)
