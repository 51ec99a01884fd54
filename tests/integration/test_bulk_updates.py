"""Updates of many rows: what they write, what they count, and the objects that the session holds."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import JSON, ColumnElement, MetaData, Numeric, String, TypeDecorator, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import AsyncTenantRepository, BaseTenantRepository, DatabaseTransaction, DuplicateEntityError
from dotmac_database.models import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from tests.conftest import Face, counted


class Base(DeclarativeBase):
    """The base class of this module's tables."""


class Details(TypeDecorator[Any]):
    """A document that the app converts."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value


class Part(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)
    grade: Mapped[str | None] = mapped_column(default="plain")
    price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    day: Mapped[date | None]
    details: Mapped[dict[str, Any] | None] = mapped_column(Details)


class Timed(Base):
    """A key of which SQLite can store one value in several forms."""

    __tablename__ = "timed"

    moment: Mapped[datetime] = mapped_column(primary_key=True)
    word: Mapped[str | None]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def parts(many: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": n, "code": f"c{n}", "price": 1, "details": {"n": n}} for n in range(first, first + many)]


@pytest.mark.parametrize("many", [2, 30])
@pytest.mark.parametrize("guarded", [False, True])
def test_none_is_written_although_the_column_has_a_default(face: Face, many: int, guarded: bool) -> None:
    """Only a new row gets the default for it."""
    with face.guarded() if guarded else face.session() as session:
        rows = face.repository(session, Part, "a")
        face(rows.bulk_create, [{**row, "grade": "fine"} for row in parts(many)])
        changes = [{"id": n, "grade": None} | ({"price": 2} if n % 2 else {}) for n in range(many)]
        assert face(rows.bulk_update, changes) == many
        session.expunge_all()
        assert {each.grade for each in face(rows.list)} == {None}


@pytest.mark.parametrize("many", [3, 30])
@pytest.mark.parametrize("details", [False, True])
def test_only_own_living_rows_are_updated_and_counted(face: Face, many: int, details: bool) -> None:
    """With values of a column that the app converts, the statement can't get arrays."""
    with face.session() as session:
        rows, others = face.repository(session, Part, "a"), face.repository(session, Part, "b")
        held = face(rows.bulk_create, parts(many))
        foreign = face(others.bulk_create, parts(1, many))[0]
        assert face(rows.delete, 0)
        value = {"details": {"new": None}} if details else {"day": date(2024, 5, 6), "price": Decimal("2.5")}
        changes = [{"id": n, **value} for n in (*range(many + 1), 10_000)]
        assert face(rows.bulk_update, changes) == many - 1
        assert [each.version for each in held] == [2] * many
        for each in held[1:]:
            assert {key: getattr(each, key) for key in value} == value
        assert held[0].price == foreign.price == 1
        assert held[0].details == {"n": 0}
        session.expunge_all()
        stored = face(rows.list, {"sorts": [{"field": "id"}], "pagination": {"per_page": 100}})
        assert [(each.version, each.price, each.details) for each in stored] == [
            (each.version, each.price, each.details) for each in held[1:]
        ]
        assert face(others.get_by_id, many).version == 1


def test_the_objects_of_updated_rows_have_the_new_values(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Part, "a")
        held = face(rows.bulk_create, parts(30))
        assert face(rows.bulk_update, [{"id": n, "price": n} for n in range(30)], "me") == 30
        assert [(each.price, each.version, each.updated_by) for each in held] == [(n, 2, "me") for n in range(30)]


@pytest.mark.parametrize("many", [3, 30, 700])
def test_a_refused_row_undoes_all(face: Face, many: int) -> None:
    with face.session() as session:
        rows = face.repository(session, Part, "a")
        face(rows.bulk_create, parts(many), returning=False)
        changes: list[dict[str, Any]] = [{"id": n, "grade": "new"} for n in range(many)]
        twice = [{"id": n, "grade": "new", "code": "same"} for n in range(many - 2, many)]
        begin = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
        with face.entered(begin(session)):
            face(rows.update, 0, {"grade": "kept"})
            with pytest.raises(DuplicateEntityError):
                face(rows.bulk_update, [*changes[:-2], *twice])
        grades = face(rows.distinct_values, "grade")
        assert set(grades) == {"kept", "plain"}


def test_a_condition_of_the_repository_confines_the_update(face: Face) -> None:
    class Cheap(AsyncTenantRepository[Part] if face.is_async else BaseTenantRepository[Part]):  # type: ignore[misc]
        def conditions(self) -> Iterable[ColumnElement[bool]]:
            return [Part.price < select(func.count()).select_from(Timed).scalar_subquery() + 5]

    with face.session() as session:
        rows = Cheap(session, Part, "a")
        held = face(rows.bulk_create, [{**row, "price": row["id"]} for row in parts(30)])
        assert face(rows.bulk_update, [{"id": n, "price": n + 5} for n in range(30)]) == 5
        assert [each.price for each in held] == [n + 5 if n < 5 else n for n in range(30)]


def test_a_key_that_is_compared_as_a_span(face: Face) -> None:
    moments = [datetime(2024, 1, 1, 0, n, 1 + n, tzinfo=UTC).replace(tzinfo=None) for n in range(30)]
    with face.session() as session:
        rows = face.repository(session, Timed)
        face(rows.bulk_create, [{"moment": each} for each in moments])
        assert face(rows.bulk_update, [{"moment": each, "word": "w"} for each in moments]) == 30


@pytest.mark.fast_way("update-statements")
def test_ten_thousand_updates_are_one_statement(face: Face) -> None:
    with face.session() as session:
        rows = face.repository(session, Part, "a")
        face(rows.bulk_create, parts(10_000), returning=False)
        with counted(face.engine) as sent:
            assert face(rows.bulk_update, [{"id": n, "price": n} for n in range(10_000)]) == 10_000
        assert len([each for each in sent if "UPDATE" in each]) == 1
