"""History and the past under policies: each actor sees no more of them than the policies admit."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from dotmac_database import (
    HistoryMixin,
    MisuseError,
    PermissionDeniedError,
    Policy,
    QueryFilter,
    TenantMixin,
    any_of,
    bind_policies,
)
from dotmac_database.engines import Database
from dotmac_database.types import utc_now
from tests.conftest import Face
from tests.policies.models import ACTORS, AUDITOR, OWNER


class Base(DeclarativeBase):
    """The tables of these tests."""


class Squad(HistoryMixin, TenantMixin, Base):
    __tablename__ = "history_policy_squad"

    id: Mapped[int] = mapped_column(primary_key=True)
    lead_id: Mapped[str]
    plans: Mapped[list[Plan]] = relationship(back_populates="squad", order_by="Plan.id")


class Plan(HistoryMixin, TenantMixin, Base):
    __tablename__ = "history_policy_plan"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str]
    owner_id: Mapped[str]
    salary: Mapped[int]
    squad_id: Mapped[int | None] = mapped_column(ForeignKey("history_policy_squad.id"))
    squad: Mapped[Squad | None] = relationship(back_populates="plans")


def _read(actor: Any) -> Any:
    if actor is None or actor.role == "auditor":
        return actor is not None
    return any_of(QueryFilter("owner_id", "eq", actor.id), QueryFilter("squad.lead_id", "eq", actor.id))


PLANS = Policy(
    Plan,
    read=_read,
    update=lambda actor: actor is not None and [QueryFilter("owner_id", "eq", actor.id)],
    hidden=lambda actor: () if actor == OWNER else ["salary"],
)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(params=["sync", "async"])
def on(request: pytest.FixtureRequest, _database: Database, _runner: Any) -> Face:
    return Face(request.param, _database, _runner)


def moment() -> datetime:
    now = utc_now()
    time.sleep(0.003)
    return now


@pytest.fixture(scope="module")
def then(_database: Database) -> list[datetime]:
    """The moments after each step of a story of two tenants that look alike. No test changes the rows."""
    moments = []

    def commit(session: Session) -> None:
        session.commit()
        moments.append(moment())

    with Session(_database.engine) as session:
        for number, tenant in ((0, "one"), (100, "two")):
            session.add(Squad(id=number + 1, lead_id="bob", tenant_id=tenant))
            session.flush()
            session.add(Plan(id=number + 1, title="a", owner_id="ann", salary=5, squad_id=number + 1, tenant_id=tenant))
            session.add(Plan(id=number + 2, title="b", owner_id="cat", salary=6, tenant_id=tenant))
        commit(session)
        for number in (0, 100):
            session.get_one(Plan, number + 1).salary = 7
        commit(session)
        for number in (0, 100):
            session.get_one(Plan, number + 1).owner_id = "cat"
            session.get_one(Plan, number + 2).owner_id = "ann"
        commit(session)
        for number in (0, 100):
            session.delete(session.get_one(Plan, number + 1))
        commit(session)
        for number, tenant in ((0, "one"), (100, "two")):
            session.add(Plan(id=number + 1, title="c", owner_id="ann", salary=8, tenant_id=tenant))
        commit(session)
    return moments


SHOWN = {
    # of plan 1, which is another row by now, and of plan 2
    "owner": (["create"], ["create", "update"]),
    "other": ([], []),
    "auditor": (["create", "update", "delete", "create"], ["create", "update"]),
    "nobody": ([], []),
}
PAST = {
    "owner": ([1], [1], [2], [2], [1, 2]),
    "other": ([1], [1], [1], [], []),
    "auditor": ([1, 2], [1, 2], [1, 2], [2], [1, 2]),
    "nobody": ([], [], [], [], []),
}


def repository(on: Face, session: Any, actor: str, model: Any = Plan) -> Any:
    bind_policies(session, [PLANS], actor=ACTORS[actor])
    return on.repository(session, model, "one")


@pytest.mark.parametrize("actor", ACTORS)
def test_each_actor_sees_the_history_of_what_he_may_read(on: Face, then: Any, actor: str) -> None:
    assert then
    with on.guarded() if on.is_async else on.session() as session:
        plans = repository(on, session, actor)
        entries = [on(plans.history, number) for number in (1, 2)]
        assert tuple([each.operation for each in one] for one in entries) == SHOWN[actor]
        assert on(plans.history, 101) == []
        sides = [side for one in entries for each in one for side in (each.before, each.after) if side is not None]
        if sides:
            assert any("salary" in side for side in sides) == (ACTORS[actor] == OWNER)


@pytest.mark.parametrize("actor", ACTORS)
def test_the_past_is_ruled_by_the_rows_as_they_were(on: Face, then: Any, actor: str) -> None:
    with on.guarded() if on.is_async else on.session() as session:
        plans = repository(on, session, actor)
        for number, (each, expected) in enumerate(zip(then, PAST[actor], strict=True)):
            past = plans.as_of(each)
            rows = on(past.list)
            assert [row.id for row in rows] == expected, number
            assert on(past.count) == len(expected)
            assert [on(past.get_by_id, 1) is not None, on(past.get_by_id, 101)] == [1 in expected, None]
            if ACTORS[actor] != OWNER:
                for row in rows:
                    with pytest.raises(PermissionDeniedError):
                        _ = row.salary
                with pytest.raises(MisuseError, match="has no field 'salary'"):
                    on(past.count, [{"field": "salary", "operator": "eq", "value": 5}])


def test_an_include_is_ruled_at_that_moment(on: Face, then: Any) -> None:
    with on.session() as session:
        squads = repository(on, session, "other", Squad).as_of(then[0])
        [squad] = on(squads.list, {"relationships": ["plans"]})
        assert [each.title for each in squad.plans] == ["a"]


def test_a_history_is_forgotten_by_those_who_may_delete_every_row(on: Face, then: Any) -> None:
    with on.session() as session:
        plans = repository(on, session, "auditor")
        with pytest.raises(PermissionDeniedError):
            on(plans.forget_history, before=utc_now())
        mine = plans.with_policy(Policy(Plan, read=lambda _: True, delete=lambda _: True), actor=AUDITOR)
        assert on(mine.forget_history, before=then[0] - timedelta(days=1)) == 0
