"""``app.dependency_overrides[get_session]``: the request keeps its unit of work, its tenant and its actor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, WebSocket
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dotmac_database import (
    ALL_TENANTS,
    Database,
    DatabaseTransaction,
    DatabaseUnavailableError,
    create_async_repository,
    create_repository,
    current_actor,
    guard_tenants,
    unscoped,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    get_repository,
    get_session,
    get_sync_repository,
    get_sync_session,
    register_exception_handlers,
    rerun_route,
)
from tests.fastapi.conftest import Api, MakePlugin
from tests.models import Tag, User

KINDS = ["async", "sync"]
LENDERS = {
    # how the app is given its session: whether another connection sees what a request that succeeded has written
    "fresh": True,
    "held": True,
    "scoped": True,
    "begins": True,  # by the override itself, which commits after the response
    "has read": False,
    "has written": False,
    "block": False,
    "joined": False,
}
OUTCOMES = ["succeeds", "raises", "is refused", "fails in the database", "commits by hand"]
SAMPLE = {
    ("fresh", "raises"),
    ("held", "raises"),
    ("held", "commits by hand"),
    ("has read", "succeeds"),
    ("has written", "raises"),
    ("block", "is refused"),
    ("joined", "succeeds"),
    ("joined", "fails in the database"),
    ("scoped", "raises"),
    ("begins", "commits by hand"),
}


def cells() -> Iterator[Any]:
    for lender in LENDERS:
        for outcome in OUTCOMES:
            for guarded in (False, True):
                sampled = (lender, outcome) in SAMPLE
                marks = () if sampled else (pytest.mark.matrix,)
                yield pytest.param(lender, outcome, guarded, marks=marks, id=f"{lender}-{outcome}-{guarded}")


async def actor(x_user: str | None = Header(None)) -> str | None:
    return x_user


class Lending:
    """A session of the test's own, in the place of the request's."""

    def __init__(self, database: Database, kind: str, lender: str, guarded: bool) -> None:
        self.asynchronous = kind == "async"
        self.lender = lender
        self.engine: Any = database.async_engine if self.asynchronous else database.engine
        self.guarded = guarded
        self.session: Any = None

    def maker(self, bind: Any, **options: Any) -> Any:
        make: Any = async_sessionmaker if self.asynchronous else sessionmaker
        maker = make(bind, expire_on_commit=False, **options)
        return guard_tenants(maker) if self.guarded else maker

    @asynccontextmanager
    async def entered(self, app: FastAPI) -> AsyncIterator[Lending]:
        """Override the app's session."""
        async with AsyncExitStack() as stack:
            override = await self._prepared(stack)
            app.dependency_overrides[get_session if self.asynchronous else get_sync_session] = override
            yield self

    async def _prepared(self, stack: AsyncExitStack) -> Callable[..., Any]:
        if self.lender == "joined":
            connection = await self._into(stack, self.engine.connect())
            transaction = await self.done(connection.begin())
            stack.push_async_callback(self.done_later, transaction.rollback)
            maker = self.maker(connection, join_transaction_mode="create_savepoint")
        else:
            maker = self.maker(self.engine)
        if self.lender in ("fresh", "begins"):
            return self._opening(maker.begin if self.lender == "begins" else maker)
        if self.lender == "scoped":
            make: Any = async_scoped_session if self.asynchronous else scoped_session
            self.session = make(maker, scopefunc=lambda: 1)
            stack.push_async_callback(self.done_later, self.session.remove)
        else:
            self.session = await self._into(stack, maker())
        if self.lender == "has read":
            await self.done(self.session.connection())
        if self.lender == "has written":
            self.session.add(Tag(name="lender's", tenant_id="a"))
        if self.lender == "block":
            ways = DatabaseTransaction.async_transaction, DatabaseTransaction.sync_transaction
            await self._into(stack, ways[not self.asynchronous](self.session))
        return lambda: self.session

    def _opening(self, maker: Any) -> Callable[..., Any]:
        async def in_async() -> Any:
            async with maker() as session:
                yield session

        def in_sync() -> Any:
            with maker() as session:
                yield session

        return in_async if self.asynchronous else in_sync

    async def _into(self, stack: AsyncExitStack, block: Any) -> Any:
        return await stack.enter_async_context(block) if self.asynchronous else stack.enter_context(block)

    async def done(self, work: Any) -> Any:
        return await work if self.asynchronous else work

    async def done_later(self, work: Callable[[], Any]) -> None:
        await self.done(work())

    async def names(self) -> list[str]:
        """What the lender's own session sees."""
        statement = select(Tag.name).order_by(Tag.name)
        if self.session is None:
            return []
        session = self.session() if isinstance(self.session, (scoped_session, async_scoped_session)) else self.session
        with unscoped(session, reason="the test looks") if self.guarded else nullcontext():
            connection = await self.done(session.connection())
            return list((await self.done(connection.execute(statement))).scalars())


