"""Requests that have once learnt or changed what a policy forbids, or were wrongly refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Header
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from dotmac_database import Database, Policy, QueryFilter, TenantMixin
from dotmac_database_fastapi import OPERATIONS
from tests.fastapi.conftest import Api
from tests.fastapi.item_models import Tables, World, world_of
from tests.fastapi.shared_routers import crud_router, list_router


class Base(DeclarativeBase):
    """The tables of the attacks."""


class Person(TenantMixin, Base):
    __tablename__ = "attacked_people"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("attacked_people.id"))
    boss: Mapped[Person | None] = relationship(remote_side=id)


class BossOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int


class PersonOut(BossOut):
    boss: BossOut | None


def fill(database: Database) -> None:
    """Store the rows."""
    with sessionmaker(database.engine)() as session:
        session.add_all([Person(id=n, owner=owner, tenant_id="a") for n, owner in ((101, "ann"), (102, "bob"))])
        session.commit()


def actor_of(x_actor: Annotated[str, Header()]) -> str:
    return x_actor


def own(actor: str) -> Any:
    return [QueryFilter("owner", value=actor)]


OWN = Policy(Person, read=own, create=own, update=own)
BLIND = Policy(Person, read=own, create=own, update=own, hidden=["boss_id"])


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(request, tmp_path_factory.mktemp("attacks"), Tables(Base.metadata, fill)) as world:
        yield world


@pytest.fixture
def attacked(world: World) -> Iterator[Api]:
    world.refill()
    every = (*OPERATIONS, "bulk_create", "bulk_update")
    with world.api(actor=actor_of, policies=[Policy(Person, read=True)]) as (app, api):
        app.include_router(crud_router(Person, "/people", operations=every, policy=OWN))
        app.include_router(crud_router(Person, "/blind", operations=every, policy=BLIND))
        selects: Any = {"include": ("boss",), "filters": ("boss.owner",), "sorts": ("boss.owner",)}
        app.include_router(list_router(Person, "/blind-list", policy=BLIND, **selects))
        app.include_router(list_router(Person, "/blind-schema", policy=BLIND, read_schema=PersonOut))
        yield api


def ask(api: Api, method: str, path: str, body: object) -> Any:
    return api.request(method, path, tenant="a", headers={"X-Actor": "ann"}, json=body)


def test_a_reference_is_ruled_by_the_policy_of_the_router(attacked: Api) -> None:
    for method, path, body in (
        ("POST", "/people", lambda boss: {"owner": "ann", "boss_id": boss}),
        ("POST", "/people/bulk", lambda boss: [{"owner": "ann", "boss_id": boss}]),
        ("PATCH", "/people/101", lambda boss: {"boss_id": boss}),
        ("PATCH", "/people/bulk", lambda boss: [{"id": 101, "boss_id": boss}]),
    ):
        unreadable, unknown, known = (ask(attacked, method, path, body(boss)) for boss in (102, 999, 101))
        assert (unreadable.status_code, unreadable.content) == (unknown.status_code, unknown.content)
        assert (unknown.status_code, known.is_success) == (409, True)


def test_a_row_with_a_hidden_foreign_key_is_written(attacked: Api) -> None:
    made = ask(attacked, "POST", "/blind", {"owner": "ann"})
    assert (made.status_code, "boss_id" in made.text) == (201, False)
    changed = ask(attacked, "PATCH", "/blind/101", {"owner": "ann"})
    assert (changed.status_code, "boss_id" in changed.text) == (200, False)


def test_a_hidden_foreign_key_is_in_no_list(attacked: Api) -> None:
    for query in ("include=boss", "boss.owner=ann", "sort=boss.owner"):
        assert ask(attacked, "GET", f"/blind-list?{query}", None).status_code == 422, query
    for path in ("/blind-list", "/blind-schema"):
        answer = ask(attacked, "GET", path, None)
        assert (answer.status_code, len(answer.json()["items"]), "boss" in answer.text) == (200, 1, False)
