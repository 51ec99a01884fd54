"""The tenant and the actor that come from the logged-in user."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import ForeignKey, MetaData, String, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    AsyncRepository,
    AuditMixin,
    BaseRepository,
    Database,
    create_async_repository,
    create_repository,
)
from dotmac_database_fastapi import (
    Caller,
    DatabasePlugin,
    get_caller,
    get_identity_session,
    get_repository,
    get_session,
    get_sync_identity_session,
    get_sync_repository,
    register_exception_handlers,
)
from tests.fastapi.shared_routers import crud_router

from .conftest import Api, MakePlugin


class Base(DeclarativeBase):
    pass


class Person(Base):
    """A user who logs in: of no tenant, but with the organisation whose rows he sees."""

    __tablename__ = "caller_person"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(40), unique=True)
    org_id: Mapped[UUID]


class Note(AuditMixin, Base):
    __tablename__ = "caller_note"
    __tenant_column__ = "org_id"

    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[UUID]
    title: Mapped[str] = mapped_column(String(40))
    author_id: Mapped[int | None] = mapped_column(ForeignKey("caller_person.id"))


ORGS = {"ada": uuid4(), "bob": uuid4()}
bearer = HTTPBearer()
reads: list[str] = []


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture(autouse=True)
def rows(database: Database) -> None:
    reads.clear()
    with Session(database.engine) as session:
        people = [Person(token=name, org_id=org) for name, org in ORGS.items()]
        for person in people:
            session.add(person)
            session.flush()
        session.add_all(Note(org_id=person.org_id, title=f"of {person.token}") for person in people)
        session.commit()


async def user(
    credentials: HTTPAuthorizationCredentials = Depends(bearer), session: AsyncSession = Depends(get_identity_session)
) -> Person:
    reads.append(credentials.credentials)
    people = create_async_repository(session, Person)
    person = await people.get_by_field("token", credentials.credentials)
    if person is None:
        raise HTTPException(401, "Who are you?")
    return person


def sync_user(
    credentials: HTTPAuthorizationCredentials = Depends(bearer), session: Session = Depends(get_sync_identity_session)
) -> Person:
    reads.append(credentials.credentials)
    person = create_repository(session, Person).get_by_field("token", credentials.credentials)
    if person is None:
        raise HTTPException(401, "Who are you?")
    return person


async def user_if_any(
    credentials: HTTPAuthorizationCredentials | None = Depends(HTTPBearer(auto_error=False)),
    session: AsyncSession = Depends(get_identity_session),
) -> Person | None:
    return None if credentials is None else await user(credentials, session)


async def tenant_if_any(person: Person | None = Depends(user_if_any)) -> UUID:
    if person is None:
        raise HTTPException(401, "Who are you?")
    return person.org_id


async def tenant(person: Person = Depends(user)) -> UUID:
    return person.org_id


async def sync_tenant(person: Person = Depends(sync_user)) -> UUID:
    return person.org_id


KINDS: dict[str, dict[str, Any]] = {
    "async": {"tenant": tenant, "actor": user},
    "sync": {"tenant": sync_tenant, "actor": sync_user},
    "tenant alone": {"tenant": tenant},
    "a user if any": {"tenant": tenant_if_any, "actor": user_if_any},
}


@pytest.fixture(params=KINDS)
def plugin(request: pytest.FixtureRequest, make_plugin: MakePlugin) -> DatabasePlugin:
    # With one connection, a request that needed a second one would wait for ever.
    return make_plugin(**KINDS[request.param], pool_size=1, max_overflow=0, pool_timeout=60)


@pytest.fixture
def app(plugin: DatabasePlugin) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Note, "/notes"))

    @app.get("/me")
    async def me(caller: Caller[UUID, Person | None] = Depends(get_caller)) -> dict[str, Any]:
        return {"tenant": caller.tenant, "name": caller.actor and caller.actor.token}

    @app.post("/login")
    async def login(token: str, people: AsyncRepository[Person] = Depends(get_repository(Person))) -> int:
        return (await people.get_by_field("token", token)).id  # type: ignore[union-attr]

    @app.post("/sync-login")
    def sync_login(token: str, people: BaseRepository[Person] = Depends(get_sync_repository(Person))) -> int:
        return people.get_by_field("token", token).id  # type: ignore[union-attr]

    @app.post("/signup")
    async def signup(token: str, people: AsyncRepository[Person] = Depends(get_repository(Person))) -> int:
        return (await people.create({"token": token, "org_id": uuid4()})).id

    @app.get("/both")
    async def both(
        people: AsyncRepository[Person] = Depends(get_repository(Person)),
        notes: AsyncRepository[Note] = Depends(get_repository(Note)),
        caller: Caller[UUID, Person] = Depends(get_caller),
    ) -> list[int]:
        return [await people.count(), await notes.count()]

    @app.get("/session")
    async def session(session: AsyncSession = Depends(get_session)) -> list[str]:
        return list(await session.scalars(select(Note.title)))

    @app.post("/write-as-nobody")
    async def write(session: AsyncSession = Depends(get_identity_session)) -> None:
        session.add(Person(token="x", org_id=uuid4()))
        await session.flush()

    return app


def as_(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def test_rows_of_the_users_tenant(api: Api, plugin: DatabasePlugin) -> None:
    for name, other in (("ada", "bob"), ("bob", "ada")):
        listed = api.get("/notes", headers=as_(name)).json()
        assert [each["title"] for each in listed["items"]] == [f"of {name}"]
        assert api.get("/session", headers=as_(name)).json() == [f"of {name}"]
        written = api.post("/notes", headers=as_(name), json={"title": "new"})
        assert written.status_code == 201, written.text
        path = written.headers["location"]
        assert written.json()["created_by"] == (None if plugin.actor is None else str(list(ORGS).index(name) + 1))
        assert api.get(path, headers=as_(other)).status_code == 404
        assert api.get(path, headers=as_("nobody")).status_code == 401
        assert api.get(path).status_code == 401
    assert api.get("/notes", headers=as_("ada")).json()["total"] == 2


def test_the_user_is_read_once_a_request(api: Api) -> None:
    for path in ("/me", "/notes", "/both", "/session"):
        reads.clear()
        assert api.get(path, headers=as_("ada")).status_code == 200
        assert reads == ["ada"], path


def test_the_caller_is_what_the_dependencies_returned(api: Api, plugin: DatabasePlugin) -> None:
    expected = {"tenant": str(ORGS["bob"]), "name": None if plugin.actor is None else "bob"}
    assert api.get("/me", headers=as_("bob")).json() == expected
    assert api.get("/me").status_code == 401
    assert api.get("/both", headers=as_("bob")).json() == [2, 1]


def test_a_session_for_the_identity_only_reads(api: Api) -> None:
    assert api.post("/write-as-nobody").status_code == 500
    assert api.get("/both", headers=as_("bob")).json() == [2, 1]


@pytest.mark.parametrize("path", ["/login", "/sync-login"])
def test_log_in_asks_for_no_tenant(api: Api, plugin: DatabasePlugin, path: str) -> None:
    if plugin.actor in (user, sync_user):
        assert api.post(path, params={"token": "bob"}).status_code == 401  # the actor is asked for each write
        return
    assert api.post(path, params={"token": "bob"}).json() == 2
    assert api.post("/signup", params={"token": "eve"}).status_code == 200
    assert api.post(path, params={"token": "eve"}).status_code == 200
    assert reads == []
