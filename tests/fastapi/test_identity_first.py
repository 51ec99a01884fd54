"""Who calls comes first: an anonymous caller is a 401, whatever else is wrong and however the endpoint is written."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Security
from pydantic import BaseModel
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.requests import HTTPConnection

from dotmac_database import TenantMixin
from dotmac_database_fastapi import (
    DatabasePlugin,
    PageQuery,
    filter_query,
    get_repository,
    get_session,
    get_sync_repository,
    options_query,
    register_exception_handlers,
    sort_query,
    tenant_from_header,
)
from tests.fastapi.shared_routers import crud_router


class Base(DeclarativeBase):
    pass


class Note(TenantMixin, Base):
    __tablename__ = "identity_note"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Body(BaseModel):
    title: str


async def user(connection: HTTPConnection) -> str:
    if "authorization" not in connection.headers:
        raise HTTPException(401, "Who are you?")
    return "ada"


async def tenant_of_user(name: str = Depends(user)) -> str:
    return name


FAULTS: dict[str, dict[str, Any]] = {
    "no tenant": {"url": "/notes/1", "json": {"title": "a"}},
    "bad tenant": {"url": "/notes/1", "json": {"title": "a"}, "headers": {"X-Tenant-ID": "a b"}},
    "bad page": {"url": "/notes/1?page=x", "json": {"title": "a"}, "headers": {"X-Tenant-ID": "a"}},
    "bad filter": {"url": "/notes/1?nothing=x", "json": {"title": "a"}, "headers": {"X-Tenant-ID": "a"}},
    "bad body": {"url": "/notes/1", "json": {"title": 1}, "headers": {"X-Tenant-ID": "a"}},
    "bad id": {"url": "/notes/x", "json": {"title": "a"}, "headers": {"X-Tenant-ID": "a"}},
}

SOURCES: dict[str, Any] = {
    "repository": get_repository(Note),
    "sync repository": get_sync_repository(Note),
    "session": get_session,
    "filter": filter_query(Note),
    "sort": sort_query(Note),
    "options": options_query(Note),
}


def app_of(identity: str, source: str, *, first: bool, sync: bool) -> FastAPI:
    plugin_options: dict[str, Any] = {"tenant": tenant_from_header("X-Tenant-ID")}
    if identity == "actor":
        plugin_options["actor"] = user
    if identity == "tenant":
        plugin_options["tenant"] = tenant_of_user
    app = FastAPI()
    DatabasePlugin("sqlite://", **plugin_options).install(app)
    register_exception_handlers(app)
    mark = {"own": Depends(user), "security": Security(user, scopes=["notes"])}.get(identity)
    around = [Depends(user)] if identity == "router" else []
    # Without a repository or session nobody asks the plugin, whose identity is then not the endpoint's.
    needed = SOURCES["session"] if source in ("filter", "sort", "options") else None
    given = {"data": Depends(SOURCES[source]), "who": mark, "more": Depends(needed) if needed else None}
    names = ["who", "data", "more"] if first else ["data", "more", "who"]
    declared = {name: given[name] for name in names if given[name] is not None}

    def endpoint(**_: Any) -> None:
        raise AssertionError("the endpoint must not run")

    async def async_endpoint(**_: Any) -> None:
        raise AssertionError("the endpoint must not run")

    chosen: Any = endpoint if sync else async_endpoint
    chosen.__signature__ = inspect.Signature(
        [
            inspect.Parameter("id", inspect.Parameter.KEYWORD_ONLY, annotation=int),
            inspect.Parameter("body", inspect.Parameter.KEYWORD_ONLY, annotation=Body),
            inspect.Parameter("page", inspect.Parameter.KEYWORD_ONLY, annotation=PageQuery),
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=Any)
                for name, value in declared.items()
            ),
        ]
    )
    app.post("/notes/{id}", dependencies=around)(chosen)
    return app


@pytest.mark.parametrize("source", list(SOURCES))
@pytest.mark.parametrize("identity", ["actor", "tenant", "own", "security", "router"])
def test_an_anonymous_caller_is_a_401_whatever_else_is_wrong(identity: str, source: str, runner: Any) -> None:
    async def wrong() -> list[str]:
        found = []
        for first, sync in itertools.product([True, False], [True, False]):
            app = app_of(identity, source, first=first, sync=sync)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                for fault, request in FAULTS.items():
                    answer = await client.post(**request)
                    if answer.status_code != 401:
                        found.append(f"{first=} {sync=} {fault}: {answer.status_code} {answer.text}")
        return found

    assert runner.run(wrong()) == []


GENERATED: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/notes", {}),
    ("GET", "/notes?page=x", {}),
    ("GET", "/notes?nothing=1", {"headers": {"X-Tenant-ID": "a"}}),
    ("GET", "/notes", {"headers": {"X-Tenant-ID": "a b"}}),
    ("GET", "/notes/x", {}),
    ("POST", "/notes", {"json": {"title": 1}}),
    ("PATCH", "/notes/1", {"json": {"nothing": 1}, "headers": {"X-Tenant-ID": "a"}}),
    ("DELETE", "/notes/x", {"headers": {"X-Tenant-ID": "a b"}}),
]


@pytest.mark.parametrize("identity", ["actor", "tenant", "router"])
def test_the_generated_routes_know_the_caller_first(identity: str, runner: Any) -> None:
    options: dict[str, Any] = {"actor": user} if identity == "actor" else {}
    options["tenant"] = tenant_of_user if identity == "tenant" else tenant_from_header("X-Tenant-ID")
    app = FastAPI()
    DatabasePlugin("sqlite://", **options).install(app)
    around = [Depends(user)] if identity == "router" else []
    app.include_router(crud_router(Note, prefix="/notes"), dependencies=around)
    register_exception_handlers(app)

    async def answers() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            got = [(method, url, await client.request(method, url, **more)) for method, url, more in GENERATED]
        return [f"{method} {url}: {got.status_code}" for method, url, got in got if got.status_code != 401]

    assert runner.run(answers()) == []


async def user_of_session(connection: HTTPConnection, session: Any = Depends(get_session)) -> str:
    return await user(connection)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("override", [False, True])
def test_a_nested_dependency_stands_before_the_user(known: bool, override: bool, runner: Any) -> None:
    """A service that holds the repository; the dependencies before it are not solved again."""
    app, solved = FastAPI(), []
    DatabasePlugin("sqlite://", tenant=tenant_from_header("X-Tenant-ID")).install(app)
    register_exception_handlers(app)

    async def before() -> None:
        solved.append("before")

    async def service(notes: Any = Depends(get_repository(Note))) -> Any:
        return notes

    async def replaced(notes: Any = Depends(get_repository(Note))) -> Any:
        return notes

    @app.get("/")
    async def endpoint(
        early: None = Depends(before),
        notes: Any = Depends(service),
        lost: str = Depends(user_of_session),
        who: str = Depends(user),
    ) -> None:
        raise AssertionError("the endpoint must not run")

    if override:
        app.dependency_overrides[service] = replaced

    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/", headers={"Authorization": "a"} if known else {})

    assert runner.run(answer()).status_code == (400 if known else 401)
    assert solved == ["before"]