def committed(database: Database) -> list[str]:
    """What another connection sees."""
    with database.engine.connect() as connection:
        return list(connection.execute(select(Tag.name).order_by(Tag.name)).scalars())


def build(plugin: DatabasePlugin, outcome: str) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    def ends() -> None:
        if outcome == "raises":
            raise RuntimeError("of the endpoint's own")
        if outcome == "is refused":
            raise HTTPException(418)

    @app.post("/async")
    async def asynchronous(tags: Any = Depends(get_repository(Tag)), users: Any = Depends(get_repository(User))) -> Any:
        tag = await tags.create({"name": "one"})
        user = await users.create({"name": "Ann"})
        await users.for_update().get_by_id(user.id)
        if outcome == "fails in the database":
            await tags.create({"id": tag.id, "name": "two"})
        if outcome == "commits by hand":
            await tags.db.commit()
        ends()
        return {"created_by": user.created_by, "tenant": user.tenant_id}

    @app.post("/sync")
    def synchronous(
        tags: Any = Depends(get_sync_repository(Tag)), users: Any = Depends(get_sync_repository(User))
    ) -> Any:
        tag = tags.create({"name": "one"})
        user = users.create({"name": "Ann"})
        users.for_update().get_by_id(user.id)
        if outcome == "fails in the database":
            tags.create({"id": tag.id, "name": "two"})
        if outcome == "commits by hand":
            tags.db.commit()
        ends()
        return {"created_by": user.created_by, "tenant": user.tenant_id}

    return app


STATUSES = {"succeeds": 200, "raises": 500, "commits by hand": 200, "is refused": 418, "fails in the database": 409}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("lender", "outcome", "guarded"), list(cells()))
def test_the_unit_of_work(
    make_plugin: MakePlugin,
    runner: asyncio.Runner,
    database: Database,
    kind: str,
    lender: str,
    outcome: str,
    guarded: bool,
) -> None:
    app = build(make_plugin(actor=actor), outcome)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def work() -> None:
        lending = Lending(database, kind, lender, guarded)
        try:
            with suppress(_HandEndedError):
                async with lending.entered(app):
                    await requested(lending)
                    await raise_where_ended_by_hand(lending)
        finally:
            if kind == "async":
                await database.async_engine.dispose()

    async def requested(lending: Lending) -> None:
        outer = ["lender's"] if lender == "has written" else []
        answer = await client.post(f"/{kind}", headers={"X-Tenant-ID": "a", "X-User": "ann"})
        # A block around the request is the lender's to commit: who ends it by hand has ended it.
        by_hand = outcome == "commits by hand" and lender == "block"
        assert answer.status_code == (500 if by_hand else STATUSES[outcome]), answer.text
        if answer.status_code == 200:
            assert answer.json() == {"created_by": "ann", "tenant": "a"}
        written = ["one"] if outcome in ("succeeds", "commits by hand") else []
        if outcome == "commits by hand":
            seen = written + outer if lender != "joined" else []
        else:
            seen = written if LENDERS[lender] else []
        assert committed(database) == sorted(seen)
        if lending.session is not None and not by_hand:
            assert await lending.names() == sorted(written + outer)
        assert current_actor() is None

    runner.run(work())


