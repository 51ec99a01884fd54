"""The past where policies are in the database, too: PostgreSQL rules the rows as they are now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    HistoryMixin,
    Policy,
    QueryFilter,
    RowLevelSecurity,
    TenantMixin,
    bind_policies,
    bind_tenant,
    create_repository,
)
from dotmac_database.engines import Database
from dotmac_database.types import utc_now
from tests.conftest import Face
from tests.tenancy.conftest import Guarded

from .conftest import APP
from .row_models import Actor


class Base(DeclarativeBase):
    """The table of these tests."""


class Memo(HistoryMixin, TenantMixin, Base):
    __tablename__ = "past_memos"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner_id: Mapped[int]
    title: Mapped[str]


def _own(actor: Actor) -> list[QueryFilter]:
    return [QueryFilter("owner_id", "eq", actor.id)]


POLICY = Policy(Memo, read=_own, create=_own, update=_own, delete=_own)
RLS = RowLevelSecurity(Base.metadata, policies=[POLICY])


@pytest.fixture(scope="module")
def then(owner_engine: Engine) -> Iterator[datetime]:
    """A moment. Since then, memos were renamed (1), given away (2) and deleted (3), of two tenants that look alike."""
    with owner_engine.begin() as connection:
        Base.metadata.create_all(connection)
        RLS.apply(connection)
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON past_memos, past_memos_history TO {APP}")
    with Session(owner_engine) as session:
        for tenant, first in (("a", 0), ("b", 10)):
            for number in (1, 2, 3, 4):
                session.add(Memo(id=first + number, owner_id=1, title="old", tenant_id=tenant))
        session.commit()
        moment = utc_now()
        time.sleep(0.003)
        for first in (0, 10):
            session.get_one(Memo, first + 1).title = "new"
            session.get_one(Memo, first + 2).owner_id = 2
            session.delete(session.get_one(Memo, first + 3))
        session.commit()
    yield moment
    with owner_engine.begin() as connection:
        Base.metadata.drop_all(connection)


@pytest.mark.parametrize(("actor", "was", "now"), [(1, [1, 3, 4], [1, 4]), (2, [], [2]), (3, [], [])])
def test_the_past_is_ruled_then_and_now(
    app: Database, then: datetime, actor: int, was: list[int], now: list[int]
) -> None:
    guarded = Guarded(Face("sync", app), rls=RLS)
    with closing(guarded):
        session = guarded.session()
        bind_tenant(session, "a")
        bind_policies(session, [POLICY], actor=Actor(actor))
        memos = create_repository(session, Memo, "a")
        past = memos.as_of(then)
        assert [(each.id, each.title, each.owner_id) for each in past.list()] == [(each, "old", 1) for each in was]
        assert past.count() == len(was)
        assert past.get_by_id(2) is None
        assert past.get_by_id(11) is None
        assert [each.id for each in memos.list()] == now
        assert [number for number in range(20) if memos.history(number)] == now
        assert session.scalars(select(Memo.id).order_by(Memo.id)).all() == now
