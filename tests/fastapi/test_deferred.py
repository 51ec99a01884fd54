"""Generated routes for classes with deferred columns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, MetaData, String, event
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from dotmac_database import AsyncTenantRepository, SoftDeleteMixin, TenantMixin, VersionMixin
from dotmac_database_fastapi import DatabasePlugin
from tests.conftest import counted
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router

pytestmark = pytest.mark.shared_plugin


class Base(DeclarativeBase):
    """The tables of this module."""


class Shelf(TenantMixin, Base):
    __tablename__ = "deferred_shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)


class Book(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "deferred_books"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    body: Mapped[str | None] = mapped_column(deferred=True)
    first: Mapped[str | None] = mapped_column(deferred=True, deferred_group="names")
    secret: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    shelf_id: Mapped[int | None] = mapped_column(
        ForeignKey("deferred_shelves.id"), deferred=True, deferred_raiseload=True
    )
    shelf: Mapped[Shelf | None] = relationship()

    @property
    def begins(self) -> str:
        return (self.body or "")[:1]


Book.shout = column_property(Book.__table__.c.name + "!", deferred=True)


class Heard(TenantMixin, Base):
    """A class whose loading is listened to, so that its rows are objects."""

    __tablename__ = "deferred_heard"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    body: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)


event.listen(Heard, "load", lambda _target, _context: None)


class ShelfShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    label: str | None


class BookShown(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    shout: str
    begins: str
    secret: str | None
    shelf: ShelfShown | None


class Shelves(AsyncTenantRepository[Book]):
    """A repository of the user's."""

    async def list_paginated(self, options: Any = None) -> Any:
        return await super().list_paginated(options)


GIVEN = {"name": "Ann", "body": "text", "first": "f", "secret": "s"}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


ROUTERS: dict[str, Any] = {
    "derived": lambda: crud_router(Book, prefix="/rows"),
    "own repository": lambda: crud_router(Book, prefix="/rows", repository=Shelves),
    "listener": lambda: crud_router(Heard, prefix="/rows"),
    "own schema": lambda: crud_router(Book, prefix="/rows", read_schema=BookShown),
}


@pytest.mark.parametrize("kind", ROUTERS)
def test_every_route_shows_what_is_deferred(
    app: FastAPI, runner: asyncio.Runner, plugin: DatabasePlugin, kind: str
) -> None:
    app.include_router(ROUTERS[kind]())
    app.include_router(crud_router(Shelf, prefix="/shelves"))
    api = Api(app, runner)
    given: dict[str, Any] = {"name": "Ann", "body": "text"}
    if kind != "listener":
        shelf = api.post("/shelves", tenant="a", json={"label": "top"})
        assert (shelf.status_code, shelf.json()["label"]) == (201, "top")
        given |= {"first": "f", "secret": "s", "shelf_id": shelf.json()["id"]}
    answer = api.post("/rows", tenant="a", json=given)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    if kind == "own schema":
        shown = {"shout": "Ann!", "begins": "t", "secret": "s", "shelf": {"id": given["shelf_id"], "label": "top"}}
    else:
        shown = given
    assert {name: made[name] for name in shown} == shown
    path = answer.headers["location"]
    with counted(plugin.database.async_engine.sync_engine) as sent:
        found = api.get(path, tenant="a")
    assert (found.status_code, found.json()) == (200, made)
    assert len([each for each in sent if each.startswith("SELECT")]) == (2 if kind == "own schema" else 1), sent
    for asked in ("", "?limit=5", "?sort=-name&per_page=3", "?sort=name&limit=1"):
        listed = api.get(f"/rows{asked}", tenant="a")
        assert (listed.status_code, listed.json()["items"]) == (200, [made]), listed.text
    for change in ({"body": "new"}, {"name": "Bea"}, {}):
        changed = api.patch(path, tenant="a", json=change)
        assert changed.status_code == 200, changed.text
        assert changed.json() == api.get(path, tenant="a").json()
    if kind != "listener":
        assert api.delete(path, tenant="a", headers={"If-Match": '"9", "3"'}).status_code == 204
        assert api.post(f"{path}/restore", tenant="a").status_code == 200
        assert api.patch(path, tenant="a", json={"shelf_id": 99}).status_code == 409
        assert api.get("/rows?secret=s&body__like=e&sort=-secret", tenant="a").status_code == (
            422 if kind == "own schema" else 200
        )
