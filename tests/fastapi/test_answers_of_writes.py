"""What a write answers is what a read gives afterwards: a number's decimal places, a text's padding, a time's zone."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database_fastapi import crud_router
from tests.fastapi.conftest import Api


class Base(DeclarativeBase):
    """The tables of this module."""


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


class Balance(Base):
    """Each kind of default, for types whose values the database normalises."""

    __tablename__ = "answers_balances"

    id: Mapped[int] = mapped_column(primary_key=True)
    plain: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2), default=Decimal(0))
    whole: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2), default=0)
    longer: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2), default=Decimal("1.005"))
    served: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2), server_default="0")
    given: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
    ratio: Mapped[float] = mapped_column(sa.Double, default=1)
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), default=lambda: MOMENT)
    token: Mapped[uuid.UUID] = mapped_column(default=lambda: uuid.UUID(int=5))
    document: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=lambda: {"b": 1.0, "a": [None]})


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


def test_what_a_write_answers_is_what_a_read_gives(app: FastAPI, runner: Any) -> None:
    app.include_router(crud_router(Balance, prefix="/balances"))
    api = Api(app, runner)
    for body in ({"given": "1"}, {"given": 2, "plain": "3"}, {"given": "4.5", "longer": 1, "ratio": 2}):
        made = api.post("/balances", tenant="a", json=body)
        assert made.status_code == 201, made.text
        place = made.headers["location"]
        assert made.json() == api.get(place, tenant="a").json()
        changed = api.patch(place, tenant="a", json={"given": "7", "plain": "0"})
        read = api.get(place, tenant="a").json()
        assert changed.json() == read
        assert (read["given"], read["plain"]) == ("7.00", "0.00")
