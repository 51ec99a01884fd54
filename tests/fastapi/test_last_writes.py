"""A generated endpoint whose write is the last work of its request sends it without BEGIN and COMMIT.

The tests look for each way in which a write could be kept although its request fails, or lost although it succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import new_class
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, field_validator
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import (
    AsyncRepository,
    Boundary,
    Database,
    SoftDeleteMixin,
    TenantMixin,
    VersionMixin,
    on_commit,
    on_rollback,
)
from dotmac_database_fastapi import DatabasePlugin, get_repository, get_session, rerun_route
from tests.fastapi.conftest import Api
from tests.fastapi.shared_routers import crud_router


class Base(DeclarativeBase):
    """The tables of this module."""


class Thing(TenantMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "last_things"
    __table_args__ = (
        sa.UniqueConstraint("name", deferrable=True, initially="DEFERRED").ddl_if(dialect="postgresql"),
        sa.UniqueConstraint("name").ddl_if(dialect="sqlite"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(8, 2), default=1)


class Named(Base):
    """The app makes a key that no path can contain."""

    __tablename__ = "last_named"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: "a/b")
    name: Mapped[str]


class Part(TenantMixin, Base):
    """A row that refers to a row of a tenant."""

    __tablename__ = "last_parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[UUID | None] = mapped_column(sa.ForeignKey("last_things.id"))


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def names(database: Database) -> Callable[[], list[str]]:
    """A function that reads the names of all things with a connection of its own, also of the deleted ones."""

    def read() -> list[str]:
        with database.engine.connect() as connection:
            return list(connection.scalars(sa.select(Thing.__table__.c.name).order_by("name")))

    return read


@contextmanager
def routes(caplog: pytest.LogCaptureFixture) -> Iterator[list[bool]]:
    """For each statement of a repository in the block, whether it was sent without BEGIN and COMMIT."""
    alone: list[bool] = []
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "dotmac_database.execution.routes"):
        yield alone
    alone += [str(Boundary.AUTOCOMMIT.value) in message for message in caplog.messages if "is sent" in message]


def post(api: Api, name: str = "one", path: str = "/things") -> Any:
    return api.post(path, tenant="a", json={"name": name})


class TestOneStatement:
    @pytest.mark.fast_way("driver", "autocommit", "update-statements")
    def test_each_write_is_one_statement(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]]
    ) -> None:
        app.include_router(crud_router(Thing, prefix="/things"))
        with routes(caplog) as alone:
            made = post(api)
        assert (made.status_code, alone) == (201, [True])
        place, tag = made.headers["location"], made.headers["etag"]
        assert made.json() == api.get(place, tenant="a").json()
        with routes(caplog) as alone:
            changed = api.patch(place, tenant="a", json={"name": "two"}, headers={"If-Match": tag})
        assert (changed.status_code, changed.json()["name"], alone) == (200, "two", [True])
        with routes(caplog) as alone:
            assert api.delete(place, tenant="a").status_code == 204
        assert alone == [True]
        with routes(caplog) as alone:
            restored = api.post(f"{place}/restore", tenant="a")
        assert (restored.status_code, alone) == (200, [True])
        assert names() == ["two"]

    def test_a_refused_write_leaves_nothing_and_the_next_one_succeeds(
        self, app: FastAPI, api: Api, names: Callable[[], list[str]]
    ) -> None:
        """PostgreSQL checks the deferred constraint when the statement is committed."""
        app.include_router(crud_router(Thing, prefix="/things"))
        assert post(api).status_code == 201
        refused = post(api)
        assert refused.status_code == 409
        assert refused.json()["code"] == "duplicate"
        assert names() == ["one"]
        missing = f"/things/{UUID(int=9)}"
        assert api.patch(missing, tenant="a", json={"name": "x"}).status_code == 404
        assert api.delete(missing, tenant="a").status_code == 404
        place = post(api, "two").headers["location"]
        assert api.patch(place, tenant="a", json={"name": "one"}).status_code == 409
        assert api.patch(place, tenant="b", json={"name": "x"}).status_code == 404
        stale = api.patch(place, tenant="a", json={"name": "x"}, headers={"If-Match": '"7"'})
        assert stale.status_code == 412
        assert names() == ["one", "two"]

    @pytest.mark.fast_way("driver", "autocommit")
    def test_a_read_of_a_dependency_before_it_changes_nothing(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]]
    ) -> None:
        async def reads(rows: Any = Depends(get_repository(Thing))) -> None:
            await rows.count()

        app.include_router(crud_router(Thing, prefix="/things", dependencies=[Depends(reads)]))
        with routes(caplog) as alone:
            assert post(api).status_code == 201
        assert alone == [True, True]
        assert names() == ["one"]


class TestWhatFollowsTheWrite:
    """What can still fail or write after the endpoint is in the same transaction."""

    @pytest.mark.parametrize("fails", [True, False])
    def test_a_dependency_that_ends_before_the_commit(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]], fails: bool
    ) -> None:
        async def ends(rows: Any = Depends(get_repository(Thing))) -> Any:
            yield
            await rows.create({"name": "at the end"})
            if fails:
                raise HTTPException(418)

        router = crud_router(Thing, prefix="/things", dependencies=[Depends(ends, scope="function")])
        app.include_router(router)
        with routes(caplog) as alone:
            assert post(api).status_code == (418 if fails else 201)
        assert alone == [False, False]
        assert names() == ([] if fails else ["at the end", "one"])

    @pytest.mark.fast_way("driver", "autocommit")
    def test_a_dependency_that_ends_after_the_response(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]]
    ) -> None:
        seen: list[list[str]] = []

        async def ends(rows: Any = Depends(get_repository(Thing))) -> Any:
            yield
            seen.append(names())

        app.include_router(crud_router(Thing, prefix="/things", dependencies=[Depends(ends)]))
        with routes(caplog) as alone:
            assert post(api).status_code == 201
        assert (seen, alone) == ([["one"]], [True])

    def test_a_dependency_that_has_written_before(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]]
    ) -> None:
        async def writes(rows: Any = Depends(get_repository(Thing))) -> None:
            await rows.create({"name": "before"})

        async def adds(session: Any = Depends(get_session)) -> None:
            session.add(Thing(id=UUID(int=2), name="added"))

        for path, dependency in (("/things", writes), ("/added", adds)):
            app.include_router(crud_router(Thing, prefix=path, dependencies=[Depends(dependency)]))
        with routes(caplog) as alone:
            assert post(api).status_code == 201
        assert alone == [False, False]
        assert post(api, "before").status_code == 409
        assert names() == ["before", "one"]
        assert post(api, "one", "/added").status_code == 409
        assert names() == ["before", "one"]
        assert post(api, "two", "/added").status_code == 201
        assert names() == ["added", "before", "one", "two"]

    def test_a_second_session_that_ends_first(
        self, app: FastAPI, api: Api, make_plugin: Callable[..., DatabasePlugin], names: Callable[[], list[str]]
    ) -> None:
        other = make_plugin(name="other")
        plugin = make_plugin(name="main")
        for each in (other, plugin):
            each.install(app)

        async def writes(
            _: Any = Depends(plugin.get_session), rows: Any = Depends(other.get_repository(Named))
        ) -> None:
            rows.db.add(Named(id="x", name="x"))
            rows.db.add(Named(id="y", name=None))  # fails when it is flushed, at the end of the request

        router = crud_router(Thing, prefix="/things", plugin=plugin, dependencies=[Depends(writes)])
        app.include_router(router)
        assert post(api).status_code in (409, 503)  # on SQLite only one of the sessions can write
        assert names() == []

    @pytest.mark.parametrize("fails", [True, False])
    def test_a_route_class_of_the_users(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]], fails: bool
    ) -> None:
        class Route(APIRoute):
            def get_route_handler(self) -> Any:
                handler = super().get_route_handler()

                async def handle(request: Request) -> Any:
                    response = await handler(request)
                    if fails:
                        raise HTTPException(418)
                    return response

                return handle

        app.include_router(crud_router(Thing, prefix="/things", route_class=Route))
        app.include_router(crud_router(Thing, prefix="/again", route_class=rerun_route()))
        with routes(caplog) as alone:
            assert post(api).status_code == (418 if fails else 201)
        assert alone == [False]
        assert names() == ([] if fails else ["one"])
        with routes(caplog) as alone:
            assert post(api, "two", "/again").status_code == 201
        assert alone == [False]

    @pytest.mark.parametrize("kind", ["validation", "serialization", "inherited"])
    def test_a_schema_of_the_users_that_fails(
        self, app: FastAPI, api: Api, names: Callable[[], list[str]], kind: str
    ) -> None:
        class Read(BaseModel):
            model_config = ConfigDict(from_attributes=True)

            name: str

            @field_validator("name")
            @classmethod
            def refuse(cls, name: str) -> str:
                raise ValueError("refused")

        app.include_router(crud_router(Thing, prefix="/things", read_schema=Read))
        with pytest.raises(ValueError, match="refused"):
            post(api)
        assert names() == []

    @pytest.mark.parametrize("method", ["create", "update", "delete"])
    def test_a_repository_of_the_users_that_fails_after_its_write(
        self, app: FastAPI, api: Api, names: Callable[[], list[str]], method: str
    ) -> None:
        async def write(self: Any, *arguments: Any, **options: Any) -> Any:
            await getattr(AsyncRepository, method)(self, *arguments, **options)
            raise HTTPException(418)

        things: Any = new_class("Things", (AsyncRepository[Thing],), {}, lambda body: body.update({method: write}))
        app.include_router(crud_router(Thing, prefix="/things"))
        app.include_router(crud_router(Thing, prefix="/mine", repository=things))
        if method == "create":
            assert post(api, path="/mine").status_code == 418
            assert names() == []
            return
        place = post(api).headers["location"].replace("/things", "/mine")
        answer = (
            api.patch(place, tenant="a", json={"name": "x"}) if method == "update" else api.delete(place, tenant="a")
        )
        assert answer.status_code == 418
        assert names() == ["one"]
        assert api.get(place, tenant="a").status_code == 200

    def test_a_key_that_no_path_can_contain(self, app: FastAPI, api: Api, database: Database) -> None:
        app.include_router(crud_router(Named, prefix="/named"))
        assert post(api, path="/named").status_code == 500
        with database.engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(Named)) == 0

    def test_a_reference_that_is_checked_afterwards(self, app: FastAPI, api: Api, caplog: Any) -> None:
        app.include_router(crud_router(Part, prefix="/parts"))
        with routes(caplog) as alone:
            assert api.post("/parts", tenant="a", json={}).status_code == 201
        assert alone == [False]

    @pytest.mark.parametrize("name", ["before_commit", "before_flush", "after_begin"])
    def test_a_listener_to_the_session_that_fails(
        self, app: FastAPI, api: Api, caplog: Any, names: Callable[[], list[str]], name: str
    ) -> None:
        def fails(*_: object) -> None:
            raise LookupError("mine")

        async def listens(session: Any = Depends(get_session)) -> None:
            event.listen(session.sync_session, name, fails)

        app.include_router(crud_router(Thing, prefix="/things", dependencies=[Depends(listens)]))
        with pytest.raises(LookupError):
            post(api)
        assert names() == []

    @pytest.mark.parametrize("name", ["load", "refresh"])
    def test_a_listener_to_loads_that_fails(
        self, app: FastAPI, api: Api, names: Callable[[], list[str]], name: str
    ) -> None:
        app.include_router(crud_router(Thing, prefix="/things"))
        place = post(api).headers["location"]

        def fails(*_: object) -> None:
            raise LookupError("mine")

        event.listen(Thing, name, fails)
        try:
            if name == "load":
                with pytest.raises(LookupError):
                    api.patch(place, tenant="a", json={"name": "two"})
            else:
                assert api.patch(place, tenant="a", json={"name": "one"}).status_code == 200
        finally:
            event.remove(Thing, name, fails)
        assert names() == ["one"]

    def test_a_listener_to_statements_that_fails(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, names: Callable[[], list[str]]
    ) -> None:
        def fails(*_: object) -> None:
            raise LookupError("mine")

        app.include_router(crud_router(Thing, prefix="/things"))
        engine = plugin.database.async_engine.sync_engine
        event.listen(engine, "after_cursor_execute", fails)
        try:
            with pytest.raises(LookupError):
                post(api)
        finally:
            event.remove(engine, "after_cursor_execute", fails)
        assert names() == []


class TestCallbacks:
    @pytest.mark.parametrize("taken", [True, False])
    def test_callbacks_are_called_at_the_end(
        self, app: FastAPI, api: Api, names: Callable[[], list[str]], taken: bool
    ) -> None:
        called: list[tuple[str, list[str]]] = []

        async def registers(session: Any = Depends(get_session)) -> None:
            on_commit(session, lambda: called.append(("commit", names())))
            on_rollback(session, lambda: called.append(("rollback", [])))

        app.include_router(crud_router(Thing, prefix="/things"))
        app.include_router(crud_router(Thing, prefix="/calling", dependencies=[Depends(registers)]))
        if taken:
            post(api)
        assert post(api, path="/calling").status_code == (409 if taken else 201)
        assert called == [("rollback", []) if taken else ("commit", ["one"])]

    def test_a_hook_that_registers_a_callback(self, app: FastAPI, api: Api, names: Callable[[], list[str]]) -> None:
        called: list[list[str]] = []

        class Things(AsyncRepository[Thing]):
            def values_for_create(self, values: dict[str, Any]) -> dict[str, Any]:
                on_commit(self.db, lambda: called.append(names()))
                return values

        app.include_router(crud_router(Thing, prefix="/things", repository=Things))
        assert post(api).status_code == 201
        assert called == [["one"]]

    def test_a_hook_that_fails(self, app: FastAPI, api: Api, names: Callable[[], list[str]]) -> None:
        class Things(AsyncRepository[Thing]):
            def values_for_create(self, values: dict[str, Any]) -> dict[str, Any]:
                raise HTTPException(418)

        app.include_router(crud_router(Thing, prefix="/things", repository=Things))
        assert post(api).status_code == 418
        assert names() == []

    @pytest.mark.fast_way("driver", "autocommit")
    def test_an_idempotency_key_is_recorded_with_the_row(self, app: FastAPI, api: Api, caplog: Any) -> None:
        app.include_router(crud_router(Thing, prefix="/things", idempotency=True))
        with routes(caplog) as alone:
            assert post(api).status_code == 201
        assert alone == [True]


WAITING = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@contextmanager
def locked(database: Database) -> Iterator[Callable[[str], Any]]:
    """Lock the table of things in this block, which gets a function that sends a query outside of the transaction."""
    with database.engine.begin() as holder, database.engine.connect() as other:
        holder.exec_driver_sql("LOCK TABLE last_things")
        asking = other.execution_options(isolation_level="AUTOCOMMIT")
        yield lambda query: asking.exec_driver_sql(query).scalar()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the server's state
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True, scope="module")
class TestServer:
    """What only PostgreSQL does."""

    @pytest.mark.fast_way("driver")  # a flush returns the values that it has sent
    def test_a_stored_row_that_violates_the_schema_is_a_success(
        self, app: FastAPI, api: Api, database: Database, names: Callable[[], list[str]]
    ) -> None:
        """As after a migration that the class does not know: the write must not be a failure that has taken effect."""
        app.include_router(crud_router(Thing, prefix="/things"))
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE last_things ALTER price DROP NOT NULL")
            connection.exec_driver_sql(
                "CREATE FUNCTION last_nothing() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN NEW.price := NULL; RETURN NEW; END $$"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER last_nothing BEFORE INSERT ON last_things FOR EACH ROW EXECUTE FUNCTION last_nothing()"
            )
        try:
            made = post(api)
        finally:
            with database.engine.begin() as connection:
                connection.exec_driver_sql("DROP FUNCTION last_nothing CASCADE")
                connection.exec_driver_sql("DELETE FROM last_things")
                connection.exec_driver_sql("ALTER TABLE last_things ALTER price SET NOT NULL")
        assert (made.status_code, made.json()["price"]) == (201, None)

    def test_a_cancelled_request_that_waits_for_a_lock_leaves_nothing(
        self, app: FastAPI, api: Api, database: Database, names: Callable[[], list[str]]
    ) -> None:
        app.include_router(crud_router(Thing, prefix="/things"))

        async def cancelled() -> None:
            with locked(database) as ask:
                request = asyncio.ensure_future(api.arequest("POST", "/things", tenant="a", json={"name": "one"}))
                await until(lambda: ask(f"SELECT count(*) {WAITING}"))
                request.cancel()
                await asyncio.wait([request])
                assert request.cancelled()
                await until(lambda: not ask(f"SELECT count(*) {WAITING}"))

        api.run(cancelled())
        assert names() == []

    @pytest.mark.fast_way("driver", "autocommit")
    def test_a_connection_that_is_lost_in_the_statement_is_an_unknown_outcome(
        self, app: FastAPI, api: Api, database: Database
    ) -> None:
        """As one that is lost in COMMIT: a 503 would tell clients to repeat what may have taken effect."""
        app.include_router(crud_router(Thing, prefix="/things"))

        async def lost() -> Any:
            with locked(database) as ask:
                request = asyncio.ensure_future(api.arequest("POST", "/things", tenant="a", json={"name": "one"}))
                await until(lambda: ask(f"SELECT count(pg_terminate_backend(pid)) {WAITING}"))
                return await request

        answer = api.run(lost())
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
