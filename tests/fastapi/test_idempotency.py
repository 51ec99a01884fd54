"""Repeated requests: whose first answer they get, and for how long."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Header
from sqlalchemy import MetaData, func, select, update
from sqlalchemy.ext.asyncio import async_sessionmaker

from dotmac_database import Database, ValidationError, idempotency_metadata
from dotmac_database.types import utc_now
from dotmac_database_fastapi import crud_router, get_session, register_exception_handlers, tenant_from_header
from dotmac_database_fastapi.idempotency import PURGE_BATCH
from tests.conftest import counted
from tests.fastapi.conftest import Api, MakePlugin
from tests.models import Base, Country, Tag, User

KEYS = idempotency_metadata.tables["dotmac_idempotency_keys"]


async def actor(x_user: str | None = Header(None)) -> str | None:
    return x_user


@pytest.fixture(scope="module")
def tables() -> MetaData:
    metadata = MetaData()
    for table in (*Base.metadata.tables.values(), KEYS):
        table.to_metadata(metadata)
    return metadata


@pytest.fixture(scope="module")
def shared_options() -> dict[str, Any]:
    return {"tenant": tenant_from_header("X-Tenant-ID"), "actor": actor}


def add_routes(app: FastAPI) -> None:
    app.include_router(crud_router(User, prefix="/users", idempotency=True))
    app.include_router(crud_router(Tag, prefix="/tags", idempotency=True))
    app.include_router(crud_router(Country, prefix="/countries", idempotency=True))


@pytest.fixture(scope="module")
def served(shared_api: Api) -> Api:
    add_routes(shared_api.app)
    return shared_api


@pytest.fixture
def api(served: Api, emptied: None) -> Api:
    return served


@pytest.fixture
def own_api(make_plugin: MakePlugin, runner: asyncio.Runner) -> Api:
    """An app of the test alone, which has not deleted expired keys yet."""
    app = FastAPI(lifespan=make_plugin(actor=actor).lifespan)
    register_exception_handlers(app)
    add_routes(app)
    return Api(app, runner)


def send(api: Api, path: str = "/users", *, tenant: str | None = "a", user: str | None = None, **options: Any) -> Any:
    headers = {"Idempotency-Key": options.pop("key", "k1"), **({"X-User": user} if user is not None else {})}
    return api.post(path, tenant=tenant, headers=headers, json=options.pop("json", {"name": "Ann"}), **options)


def recorded(database: Database) -> int:
    with database.engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(KEYS)) or 0)


def age(database: Database, by: timedelta) -> None:
    """Let time pass for all keys."""
    with database.engine.begin() as connection:
        for row in connection.execute(select(KEYS)).all():
            changed = {"created_at": row.created_at - by, "expires_at": row.expires_at - by}
            same = (KEYS.c.tenant_id == row.tenant_id, KEYS.c.key == row.key)
            connection.execute(update(KEYS).where(*same).values(changed))


class TestBinding:
    def test_a_repeated_request_gets_its_first_answer(self, api: Api) -> None:
        first, again = send(api), send(api)
        assert (again.status_code, again.content) == (201, first.content)
        assert {again.headers[name] == first.headers[name] for name in ("location", "etag", "content-type")} == {True}
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        assert api.get("/users", tenant="a").json()["total"] == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"json": {"name": "Ann", "score": 1}},
            {"json": {"name": "Ben"}},
            {"path": "/users?x=1"},
            {"path": "/tags"},
        ],
        ids=str,
    )
    def test_another_request_with_the_key_is_refused(self, api: Api, other: dict[str, Any]) -> None:
        send(api)
        answer = send(api, **other)
        assert answer.status_code == 422
        assert answer.json()["fields"] == ["Idempotency-Key"]
        assert "Ann" not in answer.text

    def test_whose_request_it_is(self, api: Api) -> None:
        """Each of them has the key for itself, and sees nothing of the others' answers."""
        callers = [("a", None), ("b", None), ("a", "ann"), ("a", "ben"), ("b", "ann"), ("a", "None"), ("a", "")]
        answers = [send(api, tenant=tenant, user=user) for tenant, user in callers]
        assert all("idempotency-replayed" not in answer.headers for answer in answers)
        assert len({answer.json()["id"] for answer in answers}) == len(callers)
        again = [send(api, tenant=tenant, user=user) for tenant, user in callers]
        assert [answer.content for answer in again] == [answer.content for answer in answers]

    def test_another_actors_other_request_is_no_conflict(self, api: Api) -> None:
        """A conflict would tell that the key is in use."""
        send(api, user="ann")
        assert send(api, user="ben", json={"name": "Ben"}).status_code == 201

    @pytest.mark.parametrize("pairs", [[("a", "b:k"), ("a:b", "k")], [("ab", "c"), ("a", "bc")]])
    def test_no_part_is_taken_for_a_piece_of_its_neighbour(self, api: Api, pairs: list[tuple[str, str]]) -> None:
        answers = [send(api, user=user, key=key) for user, key in pairs]
        assert len({answer.json()["id"] for answer in answers}) == 2

    def test_nobodys_key_is_no_actors_digest(self, api: Api, database: Database) -> None:
        send(api, user="ann")
        with database.engine.connect() as connection:
            kept = connection.scalar(select(KEYS.c.key))
        assert "idempotency-replayed" not in send(api, key=kept).headers

    def test_rows_of_nobody_are_still_the_requests(self, api: Api) -> None:
        data = {"code": "fi", "name": "Finland"}
        assert send(api, "/countries", tenant=None, json=data).status_code == 201
        assert send(api, "/countries", tenant=None, json=data).headers["idempotency-replayed"] == "true"
        assert send(api, "/countries", tenant="a", json=data).status_code == 409

    def test_a_session_of_the_tests_own_mixes_no_tenants(
        self, own_api: Api, database: Database, runner: asyncio.Runner
    ) -> None:
        maker = async_sessionmaker(database.async_engine, expire_on_commit=False)

        async def plain() -> Any:
            async with maker.begin() as session:
                yield session

        own_api.app.dependency_overrides[get_session] = plain
        first, other = send(own_api, tenant="a"), send(own_api, tenant="b")
        assert first.json()["id"] != other.json()["id"]
        runner.run(database.async_engine.dispose())

    def test_a_failure_leaves_the_key_free(self, api: Api) -> None:
        assert send(api, json={}).status_code == 422
        assert send(api).status_code == 201

    @pytest.mark.parametrize("many", [2, 8])
    def test_of_many_at_once_one_writes(self, api: Api, many: int) -> None:
        async def burst() -> list[httpx.Response]:
            headers = {"Idempotency-Key": "k3"}
            return await asyncio.gather(
                *(api.arequest("POST", "/users", tenant="a", json={"name": "A"}, headers=headers) for _ in range(many))
            )

        answers = api.run(burst())
        assert [answer.status_code for answer in answers] == [201] * many
        assert len({answer.content for answer in answers}) == 1
        assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
        assert api.get("/users", tenant="a").json()["total"] == 1


