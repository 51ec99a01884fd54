"""One session and one transaction for each request."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterable, Iterable
from typing import Annotated, Any

import pytest
from anyio import CancelScope
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import (
    ALL_TENANTS,
    Database,
    DatabaseTransaction,
    SessionEndedError,
    acting_as,
    create_repository,
    current_actor,
    on_commit,
)
from dotmac_database_fastapi import DatabasePlugin, get_repository, get_session, get_sync_repository, get_sync_session
from tests.conftest import counted
from tests.fastapi.conftest import Api, MakePlugin, checked_out
from tests.models import Country, Tag, User


def tags(database: Database, tenant: Any = "a") -> list[str]:
    """What is committed, seen by a connection of its own."""
    with database.sessions() as session:
        return sorted(tag.name for tag in create_repository(session, Tag, tenant).list())


class TestOneTransaction:
    def test_session_and_repositories_are_one(self, app: FastAPI, api: Api, plugin: DatabasePlugin) -> None:
        @app.get("/")
        async def endpoint(
            session: Annotated[AsyncSession, Depends(get_session)],
            same: Any = Depends(plugin.get_session),
            tags: Any = Depends(get_repository(Tag)),
            users: Any = Depends(plugin.get_repository(User)),
        ) -> list[bool]:
            return [session is same, tags.db is session, users.db is session, tags.tenant_id == "a"]

        assert api.get("/", tenant="a").json() == [True] * 4

    def test_what_all_repositories_wrote_is_committed_together(
        self, app: FastAPI, api: Api, database: Database
    ) -> None:
        @app.post("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag)), session: Any = Depends(get_session)) -> None:
            await tags.create({"name": "one"})
            session.add(Tag(name="two"))

        assert api.post("/", tenant="a").status_code == 200
        assert tags(database) == ["one", "two"]

    @pytest.mark.parametrize("kind", ["handler", "http", "dependency", "response"])
    def test_any_exception_rolls_everything_back(self, app: FastAPI, api: Api, database: Database, kind: str) -> None:
        class Answer(BaseModel):
            number: int

        async def written(tags: Any = Depends(get_repository(Tag))) -> None:
            await tags.create({"name": "one"})

        async def fails(_: Any = Depends(written)) -> None:
            if kind == "dependency":
                raise HTTPException(418)

        @app.post("/", response_model=Answer)
        async def endpoint(_: Any = Depends(fails)) -> Any:
            match kind:
                case "handler":
                    raise LookupError("mine")
                case "http":
                    raise HTTPException(418)
                case _:
                    return {"number": "none"}

        if kind in ("handler", "response"):
            with pytest.raises(Exception, match=r"mine|number"):
                api.post("/", tenant="a")
        else:
            assert api.post("/", tenant="a").status_code == 418
        assert tags(database) == []

    def test_a_user_dependency_that_fails_at_its_end_rolls_back(
        self, app: FastAPI, api: Api, database: Database
    ) -> None:
        async def ends_badly(tags: Any = Depends(get_repository(Tag))) -> Any:
            yield tags
            raise HTTPException(409)

        @app.post("/")
        async def endpoint(tags: Any = Depends(ends_badly, scope="function")) -> None:
            await tags.create({"name": "one"})

        assert api.post("/", tenant="a").status_code == 409
        assert tags(database) == []

    def test_an_error_of_a_write_leaves_the_rest_of_the_request_intact(
        self, app: FastAPI, api: Api, database: Database
    ) -> None:
        @app.post("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> None:
            await tags.create({"id": 1, "name": "one"})
            with pytest.raises(Exception, match="exists"):
                await tags.create({"id": 1, "name": "again"})
            await tags.create({"id": 2, "name": "two"})

        assert api.post("/", tenant="a").status_code == 200
        assert tags(database) == ["one", "two"]

    def test_a_session_used_after_its_request_says_so(self, app: FastAPI, api: Api) -> None:
        kept: list[AsyncSession] = []

        @app.get("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            kept.append(session)

        api.get("/", tenant="a")
        with pytest.raises(SessionEndedError, match=r"plugin\.session"):
            api.run(kept[0].scalar(select(func.count()).select_from(Tag)))

    @pytest.mark.parametrize("method", ["count", "list", "create", "update", "in a transaction"])
    def test_a_repository_used_after_its_request_says_so(self, app: FastAPI, api: Api, method: str) -> None:
        kept: list[Any] = []

        @app.get("/")
        async def endpoint(rows: Any = Depends(get_repository(Tag))) -> None:
            kept.append(rows)

        async def use() -> None:
            if method == "in a transaction":
                async with DatabaseTransaction.async_transaction(kept[0].db):
                    await kept[0].count()
            given = {"create": ({"id": 1, "name": "one"},), "update": (1, {"name": "two"})}
            await getattr(kept[0], method)(*given.get(method, ()))

        api.get("/", tenant="a")
        with pytest.raises(SessionEndedError):
            api.run(use())

    def test_a_cancelled_request_does_not_interrupt_its_commit(
        self, app: FastAPI, api: Api, database: Database
    ) -> None:
        scopes: list[CancelScope] = []
        done: list[str] = []

        # FastAPI shields dependencies that are generators, but the session is not one.
        @app.post("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> None:
            await tags.create({"name": "one"})
            on_commit(tags.db, lambda: done.append("committed"))
            scopes[0].cancel()  # the next await raises, unless it is shielded

        async def run() -> None:
            with CancelScope() as scope:
                scopes.append(scope)
                await api.arequest("POST", "/", tenant="a")

        api.run(run())
        assert done == ["committed"]
        assert tags(database) == ["one"]


class TestReads:
    def test_reads_before_the_first_write_hold_no_connection(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin
    ) -> None:
        held: list[int] = []

        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> None:
            await tags.list()
            held.append(checked_out(plugin))
            await tags.create({"name": "one"})
            held.append(checked_out(plugin))
            await tags.list()
            held.append(checked_out(plugin))

        api.get("/", tenant="a")
        api.get("/", tenant="a")
        # The engine's first connection asks for the isolation level, which decides.
        assert held[3:] == [0, 1, 1]

    @pytest.mark.fast_way("autocommit")
    def test_a_request_that_reads_sends_its_statement_alone(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, dialect: str
    ) -> None:
        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> int:
            return len(await tags.list())

        api.get("/", tenant="a")
        with counted(plugin.database.async_engine.sync_engine) as sent:
            api.get("/", tenant="a")
        assert len(sent) == 1 or dialect == "sqlite"
        assert sum("tags" in statement for statement in sent) == 1

    def test_a_request_that_asks_nothing_opens_no_connection(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin
    ) -> None:
        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag)), session: Any = Depends(get_session)) -> None:
            pass

        assert api.get("/", tenant="a").status_code == 200
        assert "async_engine" not in plugin.database.__dict__ or not plugin.database.async_engine.pool.checkedin()


class TestSyncEndpoints:
    def test_def_endpoints_have_a_session_of_their_own(self, app: FastAPI, api: Api, database: Database) -> None:
        @app.post("/")
        def endpoint(
            tags: Any = Depends(get_sync_repository(Tag)), session: Any = Depends(get_sync_session)
        ) -> list[bool]:
            tags.create({"name": "one"})
            session.add(Tag(name="two"))
            return [tags.db is session, isinstance(session, Session)]

        assert api.post("/", tenant="a").json() == [True, True]
        assert tags(database) == ["one", "two"]
        assert tags(database, "b") == []

    def test_def_endpoints_roll_back(self, app: FastAPI, api: Api, database: Database) -> None:
        @app.post("/")
        def endpoint(tags: Any = Depends(get_sync_repository(Tag))) -> None:
            tags.create({"name": "one"})
            raise HTTPException(418)

        assert api.post("/", tenant="a").status_code == 418
        assert tags(database) == []

    def test_many_def_endpoints_share_a_small_pool(
        self, make_plugin: MakePlugin, database: Database, runner: asyncio.Runner
    ) -> None:
        plugin = make_plugin(pool_size=2, max_overflow=0, pool_timeout=60)
        app = FastAPI(lifespan=plugin.lifespan)

        @app.post("/{name}")
        def endpoint(name: str, tags: Any = Depends(get_sync_repository(Tag))) -> None:
            tags.create({"name": name})

        api = Api(app, runner)

        async def burst() -> list[int]:
            answers = await asyncio.gather(*(api.arequest("POST", f"/{n}", tenant="a") for n in range(120)))
            return [answer.status_code for answer in answers]

        assert api.run(burst()) == [200] * 120
        assert len(tags(database)) == 120

    def test_the_session_of_a_request_that_only_reads_ends_too(self, app: FastAPI, api: Api) -> None:
        kept: list[Any] = []

        @app.get("/")
        def endpoint(tags: Any = Depends(get_sync_repository(Tag))) -> int:
            kept.append(tags)
            return int(tags.count())

        assert api.get("/", tenant="a").json() == 0
        with pytest.raises(SessionEndedError):
            kept[0].count()

    def test_a_callback_is_called_in_a_thread_even_if_nothing_was_written(self, app: FastAPI, api: Api) -> None:
        threads: list[threading.Thread] = []

        @app.get("/")
        def endpoint(session: Any = Depends(get_sync_session)) -> None:
            on_commit(session, lambda: threads.append(threading.current_thread()))

        assert api.get("/", tenant="a").status_code == 200
        assert len(threads) == 1
        assert threads[0] is not threading.current_thread()


class TestActor:
    def test_writes_name_the_actor(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        async def actor(who: str = "nobody") -> str:
            return who

        plugin = make_plugin(actor=actor)
        app = FastAPI(lifespan=plugin.lifespan)

        @app.post("/async")
        async def asynchronous(users: Any = Depends(get_repository(User))) -> str | None:
            return (await users.create({"name": "Ann"})).created_by

        @app.post("/sync")
        def synchronous(users: Any = Depends(get_sync_repository(User))) -> str | None:
            return users.create({"name": "Ann"}).created_by

        api = Api(app, runner)
        with acting_as("outside"):
            assert api.post("/async?who=ann", tenant="a").json() == "ann"
            assert api.post("/sync?who=ben", tenant="a").json() == "ben"
        assert current_actor() is None


class TestOverrides:
    def test_the_same_arguments_give_the_same_dependency(self, plugin: DatabasePlugin) -> None:
        assert get_repository(Tag) is get_repository(Tag)
        assert get_sync_repository(Tag) is get_sync_repository(Tag)
        assert plugin.get_repository(Tag) is plugin.get_repository(Tag)
        assert get_repository(Tag) is not get_repository(User)
        assert get_repository(Tag) is not get_sync_repository(Tag)
        assert get_repository(Tag) is not plugin.get_repository(Tag)

    def test_a_repository_can_be_replaced(self, app: FastAPI, api: Api) -> None:
        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> Any:
            return tags

        app.dependency_overrides[get_repository(Tag)] = lambda: "mine"
        assert api.get("/").json() == "mine"

    @pytest.mark.parametrize("of_plugin", [False, True])
    def test_replacing_the_session_moves_the_repositories(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, database: Database, of_plugin: bool
    ) -> None:
        source: Any = plugin.get_session if of_plugin else get_session
        get = plugin.get_repository if of_plugin else get_repository

        @app.post("/")
        async def endpoint(tags: Any = Depends(get(Tag))) -> bool:
            await tags.create({"name": "one"})
            return tags.db.info.get("replaced", False)

        async def replacement() -> Any:
            async with database.async_sessions(info={"replaced": True}) as session:
                yield session

        app.dependency_overrides[source] = replacement
        answer = api.post("/", tenant="a")
        api.run(database.async_engine.dispose())
        database.__dict__.pop("async_engine")
        database.__dict__.pop("async_sessions")
        assert answer.json() is True
        assert tags(database) == ["one"]

    def test_the_tenant_can_be_replaced(self, app: FastAPI, api: Api, plugin: DatabasePlugin) -> None:
        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> str:
            return str(tags.tenant_id)

        app.dependency_overrides[plugin.tenant] = lambda: "replaced"
        assert api.get("/").json() == "replaced"


class TestSessionsOfTheirOwn:
    def test_a_block_commits(self, plugin: DatabasePlugin, database: Database, runner: asyncio.Runner) -> None:
        async def work() -> None:
            async with plugin.session(tenant="a", actor="job") as session:
                session.add(Tag(name="one"))

        runner.run(work())
        assert tags(database) == ["one"]

    def test_a_block_rolls_back(self, plugin: DatabasePlugin, database: Database, runner: asyncio.Runner) -> None:
        async def work() -> None:
            async with plugin.session(tenant="a") as session:
                session.add(Tag(name="one"))
                await session.flush()
                raise LookupError

        with pytest.raises(LookupError):
            runner.run(work())
        assert tags(database) == []

    def test_a_block_is_confined(self, plugin: DatabasePlugin, database: Database, runner: asyncio.Runner) -> None:
        async def count(tenant: Any) -> int:
            async with plugin.session(tenant=tenant) as session:
                return len((await session.scalars(select(Tag))).all())

        with database.sessions.begin() as session:
            session.add_all([Tag(name="one", tenant_id="a"), Tag(name="two", tenant_id="b")])
        assert runner.run(count("a")) == 1
        assert runner.run(count(ALL_TENANTS)) == 2
        with pytest.raises(Exception, match="tenant"):
            runner.run(count(None))

    def test_a_background_task_writes_after_the_response(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, database: Database
    ) -> None:
        async def later(tenant: str) -> None:
            async with plugin.session(tenant=tenant) as session:
                session.add(Tag(name="later"))

        @app.post("/")
        async def endpoint(background: BackgroundTasks, tags: Any = Depends(get_repository(Tag))) -> None:
            background.add_task(later, tags.tenant_id)

        assert api.post("/", tenant="a").status_code == 200
        assert tags(database) == ["later"]

    def test_scripts_have_a_sync_one(self, plugin: DatabasePlugin, database: Database) -> None:
        with plugin.sync_session(tenant="a") as session:
            session.add(Tag(name="one"))
        assert tags(database) == ["one"]


class TestStreams:
    """Endpoints that are generators run while their response is sent; so does their session."""

    @pytest.mark.parametrize("kind", ["async", "sync"])
    def test_a_stream_reads_and_writes_until_its_end(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, database: Database, kind: str
    ) -> None:
        kept: list[Any] = []

        @app.get("/async")
        async def lines(tags: Any = Depends(get_repository(Tag))) -> AsyncIterable[dict[str, int]]:
            kept.append(tags.db)
            for _ in range(3):
                await tags.create({"name": "one"})
                yield {"count": await tags.count()}

        @app.get("/sync")
        def sync_lines(tags: Any = Depends(get_sync_repository(Tag))) -> Iterable[dict[str, int]]:
            kept.append(tags.db)
            for _ in range(3):
                tags.create({"name": "one"})
                yield {"count": tags.count()}

        answer = api.get(f"/{kind}", tenant="a")
        assert [json.loads(line) for line in answer.text.splitlines()] == [{"count": n} for n in (1, 2, 3)]
        assert tags(database) == ["one"] * 3
        assert checked_out(plugin) == 0

    def test_a_stream_that_fails_is_undone(self, app: FastAPI, api: Api, database: Database) -> None:
        @app.get("/")
        async def lines(tags: Any = Depends(get_repository(Tag))) -> AsyncIterable[dict[str, int]]:
            await tags.create({"name": "one"})
            yield {"count": 1}
            raise LookupError("mine")

        with pytest.raises(Exception, match="mine"):
            api.get("/", tenant="a")
        assert tags(database) == []


def test_a_websocket_has_a_session_until_it_ends(app: FastAPI, api: Api, database: Database) -> None:
    @app.websocket("/")
    async def endpoint(socket: WebSocket, tags: Any = Depends(get_repository(Tag))) -> None:
        await socket.accept()
        tag = await tags.create({"name": await socket.receive_text()})
        await socket.send_json(tag.tenant_id)

    received = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "one"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"test"), (b"x-tenant-id", b"a")]
    scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers, "subprotocols": []}
    api.run(app(scope, receive, send))
    assert sent[1]["text"] == '"a"'
    assert tags(database) == ["one"]


# asyncpg tells that its connections were never closed, which nobody could any more.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_each_request_may_have_an_event_loop_of_its_own(app: FastAPI, api: Api, database: Database) -> None:
    """As a test client has that does not run the app's lifespan."""

    @app.post("/")
    async def endpoint(tags: Any = Depends(get_repository(Tag))) -> None:
        await tags.create({"name": "one"})

    answers = [asyncio.run(api.arequest("POST", "/", tenant="a")) for _ in range(3)]
    assert api.post("/", tenant="a").status_code == 200
    gc.collect()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(tags(database)) == 4


