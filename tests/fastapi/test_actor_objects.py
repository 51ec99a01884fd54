"""An actor is any object: the session has the object, and the audit columns have its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import AuditMixin, TenantMixin, create_async_repository, create_repository
from dotmac_database_fastapi import (
    DatabasePlugin,
    get_repository,
    get_session,
    get_sync_repository,
    get_sync_session,
    session_actor,
)
from dotmac_database_fastapi.actors import key_of
from tests.fastapi.conftest import Api, MakePlugin


class Base(DeclarativeBase):
    pass


class Note(TenantMixin, AuditMixin, Base):
    __tablename__ = "actor_note"

    id: Mapped[int] = mapped_column(primary_key=True)


class Person(Base):
    __tablename__ = "actor_person"

    email: Mapped[str] = mapped_column(primary_key=True)


@dataclass(frozen=True)
class User:
    id: object
    email: str = "ada@example.org"


class Plain:
    def __str__(self) -> str:
        return "plain"


@pytest.fixture(scope="module")
def tables() -> Any:
    return Base.metadata


KEYS: dict[str, tuple[object, str | None]] = {
    "none": (None, None),
    "text": ("ada", "ada"),
    "number": (7, "7"),
    "with an id": (User(7), "7"),
    "with a UUID": (User(UUID(int=1)), "00000000-0000-0000-0000-000000000001"),
    "with an id of None": (Plain(), "plain"),
    "a row without a key": (User(None), str(User(None))),
}


@pytest.mark.parametrize(("actor", "key"), KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_request_has_the_object_and_stores_its_key(
    make_plugin: MakePlugin, runner: Any, actor: Any, key: str | None, kind: str
) -> None:
    app, met = FastAPI(), []
    plugin = make_plugin(actor=lambda: actor)
    plugin.install(app)

    @app.post("/async")
    async def by_async(notes: Any = Depends(get_repository(Note)), session: Any = Depends(get_session)) -> Any:
        met.append(session_actor(session))
        return (await notes.create({})).created_by

    @app.post("/sync")
    def by_sync(notes: Any = Depends(get_sync_repository(Note)), session: Any = Depends(get_sync_session)) -> Any:
        met.append(session_actor(session))
        return notes.create({}).created_by

    assert Api(app, runner).post(f"/{kind}", tenant="a").json() == key
    assert met == [actor]
    assert met[0] is actor


def test_the_key_is_chosen_by_a_function() -> None:
    assert key_of(User(7), lambda user: user.email) == "ada@example.org"
    assert key_of(User(7), lambda user: None) is None
    assert key_of(User(7), lambda user: user.id) == "7"
    # A text is a key already: the function is for the objects of the app's own.
    assert key_of("ada", lambda user: user.email) == "ada"
    assert key_of(None, lambda user: user.email) is None


def test_the_sessions_of_a_script_have_it_too(make_plugin: MakePlugin, runner: Any) -> None:
    plugin, user = make_plugin(actor_key=lambda user: user.email), User(7)

    async def by_async() -> Any:
        async with plugin.session("a", user) as session:
            assert session_actor(session) is user
            return (await create_async_repository(session, Note, "a").create({})).created_by

    assert runner.run(by_async()) == "ada@example.org"
    with plugin.sync_session("a", user) as session:
        assert session_actor(session) is user
        assert create_repository(session, Note, "a").create({}).created_by == "ada@example.org"


def test_a_row_is_known_by_its_primary_key(plugin: DatabasePlugin) -> None:
    with plugin.sync_session() as session:
        session.add(person := Person(email="ada@example.org"))
        session.flush()
        assert key_of(person) == "ada@example.org"
        session.expire(person)
        assert key_of(person) == "ada@example.org"
        session.expunge(person)


def test_a_session_of_the_apps_has_the_actor_of_the_request_while_it_lasts(
    make_plugin: MakePlugin, runner: Any
) -> None:
    app, met, user = FastAPI(), [], User(7)
    plugin = make_plugin(actor=lambda: user)
    plugin.install(app)

    @app.get("/")
    async def read(session: Any = Depends(get_session)) -> None:
        met.append(session_actor(session))

    async def calls() -> None:
        async with plugin.session("a", "test") as own:
            app.dependency_overrides[get_session] = lambda: own
            await Api(app, runner).arequest("GET", "/", tenant="a")
            assert session_actor(own) == "test"
        async with AsyncSession(plugin.database.async_engine) as own:
            app.dependency_overrides[get_session] = lambda: own
            await Api(app, runner).arequest("GET", "/", tenant="a")
            assert session_actor(own) is None

    runner.run(calls())
    assert met == [user, user]
    assert session_actor(Session()) is None