class TestLifetime:
    def test_a_key_is_kept_for_a_day(self, api: Api, database: Database) -> None:
        first = send(api)
        age(database, timedelta(hours=23, minutes=59))
        assert send(api).content == first.content
        age(database, timedelta(minutes=2))
        later = send(api, json={"name": "Ben"})
        assert later.status_code == 201
        assert later.json()["id"] != first.json()["id"]
        assert send(api, json={"name": "Ben"}).content == later.content

    def test_of_many_that_take_over_an_old_key_one_writes(self, api: Api, database: Database) -> None:
        send(api)
        age(database, timedelta(days=2))

        async def burst() -> list[httpx.Response]:
            headers = {"Idempotency-Key": "k1"}
            return await asyncio.gather(
                *(api.arequest("POST", "/users", tenant="a", json={"name": "B"}, headers=headers) for _ in range(4))
            )

        answers = api.run(burst())
        assert [answer.status_code for answer in answers] == [201] * 4
        assert len({answer.content for answer in answers}) == 1
        assert api.get("/users", tenant="a").json()["total"] == 2

    @pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
    @pytest.mark.parametrize("on", ["plugin", "router"])
    def test_the_plugin_and_the_router_say_how_long(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database, ttl: Any, on: str
    ) -> None:
        options = {"idempotency_ttl": ttl}
        app = FastAPI(lifespan=make_plugin(**(options if on == "plugin" else {"idempotency_ttl": 5})).lifespan)
        app.include_router(crud_router(User, "/users", idempotency=True, **(options if on == "router" else {})))
        api = Api(app, runner)
        first = send(api)
        age(database, timedelta(seconds=50))
        assert send(api).content == first.content
        age(database, timedelta(seconds=20))
        assert send(api).content != first.content

    @pytest.mark.parametrize("ttl", [0, -1, timedelta(0), timedelta(seconds=-5)])
    def test_a_senseless_time_is_refused_at_once(self, make_plugin: MakePlugin, ttl: Any) -> None:
        with pytest.raises(ValidationError, match="idempotency_ttl"):
            make_plugin(idempotency_ttl=ttl)
        with pytest.raises(ValidationError, match="idempotency_ttl"):
            crud_router(User, idempotency=True, idempotency_ttl=ttl)

    def test_expired_keys_are_removed_in_batches_and_not_by_every_request(
        self, own_api: Api, database: Database
    ) -> None:
        past = utc_now() - timedelta(days=1)
        rows = [
            {"tenant_id": f"t{n}", "key": str(n), "created_at": past, "expires_at": past}
            for n in range(PURGE_BATCH + 10)
        ]
        with database.engine.begin() as connection:
            connection.execute(KEYS.insert(), rows)
        send(own_api, key="first")
        assert recorded(database) == 10 + 1
        send(own_api, key="second")
        assert recorded(database) == 2
        with database.engine.begin() as connection:
            connection.execute(KEYS.insert(), rows[:3])
        send(own_api, key="third")
        assert recorded(database) == 2 + 3 + 1, "it has looked only lately"

    def test_what_it_costs(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        plugin = make_plugin()
        app = FastAPI(lifespan=plugin.lifespan)
        app.include_router(crud_router(User, "/users", idempotency=True))
        api = Api(app, runner)
        send(api, key="first")
        with counted(plugin.database.async_engine.sync_engine) as sent:
            send(api, key="second")
        assert len([each for each in sent if not each.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]) == 3