class _HandEndedError(Exception):
    """Leaves the lender's block, whose transaction the endpoint has ended."""


async def raise_where_ended_by_hand(lending: Lending) -> None:
    if lending.lender == "block":
        raise _HandEndedError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lender", ["held", "has read", "joined"])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_held_session_serves_one_request_after_another(
    make_plugin: MakePlugin, runner: asyncio.Runner, database: Database, kind: str, lender: str, guarded: bool
) -> None:
    """Each for its own tenant; nothing of one is seen by the next."""
    plugin = make_plugin()
    app = FastAPI(lifespan=plugin.lifespan)

    @app.post("/async")
    async def asynchronous(name: str, tags: Any = Depends(get_repository(Tag))) -> list[str]:
        await tags.create({"name": name})
        return [tag.name for tag in await tags.list()]

    @app.post("/sync")
    def synchronous(name: str, tags: Any = Depends(get_sync_repository(Tag))) -> list[str]:
        tags.create({"name": name})
        return [tag.name for tag in tags.list()]

    api = Api(app, runner)

    async def work() -> list[Any]:
        try:
            async with Lending(database, kind, lender, guarded).entered(app):
                order = [("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]
                answers = [await api.arequest("POST", f"/{kind}?name={name}", tenant=tenant) for tenant, name in order]
        finally:
            if kind == "async":
                await database.async_engine.dispose()
        return [answer.json() for answer in answers]

    assert runner.run(work()) == [["1"], ["2"], ["1", "3"], ["2", "4"]]


@pytest.fixture
def held(database: Database, runner: asyncio.Runner) -> Iterator[AsyncSession]:
    """A guarded session of the test's own."""
    session = guard_tenants(async_sessionmaker(database.async_engine, expire_on_commit=False))()
    yield session
    runner.run(session.close())
    runner.run(database.async_engine.dispose())


class TestWhatIsLent:
    def test_a_hand_written_statement_is_confined(
        self, app: FastAPI, api: Api, held: AsyncSession, database: Database
    ) -> None:
        with database.sessions() as session:
            create_repository(session, Tag, "a").create({"name": "a's"})
            create_repository(session, Tag, "b").create({"name": "b's"})

        @app.get("/")
        async def endpoint(session: Any = Depends(get_session)) -> list[str]:
            return list(await session.scalars(select(Tag.name)))

        app.dependency_overrides[get_session] = lambda: held
        assert api.get("/", tenant="b").json() == ["b's"]
        assert api.get("/", tenant="a").json() == ["a's"]
        assert api.get("/").status_code == 400

    def test_a_row_added_by_hand_is_stamped_and_flushed(
        self, app: FastAPI, api: Api, held: AsyncSession, database: Database
    ) -> None:
        @app.post("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            session.add(Tag(name="one"))

        app.dependency_overrides[get_session] = lambda: held
        assert api.post("/", tenant="a").status_code == 200
        assert committed(database) == ["one"]

    def test_it_is_bound_to_nobody_afterwards(self, app: FastAPI, api: Api, held: AsyncSession) -> None:
        @app.post("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> None:
            await tags.create({"name": "one"})

        app.dependency_overrides[get_session] = lambda: held
        assert api.post("/", tenant="a").status_code == 200

        async def after() -> list[str]:
            await create_async_repository(held, Tag, "b").create({"name": "two"})
            return [tag.name for tag in await create_async_repository(held, Tag, "b").list()]

        assert api.run(after()) == ["two"]

    @pytest.mark.parametrize("guarded", [False, True])
    def test_all_tenants(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database, held: AsyncSession, guarded: bool
    ) -> None:
        plugin = make_plugin(tenant=lambda: ALL_TENANTS)
        app = FastAPI(lifespan=plugin.lifespan)

        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> int:
            return int(await tags.count())

        with database.sessions() as session:
            for tenant in "ab":
                create_repository(session, Tag, tenant).create({"name": tenant})
        plain = async_sessionmaker(database.async_engine)

        async def override() -> Any:
            if guarded:
                yield held
                return
            async with plain() as session:
                yield session

        app.dependency_overrides[get_session] = override
        assert Api(app, runner).get("/").json() == 2

    def test_a_bad_tenant_and_an_unknown_caller_are_refused(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, held: AsyncSession
    ) -> None:
        def nobody(x_user: str | None = Header(None)) -> str:
            if x_user is None:
                raise HTTPException(401)
            return x_user

        plugin = make_plugin(actor=nobody)
        app = FastAPI(lifespan=plugin.lifespan)

        @app.get("/")
        async def endpoint(session: Any = Depends(get_session)) -> None: ...

        app.dependency_overrides[get_session] = lambda: held
        api = Api(app, runner)
        assert api.get("/", tenant="a").status_code == 401
        assert api.get("/", tenant="no such thing", headers={"X-User": "ann"}).status_code == 400

    def test_what_is_no_session_is_given_as_it_is(self, app: FastAPI, api: Api) -> None:
        @app.get("/")
        async def endpoint(session: Any = Depends(get_session)) -> Any:
            return session

        app.dependency_overrides[get_session] = lambda: "a mock"
        assert api.get("/", tenant="a").json() == "a mock"

    @pytest.mark.parametrize("plugins", [0, 2])
    def test_an_app_whose_plugin_is_not_known_has_the_unit_of_work(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database, plugins: int
    ) -> None:
        app = FastAPI()
        for number in range(plugins):
            make_plugin(name=f"plugin {number}").install(app)

        @app.post("/")
        async def endpoint(fails: bool, session: Any = Depends(get_session)) -> None:
            session.add(Tag(name="one", tenant_id="a"))
            await session.flush()
            if fails:
                raise HTTPException(418)

        maker = async_sessionmaker(database.async_engine)

        async def override() -> Any:
            async with maker() as session:
                yield session

        app.dependency_overrides[get_session] = override
        api = Api(app, runner)
        assert api.post("/?fails=true", tenant="a").status_code == 418
        assert committed(database) == []
        assert api.post("/?fails=false", tenant="a").status_code == 200
        assert committed(database) == ["one"]
        runner.run(database.async_engine.dispose())

    def test_another_plugins_session_is_whole_already(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database
    ) -> None:
        """A savepoint in a lazy unit would begin a transaction for a read."""
        plugin, other = make_plugin(), make_plugin(name="other")
        app = FastAPI(lifespan=plugin.lifespan)

        @app.get("/")
        async def endpoint(session: Any = Depends(get_session)) -> bool:
            return bool(session.in_transaction())

        app.dependency_overrides[get_session] = other.get_session
        assert Api(app, runner).get("/", tenant="a").json() is False

    def test_a_request_asks_once(self, app: FastAPI, api: Api, held: AsyncSession, plugin: DatabasePlugin) -> None:
        """With whatever scope: the second is within the first one's unit."""

        async def scoped(session: Any = Depends(get_session, scope="function")) -> Any:
            return session

        @app.post("/")
        async def endpoint(
            one: Any = Depends(get_session), two: Any = Depends(scoped), three: Any = Depends(plugin.get_session)
        ) -> Any:
            one.add(Tag(name="one"))
            return [one is two, two is three]

        app.dependency_overrides[get_session] = lambda: held
        app.dependency_overrides[plugin.get_session] = lambda: held
        assert api.post("/", tenant="a").json() == [True, True]

    def test_a_websocket(self, app: FastAPI, held: AsyncSession, runner: asyncio.Runner, database: Database) -> None:
        @app.websocket("/")
        async def endpoint(websocket: WebSocket, tags: Any = Depends(get_repository(Tag))) -> None:
            await websocket.accept()
            await tags.create({"name": "one"})
            await websocket.close()

        app.dependency_overrides[get_session] = lambda: held
        scope = {
            "type": "websocket",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"x-tenant-id", b"a")],
            "subprotocols": [],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        runner.run(app(scope, receive, send))  # type: ignore[arg-type]
        assert sent == ["websocket.accept", "websocket.close"]
        assert committed(database) == ["one"]

    def test_a_request_that_is_run_again(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, held: AsyncSession, database: Database
    ) -> None:
        plugin = make_plugin()
        app = FastAPI(lifespan=plugin.lifespan)
        app.router.route_class = rerun_route()
        attempts: list[int] = []

        @app.put("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> int:
            attempts.append(len(attempts))
            await tags.create({"name": f"attempt {len(attempts)}"})
            if len(attempts) == 1:
                raise DatabaseUnavailableError("It passes by itself.")
            return len(attempts)

        app.dependency_overrides[get_session] = lambda: held
        assert Api(app, runner).request("PUT", "/", tenant="a").json() == 2
        assert committed(database) == ["attempt 2"]


class TestTheMapping:
    """The user's own, in every other respect."""

    def test_it_reads_and_changes_as_a_dict(self, app: FastAPI) -> None:
        replacement = lambda: None  # noqa: E731
        app.dependency_overrides[get_session] = replacement
        assert app.dependency_overrides[get_session] is replacement
        assert get_session in app.dependency_overrides
        assert dict(app.dependency_overrides) == {get_session: replacement}
        app.dependency_overrides |= {get_sync_session: replacement}
        assert len(app.dependency_overrides) == 2
        assert app.dependency_overrides.pop(get_session) is replacement
        app.dependency_overrides.clear()
        assert app.dependency_overrides == {}

    def test_a_mapping_that_is_assigned_stays_the_users(self, app: FastAPI, api: Api, held: AsyncSession) -> None:
        mine: dict[Any, Any] = {}

        @app.get("/")
        async def endpoint(session: Any = Depends(get_session)) -> bool:
            return session is held

        app.dependency_overrides = mine
        assert api.get("/", tenant="a").json() is False
        mine[get_session] = lambda: held
        assert api.get("/", tenant="a").json() is True

    def test_monkeypatch_puts_back_what_was_there(
        self, app: FastAPI, monkeypatch: pytest.MonkeyPatch, held: AsyncSession
    ) -> None:
        before = lambda: held  # noqa: E731
        app.dependency_overrides[get_session] = before
        with monkeypatch.context() as patched:
            patched.setitem(app.dependency_overrides, get_session, lambda: "another")
        again = app.dependency_overrides.get(get_session)
        assert app.dependency_overrides.get(get_session) is again

    def test_apps_do_not_share_it(self, app: FastAPI) -> None:
        app.dependency_overrides[get_session] = lambda: None
        assert FastAPI().dependency_overrides == {}


def test_a_sync_session_is_not_used_in_the_event_loop(app: FastAPI, api: Api, database: Database) -> None:
    """A savepoint is sent from a thread, as all that a sync session sends is."""
    import threading

    from sqlalchemy import event

    threads: set[str] = set()
    session = sessionmaker(database.engine, expire_on_commit=False)()
    session.connection()
    event.listen(session.connection(), "savepoint", lambda *_: threads.add(threading.current_thread().name))

    @app.post("/")
    def endpoint(session: Session = Depends(get_sync_session)) -> None:
        session.add(Tag(name="one", tenant_id="a"))

    app.dependency_overrides[get_sync_session] = lambda: session
    assert api.post("/", tenant="a").status_code == 200
    session.close()
    assert threads
    assert threading.current_thread().name not in threads
