"""The plugin needs no more Python and no more threads for a request than an app whose session is written by hand.

The calls of Python functions are counted and not timed, so the result does not depend on the load of the machine. Both
apps are measured in the same run, with the same versions of the libraries.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

import anyio.to_thread
import fastapi
import pytest
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import URL, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import AsyncRepository, BaseRepository
from dotmac_database_fastapi import DatabasePlugin, get_repository, get_sync_repository
from tests.conftest import Faces
from tests.models import Country

WARM_UP = 10
"""The number of requests that fill the caches. (psycopg prepares a statement when it is executed the fifth time.)"""

MEASURED = 10
"""The number of requests that are counted, together: a worker thread may end its work after the response."""

MODULES_BY_TIMING = ("/threading.py", "/queue.py", "/selectors.py")
FUNCTIONS_BY_TIMING = frozenset(
    ("_run_once", "_run", "time", "_process_events", "_add_callback", "_process_self_data", "_read_from_self")
)
"""What is called more or less often, depending on when the threads run: locks, queues, and rounds of the event loop."""

NORWAY = {"code": "no", "name": "Norway"}

SYNC, ASYNC = ("sqlite3", "psycopg"), ("aiosqlite", "asyncpg")
KINDS = ("nothing", "get", "list", "post")

ABOVE: set[tuple[str, str]] = set()
"""What may be above."""

if tuple(map(int, fastapi.__version__.split(".")[:2])) < (0, 165):  # it needs fewer calls for a dependency
    ABOVE = {("sqlite3", "post"), ("asyncpg", "post"), ("aiosqlite", "nothing"), ("asyncpg", "nothing")}


class CountryData(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    code: str
    name: str


def _is_by_timing(code: CodeType) -> bool:
    path = code.co_filename
    return path.endswith((*MODULES_BY_TIMING, __file__)) or (
        code.co_name in FUNCTIONS_BY_TIMING and f"{os.sep}asyncio{os.sep}" in path
    )


class Counts:
    """The calls of Python functions in all threads, and the calls that wait for a worker thread."""

    def __init__(self) -> None:
        self.calls = 0
        self.threads = 0
        self.counting = False

    def profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if self.counting and event == "call" and not _is_by_timing(frame.f_code):
            self.calls += 1

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count in this block. The garbage collector rests, because it calls the callbacks of weak references."""
        self.calls = self.threads = 0
        gc.collect()
        gc.disable()
        self.counting = True
        sys.setprofile(self.profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.counting = False
            gc.enable()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Counts that start before the worker threads, since a thread gets the profile function when it starts."""
    counts = Counts()
    run_sync: Any = anyio.to_thread.run_sync

    async def counted(*args: Any, **options: Any) -> Any:
        counts.threads += counts.counting
        return await run_sync(*args, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
    before = threading.getprofile()
    threading.setprofile(counts.profile)
    yield counts
    threading.setprofile(before)  # type: ignore[arg-type]  # None removes the function


def plain_sync(url: URL) -> FastAPI:
    """An app as in FastAPI's tutorial."""
    app = FastAPI()
    app.state.engine = create_engine(url)
    maker = sessionmaker(app.state.engine, expire_on_commit=False)

    def opened() -> Iterator[Session]:
        with maker() as session:
            yield session

    @app.get("/nothing", response_model=CountryData)
    def nothing(session: Session = Depends(opened)) -> Any:
        return NORWAY

    @app.get("/countries/{code}", response_model=CountryData)
    def get(code: str, session: Session = Depends(opened)) -> Any:
        return or_404(session.get(Country, code))

    @app.get("/countries", response_model=list[CountryData])
    def some(session: Session = Depends(opened)) -> Any:
        return session.execute(select(Country).order_by(Country.code).limit(20)).scalars().all()

    @app.post("/countries", response_model=CountryData)
    def post(data: CountryData, session: Session = Depends(opened)) -> Any:
        country = Country(**data.model_dump())
        session.add(country)
        session.commit()
        return country

    return app


def plain_async(url: URL) -> FastAPI:
    """As `plain_sync`, with an `AsyncSession`."""
    app = FastAPI()
    engine = create_async_engine(url)
    app.state.engine = engine.sync_engine
    maker = async_sessionmaker(engine, expire_on_commit=False)

    async def opened() -> AsyncIterator[AsyncSession]:
        async with maker() as session:
            yield session

    @app.get("/nothing", response_model=CountryData)
    async def nothing(session: AsyncSession = Depends(opened)) -> Any:
        return NORWAY

    @app.get("/countries/{code}", response_model=CountryData)
    async def get(code: str, session: AsyncSession = Depends(opened)) -> Any:
        return or_404(await session.get(Country, code))

    @app.get("/countries", response_model=list[CountryData])
    async def some(session: AsyncSession = Depends(opened)) -> Any:
        return (await session.execute(select(Country).order_by(Country.code).limit(20))).scalars().all()

    @app.post("/countries", response_model=CountryData)
    async def post(data: CountryData, session: AsyncSession = Depends(opened)) -> Any:
        country = Country(**data.model_dump())
        session.add(country)
        await session.commit()
        return country

    return app


def plugin_sync(plugin: DatabasePlugin) -> FastAPI:
    """The same app with the plugin."""
    app = FastAPI(lifespan=plugin.lifespan)
    repository = Depends(get_sync_repository(Country))

    @app.get("/nothing", response_model=CountryData)
    def nothing(countries: BaseRepository[Country] = repository) -> Any:
        return NORWAY

    @app.get("/countries/{code}", response_model=CountryData)
    def get(code: str, countries: BaseRepository[Country] = repository) -> Any:
        return or_404(countries.get_by_id(code))

    @app.get("/countries", response_model=list[CountryData])
    def some(countries: BaseRepository[Country] = repository) -> Any:
        return countries.list({"pagination": {"per_page": 20}})

    @app.post("/countries", response_model=CountryData)
    def post(data: CountryData, countries: BaseRepository[Country] = repository) -> Any:
        return countries.create(data)

    return app


def plugin_async(plugin: DatabasePlugin) -> FastAPI:
    """The same app with the plugin, and ``async def``."""
    app = FastAPI(lifespan=plugin.lifespan)
    repository = Depends(get_repository(Country))

    @app.get("/nothing", response_model=CountryData)
    async def nothing(countries: AsyncRepository[Country] = repository) -> Any:
        return NORWAY

    @app.get("/countries/{code}", response_model=CountryData)
    async def get(code: str, countries: AsyncRepository[Country] = repository) -> Any:
        return or_404(await countries.get_by_id(code))

    @app.get("/countries", response_model=list[CountryData])
    async def some(countries: AsyncRepository[Country] = repository) -> Any:
        return await countries.list({"pagination": {"per_page": 20}})

    @app.post("/countries", response_model=CountryData)
    async def post(data: CountryData, countries: AsyncRepository[Country] = repository) -> Any:
        return await countries.create(data)

    return app


def or_404(country: Country | None) -> Country:
    if country is None:
        raise HTTPException(404)
    return country


class Measured(NamedTuple):
    """The calls and threads of `MEASURED` requests, and the last response."""

    calls: int
    threads: int
    answer: bytes


async def measure(app: FastAPI, counts: Counts, kind: str, first: int) -> Measured:
    """Call the app through its ASGI interface. ``first`` is the number of the first country that is created."""
    numbers = itertools.count(first)

    async def repeated(times: int) -> bytes:
        answer = b""
        for _ in range(times):
            body = f'{{"code": "{next(numbers):02x}", "name": "Norway"}}'.encode() if kind == "post" else b""
            answer = await call(app, kind, body)
        return answer

    await repeated(WARM_UP)
    with counts.counted():
        answer = await repeated(MEASURED)
    return Measured(counts.calls, counts.threads, answer)


async def call(app: FastAPI, kind: str, body: bytes) -> bytes:
    path = {"nothing": "/nothing", "get": "/countries/03"}.get(kind, "/countries")
    scope = {
        "type": "http",
        "method": "POST" if kind == "post" else "GET",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    return b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture(scope="module")
def url_of(faces: Faces) -> Callable[[str], URL]:
    """The URL of a database with 30 countries, for a driver."""

    def url(driver: str) -> URL:
        database = faces[driver].database
        Country.__table__.drop(database.engine, checkfirst=True)  # type: ignore[attr-defined]
        Country.__table__.create(database.engine)  # type: ignore[attr-defined]
        with database.sessions.begin() as session:
            session.add_all([Country(code=f"{number:02x}", name="Norway") for number in range(30)])
        return database.url

    return url


@pytest.fixture
def measured(
    url_of: Callable[[str], URL], counts: Counts, runner: asyncio.Runner, driver: str, kind: str
) -> Iterator[tuple[Measured, Measured]]:
    """The plain app and the one with the plugin."""
    url = url_of(driver)
    is_async = driver in ASYNC
    exact = url.set(drivername=f"{url.get_backend_name()}+{'pysqlite' if driver == 'sqlite3' else driver}")
    plain = plain_async(exact) if is_async else plain_sync(exact)
    plugin = DatabasePlugin(url)
    app = plugin_async(plugin) if is_async else plugin_sync(plugin)

    async def both() -> tuple[Measured, Measured]:
        try:
            return await measure(plain, counts, kind, 0x40), await measure(app, counts, kind, 0x80)
        finally:
            plain.state.engine.dispose() if not is_async else await AsyncEngine(plain.state.engine).dispose()
            await plugin.database.dispose_async()

    return runner.run(both())


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("driver", [*SYNC, *ASYNC])
def test_the_plugin_needs_no_more_calls_and_no_more_threads(
    measured: tuple[Measured, Measured], driver: str, kind: str
) -> None:
    plain, plugin = measured
    if kind != "post":
        assert plugin.answer == plain.answer
    assert plugin.threads <= plain.threads
    if (driver, kind) in ABOVE and plugin.calls > plain.calls:
        pytest.xfail(f"{plugin.calls / MEASURED:.0f} calls, and {plain.calls / MEASURED:.0f} without the plugin")
    assert plugin.calls <= plain.calls


@pytest.mark.parametrize("kind", ["nothing", "get", "list"])
@pytest.mark.parametrize("driver", SYNC)
def test_a_sync_session_in_which_nothing_was_begun_ends_without_a_thread(
    measured: tuple[Measured, Measured], driver: str, kind: str
) -> None:
    # One thread runs the endpoint, and one validates the response.
    assert measured[1].threads == 2 * MEASURED
