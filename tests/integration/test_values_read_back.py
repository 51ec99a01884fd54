"""A value that was read finds its row, whatever lies between what is stored and what is read."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import REAL, DateTime, Float, MetaData, Numeric, String, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    DatabasePaginator,
    InvalidCursorError,
    QueryFilter,
    ValidationError,
    none_of,
)
from dotmac_database.testing import MockRepository
from tests.conftest import Face
from tests.matrices.column_types import Money, MoneyInCents


class Base(DeclarativeBase):
    """The tables of these tests."""


class Event(Base):
    """Its moment is made by the database."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
    made: Mapped[datetime] = mapped_column(DateTime, server_default=func.now())
    weight: Mapped[float | None] = mapped_column(REAL)
    price: Mapped[Any] = mapped_column(MoneyInCents, nullable=True)
    amount: Mapped[float | None] = mapped_column(Numeric(asdecimal=False))


class Owned(Base):
    """A tenant's row."""

    __tablename__ = "owned"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(20))
    made: Mapped[datetime] = mapped_column(DateTime, server_default=func.now())
    price: Mapped[Any] = mapped_column(MoneyInCents, nullable=True)
    amount: Mapped[float | None] = mapped_column(Numeric(asdecimal=False))
    share: Mapped[Any] = mapped_column(Float(asdecimal=True), nullable=True)


class Tick(Base):
    """Its key is a moment that the database makes."""

    __tablename__ = "ticks"
    at: Mapped[datetime] = mapped_column(DateTime, primary_key=True, server_default=func.now())
    name: Mapped[str] = mapped_column(String(20), primary_key=True)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def rows(face: Face) -> list[int]:
    with face.session() as session:
        events = face.repository(session, Event)
        made = [face(events.create, {"name": f"n{n}", "weight": 1 / 3, "price": Money(5)}) for n in range(5)]
        return [row.id for row in made]


def test_moments_that_the_database_makes(face: Face, rows: list[int]) -> None:
    with face.session() as session:
        events = face.repository(session, Event)
        made = face(events.get_by_id, rows[0]).made
        whole = [row.id for row in face(events.list_by_field, "made", made)]
        assert rows[0] in whole
        assert rows[0] not in [
            row.id for row in face(events.list, {"filters": [{"field": "made", "operator": "ne", "value": made}]})
        ]


@pytest.mark.parametrize("field", ["made", "weight", "price"])
@pytest.mark.parametrize("ascending", [True, False])
def test_pages_of_a_hand_written_query(face: Face, rows: list[int], field: str, ascending: bool) -> None:
    paginate = (
        DatabasePaginator.async_cursor_paginate_query if face.is_async else DatabasePaginator.cursor_paginate_query
    )
    with face.session() as session:
        found: list[int] = []
        cursor = None
        for _ in range(6):
            items, cursor, more = face(paginate, session, select(Event), field, 2, cursor, ascending)
            found += [item.id for item in items]
            if not more:
                break
    assert sorted(found) == rows


def test_a_key_that_the_database_makes_is_found(face: Face) -> None:
    with face.database.engine.begin() as connection:
        for name in "abcde":
            connection.execute(text("INSERT INTO ticks (name) VALUES (:name)"), {"name": name})
    with face.session() as session:
        ticks = face.repository(session, Tick)
        every = face(ticks.list)
        for tick in every:
            assert face(ticks.get_by_id, (tick.at, tick.name)) is tick
            assert face(ticks.exists, (tick.at, tick.name))
        seen: list[str] = []
        assert face(ticks.in_batches, lambda batch: seen.extend(each.name for each in batch), batch_size=2) == 5
        assert seen == list("abcde")


@pytest.mark.parametrize("value", [5, "5", {"cents": 5}, object()], ids=["int", "text", "dict", "object"])
@pytest.mark.parametrize("operator", ["eq", "ne", "gte"])
def test_what_a_users_type_does_not_take_is_refused_by_name(face: Face, value: Any, operator: str) -> None:
    with (
        face.session() as session,
        pytest.raises(
            ValidationError, match=rf"Event.price {operator}: .* is not a value that MoneyInCents takes"
        ) as refused,
    ):
        face(
            face.repository(session, Event).list,
            {"filters": [{"field": "price", "operator": operator, "value": value}]},
        )
    assert refused.value.field == "price"


@pytest.mark.parametrize("value", [1e300, -1e300, 1e-300, 3])
def test_a_number_beyond_single_precision_is_compared_all_the_same(face: Face, rows: list[int], value: float) -> None:
    with face.session() as session:
        events = face.repository(session, Event)
        found = face(events.count, [{"field": "weight", "operator": "gt", "value": value}])
    assert found == (5 if value < 1 / 3 else 0)


def test_a_forged_key_is_an_invalid_cursor(face: Face, rows: list[int]) -> None:
    with face.session() as session:
        events = face.repository(session, Event)
        page = face(events.cursor_paginate, {"sorts": [{"field": "price"}], "cursor_pagination": {"limit": 2}})
        assert page.next_cursor is not None
        other = {"sorts": [{"field": "made"}], "cursor_pagination": {"limit": 2, "cursor": page.next_cursor}}
        with pytest.raises(InvalidCursorError):
            face(events.cursor_paginate, other)


def test_a_mock_has_the_same_cursors() -> None:
    mock = MockRepository(Event)
    mock.add_mock_data([{"name": f"n{n}", "price": Money(n // 2), "weight": 0.1} for n in range(5)])
    for sort in ("made", "price", "weight"):
        found, cursor = [], None
        for _ in range(6):
            page = mock.cursor_paginate(
                {"sorts": [{"field": sort}], "cursor_pagination": {"limit": 2, "cursor": cursor}}
            )
            found += [row.name for row in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == ["n0", "n1", "n2", "n3", "n4"]


@pytest.mark.parametrize("field", ["made", "price", "amount", "share"])
def test_a_guarded_session_confines_the_same_reads(face: Face, field: str) -> None:
    with face.session() as session:
        for tenant in ("a", "b"):
            owned = face.repository(session, Owned, tenant)
            for _ in range(3):
                face(owned.create, {"price": Money(5), "amount": 1 / 3, "share": Decimal("0.1")})
    with face.guarded() as session:
        owned = face.repository(session, Owned, "a")
        rows = face(owned.list)
        assert len(rows) == 3
        values = [getattr(row, field) for row in rows]
        for operator, count in (("in", 3), ("not_in", 0)):
            asked = [{"field": field, "operator": operator, "value": values}]
            assert face(owned.count, asked) == count, operator
        assert [row.id for row in face(owned.list_by_field, field, values[0])]
        streamed = face(owned.stream, {"sorts": [{"field": field}]}, batch_size=2)
        assert len(streamed) == 3


@pytest.mark.parametrize("field", ["amount", "share", "made", "price"])
def test_null_is_in_no_list_nor_not_in_one(face: Face, field: str) -> None:
    with face.session() as session:
        owned = face.repository(session, Owned, "a")
        known = face(owned.create, {"price": Money(5), "amount": 1 / 3, "share": Decimal("0.1")})
        if field != "made":
            face(owned.create, {})
        known = face(owned.get_by_id, known.id)  # as it is read: psycopg writes 15 digits of a float to a NUMERIC
        listed = QueryFilter(field, "in", [getattr(known, field)])
        assert face(owned.count, [listed]) == 1
        assert face(owned.count, [QueryFilter(field, "not_in", listed.value)]) == 0
        assert face(owned.count, [none_of(listed)]) == 0
