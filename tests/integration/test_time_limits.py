"""How long a statement may take and a transaction may idle: by which settings, for whom, and who may lift it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from dotmac_database import (
    ConnectionOptions,
    Database,
    DatabaseTimeoutError,
    DatabaseTransaction,
    DatabaseUnavailableError,
    QueryFilter,
    TransactionOptions,
    ValidationError,
    create_database,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    get_repository,
    get_session,
    get_sync_repository,
    get_sync_session,
    register_exception_handlers,
)
from tests.fastapi.conftest import Api
from tests.models import Country

from .test_engine_options import DRIVERS, Driven

STATEMENT, IDLE = "SHOW statement_timeout", "SHOW idle_in_transaction_session_timeout"


@pytest.fixture(params=DRIVERS)
def driven(request: pytest.FixtureRequest) -> Iterator[Driven]:
    made = Driven(request.param)
    yield made
    made.close()


def limits(driven: Driven, database: Database) -> tuple[str, str]:
    return driven.ask(database, STATEMENT), driven.ask(database, IDLE)


class TestSettings:
    def test_a_plugin_has_limits_and_a_database_has_none(self, postgres_url: str, driven: Driven) -> None:
        assert limits(driven, driven.open(postgres_url, plugin=True)) == ("30s", "1min")
        assert limits(driven, driven.open(postgres_url)) == ("0", "0")

    @pytest.mark.parametrize("plugin", [False, True])
    def test_they_are_set_by_name(self, postgres_url: str, driven: Driven, plugin: bool) -> None:
        database = driven.open(postgres_url, plugin=plugin, statement_timeout=1.5, idle_in_transaction_timeout=2.5)
        assert limits(driven, database) == ("1500ms", "2500ms")
        none = driven.open(postgres_url, plugin=plugin, statement_timeout=None, idle_in_transaction_timeout=None)
        assert limits(driven, none) == ("0", "0")

    def test_what_the_url_says_wins(self, postgres_url: str, driven: Driven) -> None:
        said = f"{postgres_url}?options=-c%20statement_timeout%3D7s"
        assert limits(driven, driven.open(said, plugin=True)) == ("7s", "1min")

    def test_what_is_set_by_hand_wins_and_leaves_the_other(self, postgres_url: str, driven: Driven) -> None:
        settings: dict[str, Any] = (
            {"server_settings": {"statement_timeout": "9s", "jit": "off"}}
            if driven.name == "asyncpg"
            else {"options": "-c statement_timeout=9s -c jit=off"}
        )
        database = driven.open(postgres_url, plugin=True, connect_args=settings)
        assert limits(driven, database) == ("9s", "1min")
        assert driven.ask(database, "SHOW jit") == "off"

    def test_behind_a_pooler_there_are_none(self, postgres_url: str, driven: Driven) -> None:
        """Such a proxy refuses the settings, or gives the connection to others with them."""
        database = driven.open(postgres_url, plugin=True, transaction_pooler=True)
        assert limits(driven, database) == ("0", "0")

    @pytest.mark.parametrize("name", ["statement_timeout", "idle_in_transaction_timeout"])
    def test_what_can_not_be_is_refused(self, postgres_url: str, name: str) -> None:
        with pytest.raises(ValidationError, match=f"no {name}.*ALTER ROLE"):
            create_database(postgres_url, transaction_pooler=True, **{name: 5})
        with pytest.raises(ValidationError, match=f"no {name}.*ALTER ROLE"):
            DatabasePlugin(postgres_url, transaction_pooler=True, **{name: 5})
        with pytest.raises(ValidationError, match=f"{name} must not be negative"):
            ConnectionOptions(**{name: -1})
        with pytest.raises(ValidationError, match=f"{name} must not be negative"):
            TransactionOptions(**{name: -1})

    def test_a_time_too_short_for_the_server_is_not_none(self) -> None:
        settings = ConnectionOptions(statement_timeout=0.0001, idle_in_transaction_timeout=0).settings
        assert settings == {"statement_timeout": "1", "idle_in_transaction_session_timeout": "0"}

    def test_sqlite_knows_neither(self, tmp_path: Any) -> None:
        database = DatabasePlugin(f"sqlite:///{tmp_path}/x.db").database
        with database.sessions() as session:
            assert session.scalar(text("SELECT 1")) == 1
        database.dispose()


class TestTransactions:
    def test_one_transaction_lifts_them(self, postgres_url: str, driven: Driven) -> None:
        database = driven.open(postgres_url, plugin=True)
        options = TransactionOptions(statement_timeout=0, idle_in_transaction_timeout=0)

        def show(session: Any) -> list[Any]:
            return [session.execute(text(each)).scalar() for each in (STATEMENT, IDLE)]

        async def run() -> list[Any]:
            async with database.async_sessions() as session:
                async with DatabaseTransaction.async_transaction(session, options):
                    inside = await session.run_sync(show)
                return inside + await session.run_sync(show)

        if driven.is_async:
            found = driven.runner.run(run())
        else:
            with database.sessions() as session:
                with DatabaseTransaction.sync_transaction(session, options):
                    found = show(session)
                found += show(session)
        assert found == ["0", "0", "30s", "1min"]

    def test_a_transaction_that_idled_too_long_is_a_timeout(self, postgres_url: str, driven: Driven) -> None:
        database = driven.open(postgres_url, idle_in_transaction_timeout=0.2)
        watcher = create_database(postgres_url)

        def wait(pid: int) -> None:
            with watcher.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                while connection.scalar(text(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")):
                    pass

        backend = text("SELECT pg_backend_pid()")

        async def run() -> None:
            async with database.async_sessions() as session, DatabaseTransaction.async_transaction(session):
                await asyncio.to_thread(wait, (await session.execute(backend)).scalar_one())
                await session.execute(backend)

        def run_sync() -> None:
            with database.sessions() as session, DatabaseTransaction.sync_transaction(session):
                wait(session.execute(backend).scalar_one())
                session.execute(backend)

        # asyncpg forgets the server's last words, and knows only that the connection is closed. Both are a 503.
        expected = DatabaseUnavailableError if driven.name == "asyncpg" else DatabaseTimeoutError
        with pytest.raises(expected):
            driven.runner.run(run()) if driven.is_async else run_sync()
        watcher.dispose()


@pytest.fixture(params=["psycopg", "asyncpg"])
def plugin(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[DatabasePlugin]:
    url = postgres_url.replace("postgresql://", f"postgresql+{request.param}://")
    made = DatabasePlugin(url, statement_timeout=0.3)
    Country.metadata.create_all(made.database.engine)
    yield made
    made.database.dispose()


def test_a_request_that_takes_too_long_is_answered_503(plugin: DatabasePlugin) -> None:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    done: list[str] = []

    async def export() -> None:
        async with plugin.session(unlimited=True) as session:
            await session.scalar(select(func.pg_sleep(0.6)))
            done.append("exported")

    @app.get("/slow")
    async def slow(session: AsyncSession = Depends(get_session)) -> None:
        await session.scalar(select(func.pg_sleep(30)))

    @app.post("/slow")
    async def slow_write(
        session: AsyncSession = Depends(get_session), countries: Any = Depends(get_repository(Country))
    ) -> None:
        await countries.create({"code": "fi", "name": "Finland"})
        await session.scalar(select(func.pg_sleep(30)))

    @app.post("/export")
    async def start(tasks: BackgroundTasks) -> None:
        tasks.add_task(export)

    @app.get("/count")
    async def count(countries: Any = Depends(get_repository(Country))) -> int:
        return int(await countries.count())

    with asyncio.Runner() as runner:
        api = Api(app, runner)
        for method in ("GET", "POST"):
            answer = api.request(method, "/slow")
            assert (answer.status_code, answer.json()["code"]) == (503, "timeout")
            assert int(answer.headers["retry-after"]) > 0
        assert api.get("/count").json() == 0
        assert api.post("/export").status_code == 200
        assert done == ["exported"]
        with plugin.sync_session(unlimited=True) as session:
            session.scalar(select(func.pg_sleep(0.6)))
        with pytest.raises(DatabaseTimeoutError), plugin.sync_session() as session:
            session.scalar(select(func.pg_sleep(30)))
        runner.run(plugin.database.dispose_async())


def test_unlimited_is_nothing_on_sqlite(tmp_path: Any) -> None:
    plugin = DatabasePlugin(f"sqlite:///{tmp_path}/x.db")
    Country.metadata.create_all(plugin.database.engine)
    with plugin.sync_session(unlimited=True) as session:
        session.add(Country(code="fi", name="Finland"))
    with plugin.sync_session() as session:
        assert session.scalar(select(func.count()).select_from(Country)) == 1
    plugin.database.dispose()


WAITS: dict[str, Any] = {
    "update": lambda countries, _: countries.update("fi", {"name": "Suomi"}),
    "update_where": lambda countries, _: countries.update_where([QueryFilter("code", "eq", "fi")], {"name": "Suomi"}),
    "delete": lambda countries, _: countries.delete("fi"),
    "create": lambda countries, _: countries.create({"code": "se", "name": "Sverige"}),
    "upsert": lambda countries, _: countries.upsert({"code": "fi", "name": "Suomi"}, ["code"]),
    "bulk_create": lambda countries, _: countries.bulk_create([{"code": "se", "name": "Sverige"}]),
    "for_update": lambda countries, _: countries.for_update().get_by_id("fi"),
    "by hand": lambda _, session: session.execute(update(Country).values(name="Suomi")),
}
"""Statements that wait for a lock: of a row, or of a unique key that another transaction has just written."""


@pytest.fixture
def holder(plugin: DatabasePlugin) -> Iterator[None]:
    """Another transaction has changed one row and written another one."""
    other = create_database(plugin.database.url.set(drivername="postgresql+psycopg"))
    with other.sessions() as session:
        session.execute(delete(Country))
        session.add(Country(code="fi", name="Finland"))
        session.commit()
        session.execute(update(Country).values(name="Suomen tasavalta"))
        session.execute(insert(Country).values(code="se", name="Sweden"))
        yield
        session.rollback()
        session.execute(delete(Country))
        session.commit()
    other.dispose()


@pytest.mark.usefixtures("holder")
def test_a_request_that_waits_for_a_lock_is_answered_503(plugin: DatabasePlugin) -> None:
    """The limit of a statement is the limit of its waiting, whichever way the statement goes."""
    app = FastAPI()
    plugin.install(app)
    register_exception_handlers(app)

    @app.post("/async/{way}")
    async def wait(
        way: str, countries: Any = Depends(get_repository(Country)), session: Any = Depends(get_session)
    ) -> None:
        await WAITS[way](countries, session)

    @app.post("/sync/{way}")
    def wait_sync(
        way: str, countries: Any = Depends(get_sync_repository(Country)), session: Any = Depends(get_sync_session)
    ) -> None:
        WAITS[way](countries, session)

    async def answers(api: Api, face: str) -> list[Any]:
        return await asyncio.gather(*(api.arequest("POST", f"/{face}/{way}") for way in WAITS))

    with asyncio.Runner() as runner:
        api = Api(app, runner)
        for face in ("async", "sync"):
            for way, answer in zip(WAITS, runner.run(answers(api, face)), strict=True):
                assert (answer.status_code, answer.json()["code"]) == (503, "timeout"), f"{face} {way}: {answer.text}"
                assert int(answer.headers["retry-after"]) > 0
        runner.run(plugin.database.dispose_async())


@pytest.mark.usefixtures("holder")
@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
def test_a_transaction_that_waits_for_a_lock_is_a_timeout(plugin: DatabasePlugin, limit: str) -> None:
    options = TransactionOptions(**{"statement_timeout": 0, limit: 0.1})

    async def wait() -> None:
        async with (
            plugin.database.async_sessions() as session,
            DatabaseTransaction.async_transaction(session, options),
        ):
            await session.execute(update(Country).values(name="Suomi"))

    with asyncio.Runner() as runner:
        with pytest.raises(DatabaseTimeoutError):
            runner.run(wait())
        runner.run(plugin.database.dispose_async())
    with (
        pytest.raises(DatabaseTimeoutError),
        plugin.database.sessions() as session,
        DatabaseTransaction.sync_transaction(session, options),
    ):
        session.execute(update(Country).values(name="Suomi"))
