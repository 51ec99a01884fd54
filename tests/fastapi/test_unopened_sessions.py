"""Sessions that can't be opened: the caller gets an error, and nothing of theirs stays behind for the next one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Header
from sqlalchemy import MetaData, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dotmac_database import Database, DatabaseUnavailableError, TenantMixin, current_actor, guard_tenants
from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    get_identity_session,
    get_repository,
    get_session,
    get_sync_identity_session,
    get_sync_repository,
    get_sync_session,
    register_exception_handlers,
)
from tests.fastapi.conftest import Api, MakePlugin


class Base(DeclarativeBase):
    """The tables of these tests."""


class Note(TenantMixin, Base):
    __tablename__ = "unopened_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def stored(database: Database) -> list[tuple[str, str]]:
    with database.engine.connect() as connection:
        rows = connection.execute(select(Note.tenant_id, Note.text).order_by(Note.id))
        return [tuple(row) for row in rows]  # type: ignore[misc]


async def swallowing() -> AsyncIterable[None]:
    with suppress(Exception):
        yield


BAD_TENANTS: dict[str, Any] = {"list": ["a"], "bytes": b"a", "float": 1.5, "blank": " ", "bool": True}


async def odd_tenant(x_tenant: str = Header()) -> Any:
    """A tenant's name, or what an app's own mistake makes of it."""
    return BAD_TENANTS.get(x_tenant, x_tenant)


async def actor(x_user: str | None = Header(None)) -> str | None:
    return x_user


@pytest.fixture
def app(make_plugin: MakePlugin, runner: asyncio.Runner, database: Database) -> Iterator[FastAPI]:
    plugin = make_plugin(tenant=odd_tenant, actor=actor, pool_size=1, max_overflow=0, pool_timeout=60)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Note, "/notes"))

    async def write(session: AsyncSession = Depends(get_session)) -> str | None:
        session.add(Note(text="written"))
        return current_actor()

    def sync_write(session: Session = Depends(get_sync_session)) -> str | None:
        session.add(Note(text="written"))
        return current_actor()

    for name, endpoint in (("async", write), ("sync", sync_write)):
        app.post(f"/{name}")(endpoint)
        app.post(f"/{name}/swallowed", dependencies=[Depends(swallowing, scope="function")])(endpoint)
    yield app
    runner.run(database.dispose_async())  # it lends sessions


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_tenant_that_is_no_name_opens_no_session(
    app: FastAPI, api: Api, database: Database, kind: str, lent: bool
) -> None:
    """With one connection and one slot for ``def`` endpoints, which each refused request would keep."""

    async def lend() -> Any:
        async with guard_tenants(async_sessionmaker(database.async_engine))() as session:
            yield session

    def lend_sync() -> Any:
        with guard_tenants(sessionmaker(database.engine))() as session:
            yield session

    if lent:
        app.dependency_overrides[get_session] = lend
        app.dependency_overrides[get_sync_session] = lend_sync
    for tenant in BAD_TENANTS:
        for path in (f"/{kind}", f"/{kind}/swallowed"):
            answer = api.post(path, headers={"X-Tenant": tenant, "X-User": "eve"})
            assert answer.status_code in (400, 422), (tenant, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
    assert stored(database) == []
    for tenant in ("a", "b"):
        assert api.post(f"/{kind}", headers={"X-Tenant": tenant}).json() is None
        assert api.post(f"/{kind}", headers={"X-Tenant": tenant, "X-User": "ada"}).json() == "ada"
    assert stored(database) == [("a", "written")] * 2 + [("b", "written")] * 2


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else can get meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_transaction_that_cant_begin_leaves_no_caller_behind(
    closed_port: int, runner: asyncio.Runner, kind: str
) -> None:
    """``unlimited`` begins the transaction at once, so the block itself can fail to open."""
    plugin = DatabasePlugin(f"postgresql://nobody@127.0.0.1:{closed_port}/none")
    opened: list[Any] = []

    async def work() -> str | None:
        with pytest.raises(DatabaseUnavailableError):
            async with plugin.session("a", "ada", unlimited=True) as session:
                opened.append(session)
        return current_actor()

    def sync_work() -> str | None:
        with pytest.raises(DatabaseUnavailableError), plugin.sync_session("a", "ada", unlimited=True) as session:
            opened.append(session)
        return current_actor()

    assert (runner.run(work()) if kind == "async" else sync_work()) is None
    assert opened == []
    runner.run(plugin.database.dispose_async())
    plugin.database.dispose()


def test_a_def_endpoint_waits_only_so_long_for_its_slot(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    plugin = make_plugin(pool_size=1, max_overflow=0, pool_timeout=0.05)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.get("/holding")
    async def holding(session: Session = Depends(get_sync_session)) -> None:
        begun.set()
        await may_end.wait()

    @app.get("/waiting")
    def waiting(session: Session = Depends(get_sync_session)) -> None:
        session.execute(select(1))

    api = Api(app, runner)

    async def both() -> tuple[Any, Any]:
        first = asyncio.create_task(api.arequest("GET", "/holding", tenant="a"))
        await begun.wait()
        refused = await api.arequest("GET", "/waiting", tenant="a")
        may_end.set()
        return await first, refused

    first, refused = runner.run(both())
    assert (first.status_code, refused.status_code, refused.json()["code"]) == (200, 503, "timeout")
    assert api.get("/waiting", tenant="a").status_code == 200


@pytest.mark.parametrize("needed", [get_session, get_sync_session, get_repository(Note), get_sync_repository(Note)])
@pytest.mark.parametrize("asks", ["tenant", "actor"])
def test_who_calls_cant_be_asked_of_the_callers_own_session(
    make_plugin: MakePlugin, runner: asyncio.Runner, needed: Any, asks: str
) -> None:
    """The session needs the tenant, which would need the session."""

    async def circular(rows: Any = Depends(needed)) -> str:
        raise AssertionError("it must not run")

    given = {"tenant": odd_tenant, "actor": actor} | {asks: circular}
    plugin = make_plugin(**given)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Note, "/notes"))
    answer = Api(app, runner).get("/notes", headers={"X-Tenant": "a"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_an_endpoint_and_its_tenant_share_the_session_that_only_reads(
    make_plugin: MakePlugin, runner: asyncio.Runner, database: Database, kind: str
) -> None:
    given = get_identity_session if kind == "async" else get_sync_identity_session
    seen: list[Any] = []

    async def tenant(session: Any = Depends(given), x_tenant: str = Header()) -> str:
        seen.append(session)
        return x_tenant

    plugin = make_plugin(tenant=tenant)
    app = FastAPI(lifespan=plugin.lifespan)

    @app.post("/notes")
    async def make(early: Any = Depends(given), notes: Any = Depends(get_repository(Note))) -> int:
        seen.append(early)
        await notes.create({"text": "mine"})
        return await notes.count()  # type: ignore[no-any-return]

    api = Api(app, runner)
    assert [api.post("/notes", headers={"X-Tenant": name}).json() for name in ("a", "b")] == [1, 1]
    assert [seen[0] is seen[1], seen[2] is seen[3], seen[0] is seen[2]] == [True, True, False]
    assert stored(database) == [("a", "mine"), ("b", "mine")]


def test_a_request_may_have_a_session_of_each_kind(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    """The repository's session, and not another of the request, is the one that commits, and exports later."""
    plugin = make_plugin()
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    def count(session: Session = Depends(get_sync_session)) -> None:
        session.execute(select(func.count()).select_from(Note)).scalar_one()

    app.include_router(crud_router(Note, "/notes", dependencies=[Depends(count)], exports={"ndjson"}))
    api = Api(app, runner)
    for tenant in ("a", "b"):
        assert api.post("/notes", tenant=tenant, json={"text": f"of {tenant}"}).status_code == 201
    for tenant in ("a", "b"):
        answer = api.get("/notes", tenant=tenant, headers={"accept": "application/x-ndjson"})
        assert answer.text.count("\n") == 1
        assert f'"of {tenant}"' in answer.text