def test_sqlmodels_session_has_exec(app: FastAPI, api: Api) -> None:
    sqlmodel = pytest.importorskip("sqlmodel")

    @app.get("/")
    async def endpoint(session: Any = Depends(get_session)) -> int:
        return len((await session.exec(sqlmodel.select(Tag))).all())

    assert api.get("/", tenant="a").json() == 0


def test_hand_written_statements_are_confined(app: FastAPI, api: Api, database: Database) -> None:
    with database.sessions.begin() as session:
        session.add_all([Tag(name="one", tenant_id="a"), Tag(name="two", tenant_id="b")])

    @app.get("/")
    async def endpoint(session: Any = Depends(get_session)) -> list[str]:
        return [tag.name for tag in (await session.scalars(select(Tag))).all()]

    @app.post("/")
    async def forged(session: Any = Depends(get_session)) -> None:
        session.add(Tag(name="three", tenant_id="b"))

    assert api.get("/", tenant="a").json() == ["one"]
    assert api.post("/", tenant="a").status_code == 403
    assert api.get("/").status_code == 400


def test_models_without_a_tenant_need_none(app: FastAPI, api: Api) -> None:
    @app.get("/")
    async def endpoint(countries: Any = Depends(get_repository(Country))) -> int:
        return int(await countries.count())

    assert api.get("/").json() == 0
