"""The request's tenant: where it comes from, and that requests never cross."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from sqlalchemy import select
from starlette.requests import HTTPConnection

from dotmac_database import ALL_TENANTS, Database, TenantRequiredError, create_repository
from dotmac_database_fastapi import (
    BadTenantError,
    get_repository,
    get_session,
    register_exception_handlers,
    tenant_from_header,
    tenant_from_path,
    tenant_from_subdomain,
)
from tests.fastapi.conftest import Api, MakePlugin
from tests.fastapi.shared_routers import crud_router
from tests.models import Country, Seat, Tag, User

HEADER = "X-Tenant-ID"


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    @app.get("/tenant")
    async def tenant(tags: Any = Depends(get_repository(Tag))) -> str:
        return str(tags.tenant_id)

    @app.get("/alone")
    async def alone(tenant: str = Depends(tenant_from_header(HEADER))) -> str:
        return tenant

    @app.get("/countries")
    async def countries(countries: Any = Depends(get_repository(Country))) -> int:
        return int(await countries.count())

    return app


class TestNames:
    @pytest.mark.parametrize("name", ["a", "A-b_c.d:e@f", "9" * 128])
    def test_good_ones(self, api: Api, name: str) -> None:
        assert api.get("/tenant", headers={HEADER: name}).json() == name
        assert api.get("/alone", headers={HEADER: name}).json() == name

    @pytest.mark.parametrize("place", ["{}a", "a{}", "{}a{}", "{}"])
    def test_nothing_is_stripped(self, place: str) -> None:
        """As the server hands it over, every byte that is no part of a name is refused, wherever it stands."""
        others = set(range(0x100)) - set(b"_-.:@") - {byte for byte in range(0x80) if chr(byte).isalnum()}
        for byte in others:
            name = place.replace("{}", chr(byte)).encode("latin-1")
            scope = {"type": "http", "headers": [(HEADER.lower().encode(), name)], "path_params": {}}
            with pytest.raises(BadTenantError):
                tenant_from_header(HEADER).read(HTTPConnection(scope))

    @pytest.mark.parametrize(
        "blank",
        [" ", "\t", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\n", "\u2003", "\u200b", "\u0430", "\u212a"],
    )
    @pytest.mark.parametrize("place", ["{}a", "a{}", "{}"])
    def test_nothing_is_stripped_elsewhere(self, blank: str, place: str) -> None:
        name = place.replace("{}", blank)
        headers = [(b"host", f"{name}.example.com".encode("latin-1", "replace"))]
        connection = HTTPConnection({"type": "http", "headers": headers, "path_params": {"tenant_id": name}})
        for source in (tenant_from_path(), tenant_from_subdomain(), tenant_from_subdomain("example.com")):
            with pytest.raises(BadTenantError):
                source.read(connection)

    @pytest.mark.parametrize("path", ["/tenant", "/alone"])
    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [(HEADER, "")],
            [(HEADER, "   ")],
            [(HEADER, "9" * 129)],
            [(HEADER, "a b")],
            [(HEADER, "a/b")],
            [(HEADER, "a\tb")],
            [(HEADER, " a")],
            [(HEADER, "a ")],
            [(HEADER, b"a\xa0")],
            [(HEADER, b"\x85a")],
            [(HEADER, b"a\x1c")],
            [(HEADER, b"\xc3\xa9")],
            [(HEADER, "a,b")],
            [(HEADER, "a"), (HEADER, "a")],
            [(HEADER, "a"), (HEADER, "b")],
        ],
    )
    def test_bad_ones(self, api: Api, path: str, headers: Any) -> None:
        answer = api.get(path, headers=headers)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert HEADER in answer.json()["detail"]

    def test_bad_ones_without_the_exception_handlers(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        app = FastAPI(lifespan=make_plugin().lifespan)

        @app.get("/repository")
        async def repository(_: Any = Depends(get_repository(Tag))) -> None: ...

        @app.get("/session")
        async def session(session: Any = Depends(get_session)) -> None:
            await session.scalars(select(Tag))

        api = Api(app, runner)
        assert api.get("/repository").status_code == 400
        assert api.get("/session").status_code == 400
        assert api.get("/session", headers={HEADER: "a b"}).status_code == 400

    def test_models_without_a_tenant_need_none(self, api: Api) -> None:
        assert api.get("/countries").json() == 0
        assert api.get("/countries", tenant="a").json() == 0


class TestSources:
    def test_the_same_arguments_give_the_same_dependency(self) -> None:
        assert tenant_from_header(HEADER) is tenant_from_header(name=HEADER)
        assert tenant_from_header() is tenant_from_header(HEADER)
        assert tenant_from_path() is tenant_from_path("tenant_id")
        assert tenant_from_subdomain() is tenant_from_subdomain(None)
        assert tenant_from_header("X-Other") is not tenant_from_header(HEADER)

    def test_path(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        app = FastAPI(lifespan=make_plugin(tenant=tenant_from_path("org")).lifespan)
        register_exception_handlers(app)
        app.include_router(crud_router(Tag, prefix="/orgs/{org}/tags"))
        api = Api(app, runner)
        made = api.post("/orgs/a/tags", json={"name": "one"})
        assert made.status_code == 201
        assert made.headers["location"].startswith("/orgs/a/tags/")
        assert api.get(made.headers["location"]).json() == made.json()
        assert api.get(made.headers["location"].replace("/a/", "/b/")).status_code == 404
        assert api.get(made.headers["location"].replace("/a/", "/b/")).status_code == 404
        assert api.get("/orgs/a%20b/tags").status_code == 400

    @pytest.mark.parametrize(
        ("domain", "host", "expected"),
        [
            (None, "acme.example.com", "acme"),
            (None, "ACME.example.com:8000", "acme"),
            (None, "acme.localhost:8000", "acme"),
            (None, "example.com", None),
            (None, "localhost", None),
            (None, "127.0.0.1:8000", None),
            (None, "[::1]:8000", None),
            (None, "a b.example.com", None),
            (None, "acme.example.com.", "acme"),
            (None, " acme.example.com", None),
            ("example.com", ".example.com", None),
            ("example.com", "acme.example.com", "acme"),
            ("example.com", "eu.acme.example.com", "eu.acme"),
            ("example.com", "acme.example.org", None),
            ("example.com", "example.com", None),
            ("example.com", "evilexample.com", None),
        ],
    )
    def test_subdomain(
        self, make_plugin: MakePlugin, runner: asyncio.Runner, domain: str | None, host: str, expected: str | None
    ) -> None:
        app = FastAPI(lifespan=make_plugin(tenant=tenant_from_subdomain(domain)).lifespan)

        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> str:
            return str(tags.tenant_id)

        answer = Api(app, runner).get("/", headers={"Host": host})
        assert (answer.status_code, answer.json() if expected else None) == (
            (200, expected) if expected else (400, None)
        )

    def test_any_dependency(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        async def user(authorization: Annotated[str, Header()]) -> str:
            return authorization.removeprefix("Bearer ")

        async def tenant(name: str = Depends(user)) -> Any:
            yield None if name == "nobody" else f"of-{name}"

        app = FastAPI(lifespan=make_plugin(tenant=tenant).lifespan)
        register_exception_handlers(app)

        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> str:
            return str(tags.tenant_id)

        api = Api(app, runner)
        assert api.get("/", headers={"Authorization": "Bearer ann"}).json() == "of-ann"
        assert api.get("/", headers={"Authorization": "Bearer nobody"}).status_code == 400
        assert api.get("/").status_code == 422

    def test_a_dependency_that_raises_is_heard(self, make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
        def tenant() -> str:
            raise TenantRequiredError("log in first")

        app = FastAPI(lifespan=make_plugin(tenant=tenant).lifespan)
        register_exception_handlers(app)

        @app.get("/")
        async def endpoint(_: Any = Depends(get_repository(Tag))) -> None: ...

        answer = Api(app, runner).get("/")
        assert answer.status_code == 400
        assert answer.json()["detail"] == "log in first"

    def test_tenants_of_another_type(self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database) -> None:
        app = FastAPI(lifespan=make_plugin().lifespan)
        register_exception_handlers(app)

        @app.post("/")
        async def endpoint(seats: Any = Depends(get_repository(Seat)), session: Any = Depends(get_session)) -> int:
            await seats.create({"number": 1})
            return len((await session.scalars(select(Seat))).all())

        api = Api(app, runner)
        assert api.post("/", tenant="7").json() == 1
        assert api.post("/", tenant="8").json() == 1
        assert api.post("/", tenant="seven").status_code == 400

    def test_all_tenants(self, make_plugin: MakePlugin, runner: asyncio.Runner, database: Database) -> None:
        with database.sessions.begin() as session:
            session.add_all([Tag(name="one", tenant_id="a"), Tag(name="two", tenant_id="b")])
        app = FastAPI(lifespan=make_plugin(tenant=lambda: ALL_TENANTS).lifespan)

        @app.get("/")
        async def endpoint(tags: Any = Depends(get_repository(Tag))) -> int:
            return len(await tags.list())

        assert Api(app, runner).get("/").json() == 2


class TestForeignRows:
    @pytest.fixture
    def app(self, app: FastAPI) -> FastAPI:
        app.include_router(crud_router(User, prefix="/users"))
        app.include_router(crud_router(Tag, prefix="/tags"))
        return app

    @pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "POST"])
    @pytest.mark.parametrize("condition", [{}, {"If-Match": '"1"'}, {"If-Match": '"1", "2"'}, {"If-Match": '"x"'}])
    def test_a_foreign_id_is_the_same_404_as_an_unknown_one(
        self, api: Api, method: str, condition: dict[str, str]
    ) -> None:
        foreign = api.post("/users", tenant="b", json={"name": "Ben"}).json()["id"]
        unknown = "00000000-0000-4000-8000-000000000000"
        options: dict[str, Any] = {"json": {"name": "Eve"}} if method == "PATCH" else {}
        end = "/restore" if method == "POST" else ""
        answers = [
            api.request(method, f"/users/{key}{end}", tenant="a", headers=condition, **options)
            for key in (foreign, unknown)
        ]
        assert answers[0].status_code == 404
        assert answers[0].content == answers[1].content
        assert answers[0].headers == answers[1].headers
        assert api.get(f"/users/{foreign}", tenant="b").json()["name"] == "Ben"

    def test_a_forged_tenant_is_refused(self, api: Api) -> None:
        assert api.post("/tags", tenant="a", json={"name": "x", "tenant_id": "b"}).status_code == 422
        assert api.get("/tags?tenant_id=b", tenant="a").status_code == 422


def test_interleaved_requests_of_many_tenants_never_cross(
    make_plugin: MakePlugin, runner: asyncio.Runner, database: Database
) -> None:
    """1,000 requests of 20 tenants over 3 connections, half of them writing, some failing."""
    plugin = make_plugin(pool_size=3, max_overflow=0, pool_timeout=60)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    @app.get("/")
    async def read(tags: Any = Depends(get_repository(Tag)), session: Any = Depends(get_session)) -> list[str]:
        listed = [tag.tenant_id for tag in await tags.list()]
        await asyncio.sleep(0)
        return listed + [tag.tenant_id for tag in (await session.scalars(select(Tag))).all()]

    @app.post("/")
    async def write(fail: bool = False, tags: Any = Depends(get_repository(Tag))) -> str:
        tag = await tags.create({"name": tags.tenant_id})
        await asyncio.sleep(0)
        if fail:
            raise TenantRequiredError("on purpose")
        return str(tag.tenant_id)

    choose = random.Random(3)
    work = [(f"t{choose.randrange(20)}", choose.choice(["r", "r", "w", "w", "f"])) for _ in range(1000)]
    api = Api(app, runner)

    async def one(client: Any, tenant: str, kind: str) -> None:
        headers = {HEADER: tenant}
        match kind:
            case "r":
                answer = await client.get("/", headers=headers)
                assert set(answer.json()) <= {tenant}
            case "w":
                assert (await client.post("/", headers=headers)).json() == tenant
            case _:
                assert (await client.post("/?fail=1", headers=headers)).status_code == 400

    async def all_of_them() -> None:
        limit = asyncio.Semaphore(50)
        async with api.client() as client:

            async def limited(tenant: str, kind: str) -> None:
                async with limit:
                    await one(client, tenant, kind)

            await asyncio.gather(*(limited(tenant, kind) for tenant, kind in work))

    api.run(all_of_them())
    with database.sessions() as session:
        for number in range(20):
            tenant = f"t{number}"
            held = create_repository(session, Tag, tenant).list()
            assert [tag.name for tag in held] == [tenant] * work.count((tenant, "w"))
