"""What is computed of a hidden column is hidden, too: in filters, sorts, facets and responses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Header
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, ForeignKey, MetaData, func, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, column_property, mapped_column, relationship

from dotmac_database import Database, Policy, TenantMixin
from dotmac_database_fastapi import DatabasePlugin, list_router, register_exception_handlers, tenant_from_header
from tests.fastapi.conftest import Api


class Base(DeclarativeBase):
    """The tables of these tests."""


class Team(TenantMixin, Base):
    __tablename__ = "hidden_teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    budget: Mapped[int] = mapped_column()
    size: Mapped[int]
    thrice: Mapped[int] = column_property(budget * 3)

    @hybrid_property
    def doubled(self) -> int:
        return self.budget * 2

    @hybrid_property
    def grown(self) -> int:
        return self.size + 1

    @hybrid_property
    def others(self) -> int:
        raise NotImplementedError

    @others.inplace.expression
    @classmethod
    def _others(cls) -> ColumnElement[int]:
        other = aliased(Team)
        return select(func.sum(other.budget)).where(other.tenant_id == cls.tenant_id).scalar_subquery()


class Member(TenantMixin, Base):
    __tablename__ = "hidden_members"

    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("hidden_teams.id"))
    pay: Mapped[int]
    team: Mapped[Team] = relationship()

    @hybrid_property
    def share(self) -> int:
        return self.pay

    @share.inplace.expression
    @classmethod
    def _share(cls) -> ColumnElement[int]:
        return select(Team.budget).where(Team.id == cls.team_id).scalar_subquery() - cls.pay


class TeamRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    grown: int
    doubled: int
    thrice: int


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def unseen(name: str) -> Any:
    return lambda actor: () if actor == "chief" else (name,)


POLICIES = (Policy(Team, read=True, hidden=unseen("budget")), Policy(Member, read=True, hidden=unseen("pay")))
TEAMS = ("id", "size", "doubled", "thrice", "others", "grown")
MEMBERS = ("id", "share", "team.doubled", "team.thrice", "team.others", "team.grown")
READABLE = {"id", "size", "grown", "team.grown"}


async def actor(x_user: str = Header()) -> str:
    return x_user


@pytest.fixture
def api(_shared: Api, database: Database) -> Api:
    with database.sessions() as session:
        for tenant, base in (("a", 0), ("b", 10)):
            team = Team(id=base + 1, budget=100, size=1, tenant_id=tenant)
            session.add_all([team, Member(id=base + 1, team=team, pay=7, tenant_id=tenant)])
        session.commit()
    return _shared


@pytest.fixture(scope="module")
def _shared(_database: Database) -> Iterator[Api]:
    """One app for all tests: to make it takes longer than to call it."""
    plugin = DatabasePlugin(_database.url, tenant=tenant_from_header(), actor=actor, policies=POLICIES)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    for model, path, names in ((Team, "/teams", TEAMS), (Member, "/members", MEMBERS)):
        for prefix, fields in ((path, names), (f"/twin{path}", [each for each in names if each in READABLE])):
            facets = [each for each in fields if "." not in each]
            app.include_router(list_router(model, prefix, filters=fields, sorts=fields, facets=facets))
    app.include_router(list_router(Team, "/read", read_schema=TeamRead, fields=("id", "grown", "doubled", "thrice")))
    with asyncio.Runner() as runner:
        yield Api(app, runner)
        runner.run(plugin.database.dispose_async())


USES = ["{}=200", "{}__gte=1", "sort={}", "sort=-{}", "facets={}"]


CASES = [
    (path, name, use)
    for path, names in (("/teams", TEAMS), ("/members", MEMBERS))
    for name in names
    for use in USES
    if not ("." in name and "facets" in use)  # facets are of the rows' own class
]


@pytest.mark.parametrize(("path", "name", "use"), CASES)
def test_a_parameter_is_unknown_to_whom_its_column_is_hidden(api: Api, path: str, name: str, use: str) -> None:
    query = use.format(name)
    chief, clerk = (api.get(f"{path}?{query}", tenant="a", headers={"X-User": user}) for user in ("chief", "clerk"))
    assert chief.status_code == 200, chief.text
    assert clerk.status_code == (200 if name in READABLE else 422), clerk.text
    if name not in READABLE:
        unknown = api.get(f"/twin{path}?{query}", tenant="a", headers={"X-User": "clerk"})
        assert (clerk.status_code, clerk.text) == (unknown.status_code, unknown.text)


@pytest.mark.parametrize("query", ["", "?fields=id,grown"])
def test_a_response_leaves_it_out(api: Api, query: str) -> None:
    for user, keys in (("chief", {"id", "grown", "doubled", "thrice"}), ("clerk", {"id", "grown"})):
        [row] = api.get(f"/read{query}", tenant="a", headers={"X-User": user}).json()["items"]
        assert row.keys() == (keys if not query else {"id", "grown"})
    for name in ("doubled", "thrice"):
        answer = api.get(f"/read?fields={name}", tenant="a", headers={"X-User": "clerk"})
        assert answer.status_code == 422
