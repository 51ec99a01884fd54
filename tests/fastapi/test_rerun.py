"""Endpoints that are run again, on a PostgreSQL whose transactions do lose."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, Header, HTTPException, Request, Response
from fastapi import UploadFile as Upload
from fastapi.exceptions import FastAPIError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from sqlalchemy import MetaData, UniqueConstraint, func, make_url, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    Database,
    RetryAttempt,
    RetryBudget,
    RetryPolicy,
    RetryStrategy,
    TenantMixin,
    idempotency_metadata,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    crud_router,
    get_repository,
    get_session,
    get_sync_session,
    register_exception_handlers,
    rerun_route,
    tenant_from_header,
)
from tests.fastapi.conftest import Api, MakePlugin, checked_out
from tests.faults.conftest import Wire


class Base(DeclarativeBase):
    """The tables of these tests alone."""


class Tally(Base):
    __tablename__ = "rerun_tallies"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class Note(TenantMixin, Base):
    __tablename__ = "rerun_notes"
    __table_args__ = (UniqueConstraint("tenant_id", "text"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    every = MetaData()
    for metadata in (Base.metadata, idempotency_metadata):
        for table in metadata.tables.values():
            table.to_metadata(every)
    return every


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def other(database: Database, postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection, in autocommit; two tallies are there."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO rerun_tallies VALUES (1, 0), (2, 0)")
        yield connection


@pytest.fixture
def plugin(make_plugin: MakePlugin, other: Any) -> DatabasePlugin:
    return make_plugin(isolation_level="SERIALIZABLE", pool_size=10, max_overflow=0)


QUICK = RetryPolicy(max_attempts=3, base_delay=0.001, max_delay=0.01, strategy=RetryStrategy.JITTERED)
PATIENT = RetryPolicy(max_attempts=100, base_delay=0.002, max_delay=0.05, strategy=RetryStrategy.JITTERED)


def count(other: psycopg.Connection[Any], tally: int = 1) -> int:
    row = other.execute("SELECT count FROM rerun_tallies WHERE id = %s", [tally]).fetchone()
    assert row is not None
    return int(row[0])


class Rival:
    """Changes the tally between an endpoint's read and its write, as often as it is told to: 40001 by the server."""

    def __init__(self, other: psycopg.Connection[Any]) -> None:
        self.other = other
        self.attempts = 0

    async def beaten(self, session: AsyncSession, times: int = 1) -> int:
        """Add one to the tally in the session's transaction, which loses the first ``times`` times."""
        self.attempts += 1
        found = await session.scalar(select(Tally.count).where(Tally.id == 1))
        assert found is not None
        if self.attempts <= times:
            self.other.execute("UPDATE rerun_tallies SET count = count + 100 WHERE id = 1")
        await session.execute(update(Tally).where(Tally.id == 1).values(count=found + 1))
        return self.attempts


@pytest.fixture
def rival(other: psycopg.Connection[Any]) -> Rival:
    return Rival(other)


class Router(APIRouter):
    """A router of `rerun_route`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(route_class=rerun_route(*(arguments or (QUICK,)), **options))


class Meeting:
    """Lets so many first attempts go on together, and all later ones at once."""

    def __init__(self, size: int) -> None:
        self.barrier = asyncio.Barrier(size)
        self.seen: Counter[str] = Counter()

    async def first(self, name: str) -> None:
        self.seen[name] += 1
        if self.seen[name] == 1:
            await self.barrier.wait()


class TestLostRaces:
    @pytest.mark.parametrize("included", [True, False])
    def test_two_requests_that_increment_one_tally_both_succeed(
        self, app: FastAPI, api: Api, other: Any, included: bool
    ) -> None:
        meeting = Meeting(2)
        router: Any = Router() if included else app
        app.router.route_class = rerun_route(QUICK)

        @router.put("/increment/{name}")
        async def increment(name: str, session: Any = Depends(get_session)) -> int:
            found = await session.scalar(select(Tally.count).where(Tally.id == 1))
            await meeting.first(name)
            await session.execute(update(Tally).where(Tally.id == 1).values(count=found + 1))
            return int(found)

        if included:
            app.include_router(router, prefix="/deeper")

        async def both() -> list[Any]:
            path = f"{'/deeper' if included else ''}/increment"
            return await asyncio.gather(api.arequest("PUT", f"{path}/a"), api.arequest("PUT", f"{path}/b"))

        answers = api.run(both())
        assert [answer.status_code for answer in answers] == [200, 200]
        assert sorted(answer.json() for answer in answers) == [0, 1]
        assert sorted(meeting.seen.values()) == [1, 2]
        assert count(other) == 2

    def test_what_fails_at_its_commit_is_run_again(self, app: FastAPI, api: Api, other: Any) -> None:
        """Write skew: each writes what the other has read, and only COMMIT can tell."""
        meeting, after = Meeting(2), Meeting(2)
        router = Router()

        @router.put("/skew/{target}")
        async def skew(target: int, session: Any = Depends(get_session)) -> int:
            total = sum((await session.scalars(select(Tally.count))).all())
            await meeting.first(str(target))
            await session.execute(update(Tally).where(Tally.id == target).values(count=total + 1))
            await after.first(str(target))
            return int(total)

        app.include_router(router)

        async def both() -> list[Any]:
            return await asyncio.gather(api.arequest("PUT", "/skew/1"), api.arequest("PUT", "/skew/2"))

        answers = api.run(both())
        assert sorted(answer.json() for answer in answers) == [0, 1]
        assert sorted(after.seen.values()) == [1, 2]
        assert sorted([count(other, 1), count(other, 2)]) == [1, 2]

    @pytest.mark.parametrize("kind", ["async", "def"])
    def test_many_requests_on_one_tally(self, app: FastAPI, api: Api, other: Any, kind: str) -> None:
        router = Router(PATIENT)

        @router.put("/async")
        async def increment(session: Any = Depends(get_session)) -> None:
            tally = await session.get_one(Tally, 1)
            tally.count += 1

        @router.put("/def")
        def increment_sync(session: Any = Depends(get_sync_session)) -> None:
            assert isinstance(session, Session)
            tally = session.get_one(Tally, 1)
            tally.count += 1

        app.include_router(router)

        async def burst() -> list[int]:
            answers = await asyncio.gather(*(api.arequest("PUT", f"/{kind}") for _ in range(30)))
            return [answer.status_code for answer in answers]

        assert api.run(burst()) == [200] * 30
        assert count(other) == 30

    def test_a_deadlock(self, app: FastAPI, api: Api, make_plugin: MakePlugin, other: Any) -> None:
        plugin = make_plugin(name="weak", isolation_level="READ COMMITTED")
        meeting = Meeting(2)
        router = Router(PATIENT)

        @router.put("/{first}/{second}")
        async def locked(first: int, second: int, session: Any = Depends(plugin.get_session)) -> None:
            add_one = update(Tally).values(count=Tally.count + 1)
            await session.execute(add_one.where(Tally.id == first))
            await meeting.first(str(first))
            await session.execute(add_one.where(Tally.id == second))

        app.include_router(router)

        async def both() -> list[Any]:
            return await asyncio.gather(api.arequest("PUT", "/1/2"), api.arequest("PUT", "/2/1"))

        assert [answer.status_code for answer in api.run(both())] == [200, 200]
        # The request that is rolled back can lock its first row again before the other one does: another deadlock.
        assert sum(meeting.seen.values()) > 2
        assert [count(other, 1), count(other, 2)] == [2, 2]


class TestGivingUp:
    def test_the_last_failure_is_a_503_with_retry_after(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, rival: Rival, other: Any
    ) -> None:
        attempts: list[RetryAttempt] = []
        held: list[int] = []

        def hook(attempt: RetryAttempt) -> None:
            attempts.append(attempt)
            held.append(checked_out(plugin))

        router = Router(RetryPolicy(max_attempts=3, base_delay=0.001, hooks=(hook,)))

        @router.put("/tallies/{tally}")
        async def endpoint(tally: int, session: Any = Depends(get_session)) -> None:
            await rival.beaten(session, times=100)

        app.include_router(router)
        answer = api.request("PUT", "/tallies/1")
        assert answer.status_code == 503
        assert answer.json()["code"] == "conflict"
        assert int(answer.headers["retry-after"]) >= 1
        assert rival.attempts == 3
        assert [attempt.outcome for attempt in attempts] == ["retrying", "retrying", "failed"]
        assert {attempt.operation for attempt in attempts} == {"PUT /tallies/{tally}"}
        assert held == [0, 0, 0], "no connection is held while an endpoint waits"
        assert count(other) == 300

    def test_a_budget_ends_it_for_all_endpoints(self, app: FastAPI, api: Api, rival: Rival) -> None:
        router = Router(RetryPolicy(max_attempts=10, base_delay=0.001, budget=RetryBudget(capacity=4)))

        @router.put("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            await rival.beaten(session, times=100)

        app.include_router(router)
        assert [api.request("PUT", "/").status_code for _ in range(3)] == [503] * 3
        assert rival.attempts == 3 + 4

    def test_a_request_that_is_cancelled_between_two_attempts(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, rival: Rival, other: Any
    ) -> None:
        waiting = asyncio.Event()
        router = Router(RetryPolicy(max_attempts=3, base_delay=60, hooks=(lambda _: waiting.set(),)))

        @router.put("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            await rival.beaten(session)

        app.include_router(router)

        async def impatient() -> None:
            request = asyncio.create_task(api.arequest("PUT", "/"))
            await waiting.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request

        api.run(impatient())
        assert rival.attempts == 1
        assert checked_out(plugin) == 0
        assert count(other) == 100

    @pytest.mark.parametrize("kind", ["own", "http", "constraint", "swallowed"])
    def test_what_would_fail_again_is_run_once(
        self, app: FastAPI, api: Api, database: Database, kind: str, other: Any
    ) -> None:
        router = Router(idempotent=True)
        ran: list[str] = []

        async def swallows() -> AsyncIterator[None]:
            with suppress(LookupError):
                yield

        @router.post("/", dependencies=[Depends(swallows)] if kind == "swallowed" else [])
        async def endpoint(notes: Any = Depends(get_repository(Note))) -> None:
            ran.append(kind)
            await notes.create({"text": "one"})
            match kind:
                case "http":
                    raise HTTPException(418)
                case "constraint":
                    await notes.create({"text": "one"})
                case _:
                    raise LookupError("mine")

        app.include_router(router)
        if kind in ("own", "swallowed"):
            with pytest.raises(FastAPIError if kind == "swallowed" else LookupError):
                api.post("/", tenant="a")
        else:
            assert api.post("/", tenant="a").status_code == (418 if kind == "http" else 409)
        assert ran == [kind]
        assert other.execute("SELECT count(*) FROM rerun_notes").fetchone() == (0,)

    def test_an_exception_of_the_users_for_a_lost_race_is_the_users(self, app: FastAPI, api: Api, rival: Rival) -> None:
        router = Router()

        @router.put("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            try:
                await rival.beaten(session, times=100)
            except Exception as error:
                raise HTTPException(409) from error

        app.include_router(router)
        assert api.request("PUT", "/").status_code == 409
        assert rival.attempts == 1


class TestWhichRequests:
    @pytest.mark.parametrize(
        ("method", "options", "headers", "attempts"),
        [
            ("GET", {}, {}, 2),
            ("HEAD", {}, {}, 2),
            ("PUT", {}, {}, 2),
            ("DELETE", {}, {}, 2),
            ("POST", {}, {}, 1),
            ("PATCH", {}, {}, 1),
            ("POST", {}, {"Idempotency-Key": "k"}, 2),
            ("POST", {}, {"Idempotency-Key": " "}, 1),
            ("POST", {"methods": ["post"]}, {}, 2),
            ("PUT", {"methods": ["post"]}, {}, 1),
            ("PATCH", {"idempotent": True}, {}, 2),
        ],
    )
    def test_by_method_key_and_declaration(
        self,
        app: FastAPI,
        api: Api,
        rival: Rival,
        method: str,
        options: dict[str, Any],
        headers: dict[str, str],
        attempts: int,
    ) -> None:
        router = Router(**options)

        @router.api_route("/", methods=[method])
        async def endpoint(session: Any = Depends(get_session)) -> None:
            await rival.beaten(session)

        app.include_router(router)
        answer = api.request(method, "/", headers=headers)
        assert answer.status_code == (200 if attempts == 2 else 503)
        assert rival.attempts == attempts

    def test_other_routers_are_left_alone(self, app: FastAPI, api: Api, rival: Rival) -> None:
        @app.put("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            await rival.beaten(session)

        assert api.request("PUT", "/").status_code == 503
        assert rival.attempts == 1

    def test_the_default_policy_and_its_class(self, app: FastAPI, api: Api, rival: Rival) -> None:
        made = rerun_route()
        assert issubclass(made, APIRoute)
        router = APIRouter(route_class=made)

        @router.delete("/")
        async def endpoint(session: Any = Depends(get_session)) -> int:
            return await rival.beaten(session, times=2)

        app.include_router(router)
        assert api.delete("/").json() == 3

    @pytest.mark.parametrize("kind", ["generator", "response"])
    def test_a_stream_is_not_run_again(
        self, app: FastAPI, api: Api, rival: Rival, plugin: DatabasePlugin, kind: str
    ) -> None:
        router = Router(idempotent=True)

        @router.get("/generator")
        async def lines(session: Any = Depends(get_session)) -> AsyncIterable[int]:
            yield 1
            await rival.beaten(session)

        @router.get("/response")
        async def streaming() -> StreamingResponse:
            async def body() -> AsyncIterator[bytes]:
                yield b"1"
                async with plugin.session() as session:
                    await rival.beaten(session)

            return StreamingResponse(body())

        app.include_router(router)
        with pytest.raises(Exception, match="response already started"):
            api.get(f"/{kind}")
        assert rival.attempts == 1

    def test_background_tasks_are_those_of_the_attempt_that_succeeded(
        self, app: FastAPI, api: Api, rival: Rival
    ) -> None:
        router = Router()
        done: list[int] = []

        @router.put("/")
        async def endpoint(
            background: BackgroundTasks, response: Response, session: Any = Depends(get_session)
        ) -> None:
            background.add_task(done.append, rival.attempts + 1)
            response.headers.append("X-Attempt", str(rival.attempts + 1))
            await rival.beaten(session)

        app.include_router(router)
        assert api.request("PUT", "/").headers.get_list("x-attempt") == ["2"]
        assert done == [2]

    def test_a_background_task_that_fails_is_not_run_again(self, app: FastAPI, api: Api, rival: Rival) -> None:
        router = Router(idempotent=True)
        done: list[int] = []

        @router.put("/")
        async def endpoint(background: BackgroundTasks) -> None:
            async def task() -> None:
                done.append(1)
                raise ConnectionResetError

            background.add_task(task)

        app.include_router(router)
        with pytest.raises(ConnectionResetError):
            api.request("PUT", "/")
        assert done == [1]


class TestDependencies:
    def test_each_attempt_has_its_own_and_they_end_in_order(self, app: FastAPI, api: Api, rival: Rival) -> None:
        router = Router()
        told: list[str] = []

        async def until_response() -> AsyncIterator[int]:
            number = rival.attempts + 1
            try:
                yield number
            except Exception as error:
                told.append(f"{number} response: {type(error).__name__}")
                raise
            told.append(f"{number} response ended")

        async def until_end(session: Any = Depends(get_session)) -> AsyncIterator[Any]:
            number = rival.attempts + 1
            try:
                yield session
            finally:
                told.append(f"{number} endpoint ended")

        @router.put("/")
        async def endpoint(
            background: BackgroundTasks,
            number: int = Depends(until_response),
            session: Any = Depends(until_end, scope="function"),
        ) -> int:
            background.add_task(told.append, "sent")
            await rival.beaten(session)
            return number

        app.include_router(router)
        assert api.request("PUT", "/").json() == 2
        assert told == [
            "1 endpoint ended",
            "1 response: TransactionError",
            "2 endpoint ended",
            "sent",
            "2 response ended",
        ]

    def test_the_tenant_and_the_actor_are_asked_for_again(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, rival: Rival
    ) -> None:
        asked: list[str] = []

        async def tenant(x_tenant_id: str = Header()) -> AsyncIterator[str]:
            asked.append("tenant")
            yield x_tenant_id
            asked.append("tenant ended")

        plugin = make_plugin(name="own", isolation_level="SERIALIZABLE", tenant=tenant)
        app = FastAPI(lifespan=plugin.lifespan)
        register_exception_handlers(app)
        router = Router()

        @router.put("/")
        async def endpoint(notes: Any = Depends(plugin.get_repository(Note))) -> str:
            await notes.create({"text": "one"})
            await rival.beaten(notes.db)
            return str(notes.tenant_id)

        app.include_router(router)
        assert Api(app, runner).request("PUT", "/", tenant="a").json() == "a"
        # The first one's was ended by the exception.
        assert asked == ["tenant", "tenant", "tenant ended"]
        rows = rival.other.execute("SELECT tenant_id, text FROM rerun_notes").fetchall()
        assert rows == [("a", "one")]


class TestTwoSessions:
    """They commit one after the other: what the first has committed must not be done twice."""

    @pytest.mark.parametrize(("idempotent", "writes_both"), [(False, True), (True, True), (False, False)])
    def test_one_that_has_committed(
        self, app: FastAPI, api: Api, rival: Rival, other: Any, idempotent: bool, writes_both: bool
    ) -> None:
        router = Router(idempotent=idempotent)

        @router.put("/")
        def endpoint(session: Any = Depends(get_session), second: Any = Depends(get_sync_session)) -> None:
            rival.attempts += 1
            session.add(Tally(id=10 + rival.attempts))
            if writes_both:
                second.add(Tally(id=20 + rival.attempts))
                second.flush()

        # COMMIT of the first session fails, after that of the second.
        other.execute("""
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.id = 11 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END IF; RETURN NULL;
            END $$""")
        other.execute(
            "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON rerun_tallies DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION fail()"
        )
        app.include_router(router)
        try:
            answer = api.request("PUT", "/")
        finally:
            other.execute("DROP TRIGGER fails ON rerun_tallies")
            other.execute("DROP FUNCTION fail")
        found = [row[0] for row in other.execute("SELECT id FROM rerun_tallies WHERE id > 9 ORDER BY id")]
        if idempotent:
            assert (answer.status_code, found) == (200, [12, 21, 22])
        elif writes_both:
            assert (answer.status_code, found) == (503, [21])
        else:
            assert (answer.status_code, found) == (200, [12])


class TestBodies:
    def test_a_body_that_the_endpoint_changed_is_parsed_anew(self, app: FastAPI, api: Api, rival: Rival) -> None:
        router = Router()

        @router.put("/")
        async def endpoint(request: Request, data: Any = None, session: Any = Depends(get_session)) -> Any:
            data = await request.json()
            kept = data["inner"].pop("one")
            await rival.beaten(session)
            return kept

        app.include_router(router)
        assert api.request("PUT", "/", json={"inner": {"one": 1}}).json() == 1
        assert rival.attempts == 2

    @pytest.mark.parametrize("closes", [False, True])
    def test_an_uploaded_file_is_read_from_its_start(self, app: FastAPI, api: Api, rival: Rival, closes: bool) -> None:
        pytest.importorskip("python_multipart")
        router = Router()

        @router.put("/")
        async def endpoint(file: Upload = File(), session: Any = Depends(get_session)) -> str:
            content = await file.read()
            if closes:
                await file.close()
            await rival.beaten(session)
            return content.decode()

        app.include_router(router)
        answer = api.request("PUT", "/", files={"file": ("a.txt", b"content")})
        if closes:
            assert (answer.status_code, rival.attempts) == (503, 1)
        else:
            assert (answer.json(), rival.attempts) == ("content", 2)

    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_body_that_was_read_as_a_stream_can_not_be_read_again(
        self, app: FastAPI, api: Api, rival: Rival, streamed: bool
    ) -> None:
        router = Router()

        @router.put("/")
        async def endpoint(request: Request, session: Any = Depends(get_session)) -> str:
            content = b"".join([part async for part in request.stream()]) if streamed else await request.body()
            await rival.beaten(session)
            return content.decode()

        app.include_router(router)
        answer = api.request("PUT", "/", content=b"content")
        if streamed:
            assert (answer.status_code, rival.attempts) == (503, 1)
            assert answer.json()["code"] == "conflict"
        else:
            assert (answer.json(), rival.attempts) == ("content", 2)


class TestUnknownOutcomes:
    """COMMIT took effect, and the connection was lost before its answer came."""

    @pytest.fixture
    def wire(self, postgres_url: str, other: Any) -> Iterator[Wire]:
        with tempfile.TemporaryDirectory(prefix="wire", dir="/tmp") as directory:
            wire = Wire(make_url(postgres_url), Path(directory))
            yield wire
            wire.close()

    @pytest.fixture
    def api(self, wire: Wire, runner: asyncio.Runner) -> Iterator[Api]:
        plugin = DatabasePlugin(wire.url("asyncpg"), tenant=tenant_from_header("X-Tenant-ID"))
        app = FastAPI(lifespan=plugin.lifespan)
        register_exception_handlers(app)
        yield Api(app, runner)
        assert checked_out(plugin) == 0
        runner.run(plugin.database.dispose_async())

    @pytest.mark.parametrize("idempotent", [False, True])
    def test_only_an_idempotent_endpoint_is_run_again(self, api: Api, wire: Wire, other: Any, idempotent: bool) -> None:
        router = Router(idempotent=idempotent)
        ran: list[int] = []

        @router.put("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            ran.append(1)
            await session.execute(update(Tally).where(Tally.id == 1).values(count=7))

        api.app.include_router(router)
        wire.lose_commits = 1
        assert api.request("PUT", "/").status_code == (200 if idempotent else 500)
        assert wire.lost == 1
        assert len(ran) == (2 if idempotent else 1)
        assert count(other) == 7

    def test_a_recorded_key_gives_the_first_answer(self, api: Api, wire: Wire, other: Any) -> None:
        """What took effect is neither done again nor lost: the key was committed with it."""
        api.app.include_router(
            crud_router(Note, prefix="/notes", idempotency=True, route_class=rerun_route(QUICK, idempotent=True))
        )
        wire.lose_commits = 1
        answer = api.post("/notes", tenant="a", json={"text": "one"}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
        assert answer.headers["idempotency-replayed"] == "true"
        assert answer.json()["text"] == "one"
        assert other.execute("SELECT text FROM rerun_notes").fetchall() == [("one",)]

    def test_a_server_that_cuts_the_connection_before_commit_is_no_trouble(
        self, api: Api, wire: Wire, other: Any
    ) -> None:
        router = Router()
        ran: list[int] = []

        @router.put("/")
        async def endpoint(session: Any = Depends(get_session)) -> None:
            await session.execute(update(Tally).where(Tally.id == 1).values(count=Tally.count + 1))
            ran.append(await session.scalar(select(func.pg_backend_pid())))
            if len(ran) == 1:
                other.execute("SELECT pg_terminate_backend(%s)", [ran[0]])
                await session.scalar(select(Tally.count))

        api.app.include_router(router)
        assert api.request("PUT", "/").status_code == 200
        assert len(ran) == 2
        assert count(other) == 1
