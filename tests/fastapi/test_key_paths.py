"""A row's own URL: what POST answers with 201 is read, changed, deleted and restored at its Location."""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, synonym

from dotmac_database import SoftDeleteMixin
from dotmac_database_fastapi import DatabasePlugin, register_exception_handlers
from tests.fastapi.conftest import Api, serving
from tests.fastapi.shared_routers import crud_router


class Base(DeclarativeBase):
    pass


class Path(enum.Enum):
    """Members whose values a path has trouble with."""

    HOME = "a/b"
    PLAIN = "a b"


KEY_TYPES: dict[str, tuple[Any, list[Any]]] = {
    "date": (sa.Date(), ["2024-02-29"]),
    "datetime": (sa.DateTime(), ["2024-02-29T12:00:00.123456"]),
    "zoned": (sa.DateTime(timezone=True), ["2024-02-29T12:00:00.123456+02:00", "2024-02-29T12:00:00Z"]),
    "time": (sa.Time(), ["12:30:00.5"]),
    "interval": (sa.Interval(), ["P1DT2H", "-P1D"]),
    "decimal": (sa.Numeric(20, 2), ["1.00", "-2.50"]),
    "scaleless": (sa.Numeric(), ["1.5", "-7"]),
    "float": (sa.Double(), [1e20, -0.5, 1e-7]),
    "boolean": (sa.Boolean(), [True, False]),
    "uuid": (sa.Uuid(), ["018f3c2e-0000-7000-8000-0123456789ab"]),
    "bytes": (sa.LargeBinary(), ["+/8=", "aGVsbG8="]),
    "enum": (sa.Enum(Path, values_callable=lambda e: [m.value for m in e], name="key_paths_place"), ["a/b", "a b"]),
    "names": (sa.Enum("x/y", "..", "x y", name="key_paths_word"), ["x/y", "..", "x y"]),
    "integer": (sa.BigInteger(), [-1, 0, 2**40]),
}

TEXTS = [
    "plain", "a/b", "/", "a/", ".", "..", "...", "", "%2F", "a%2Fb", "%2e", "%", "?", "a?b=c", "#", ";x", "a b", " ",
    "\\", "..\\x", "\n", "a\r\nb", "\t", "\x00", "a\x00", "\x7f", "déjà", "日本語", "😀", "restore", "a/restore",
    "+", "&=,", "@:", "~", "x" * 1200, "é" * 1300, "{id}", "'\"", "export", "\u2028",
]  # fmt: skip


class Named(SoftDeleteMixin, Base):
    __tablename__ = "key_paths_named"
    name: Mapped[str] = mapped_column(sa.String, primary_key=True)
    note: Mapped[str | None]


class Pair(SoftDeleteMixin, Base):
    __tablename__ = "key_paths_pair"
    left: Mapped[str] = mapped_column(sa.String, primary_key=True)
    right: Mapped[str] = mapped_column(sa.String, primary_key=True)
    note: Mapped[str | None]


TYPED: dict[str, type[Any]] = {
    name: type(
        f"Key{name.title()}",
        (SoftDeleteMixin, Base),
        {
            "__tablename__": f"key_paths_{name}",
            "key": mapped_column(type_, primary_key=True, autoincrement=False),
            "note": mapped_column(sa.String, nullable=True),
        },
    )
    for name, (type_, _) in KEY_TYPES.items()
}


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


def routes() -> APIRouter:
    router = APIRouter()
    router.include_router(crud_router(Named, prefix="/named"))
    router.include_router(crud_router(Named, prefix="/tenants/{tenant_id}/named"))
    router.include_router(crud_router(Pair, prefix="/pairs"))
    for name, model in TYPED.items():
        router.include_router(crud_router(model, prefix=f"/{name}"))
    return router


@pytest.fixture
def app(plugin: DatabasePlugin) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(routes())
    return app


def followed(call: Any, collection: str, row: dict[str, Any], fields: set[str]) -> str | None:
    """What is wrong with the answers at a new row's Location; None: nothing."""
    answer = call("POST", collection, json=row)
    if answer.status_code == 422:
        said = answer.json()
        named = {each["loc"][-1] for each in said.get("errors", ())} | set(said.get("fields", ()))
        return None if named & fields else f"refused without a field: {answer.text}"
    if answer.status_code != 201:
        return f"POST {answer.status_code} {answer.text[:100]}"
    location = answer.headers["location"]
    found = call("GET", location)
    if found.status_code != 200 or found.json() != answer.json():
        return f"GET {location[:60]} {found.status_code}: {found.text[:150]} after {answer.text[:150]}"
    for method, path, status, data in (
        ("PATCH", location, 200, {"note": "n"}),
        ("DELETE", location, 204, None),
        ("POST", f"{location}/restore", 200, None),
        ("DELETE", location, 204, None),
    ):
        answer = call(method, path, **({} if data is None else {"json": data}))
        if answer.status_code != status:
            return f"{method} {path[:60]} {answer.status_code} {answer.text[:100]}"
    return None


def wrong(call: Any) -> list[str]:
    cells: list[tuple[str, dict[str, Any], set[str]]] = []
    cells += [("/named", {"name": text}, {"name"}) for text in TEXTS]
    cells += [("/pairs", {"left": text, "right": "r"}, {"left"}) for text in TEXTS[::3]]
    cells += [("/pairs", {"left": "l", "right": text}, {"right", "left"}) for text in TEXTS[1::3]]
    cells += [(f"/{name}", {"key": value}, {"key"}) for name, (_, values) in KEY_TYPES.items() for value in values]
    found = [(path, row, followed(call, path, row, fields)) for path, row, fields in cells]
    return [f"{path} {str(row)[:60]}: {said}" for path, row, said in found if said is not None]


def test_a_new_row_is_found_in_process(api: Api) -> None:
    assert wrong(lambda method, path, **more: api.request(method, path, tenant="a", **more)) == []


def test_a_new_row_is_found_by_a_real_server(app: FastAPI) -> None:
    with serving(app) as url, httpx.Client(base_url=url, headers={"X-Tenant-ID": "a"}, timeout=90) as client:
        assert wrong(client.request) == []


@pytest.mark.parametrize("way", ["root_path", "stripped", "mounted"])
def test_a_location_has_the_root_path_and_the_prefix_encoded(
    plugin: DatabasePlugin, runner: asyncio.Runner, way: str
) -> None:
    inner = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(inner)
    inner.include_router(routes())
    outer = FastAPI()
    outer.mount("/api", inner)
    mounted = way == "mounted"
    transport = httpx.ASGITransport(outer if mounted else inner, root_path="" if mounted else "/api")
    collection = "/tenants/d%C3%A9j%C3%A0%3Fa%20b%23/named"

    async def follow() -> None:
        headers = {"X-Tenant-ID": "a"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            # A proxy may take the prefix away, and a server put it back.
            answer = await client.post(f"{'' if way == 'stripped' else '/api'}{collection}", json={"name": "x y"})
            assert answer.status_code == 201, answer.text
            assert answer.headers["location"] == f"/api{collection}/x%20y"
            assert (await client.get(answer.headers["location"])).json() == answer.json()

    runner.run(follow())


_MADE: dict[str, str] = {"slash": "a/b", "empty": "", "dots": "..", "long": "x" * 4001}
"""Keys that the app makes, and no URL can lead to."""

_next_key = "plain"


class Slug(Base):
    __tablename__ = "key_paths_slug"
    name: Mapped[str] = mapped_column(sa.String, primary_key=True, default=lambda: _next_key)
    code = synonym("name")
    note: Mapped[str | None]


class Dated(Base):
    __tablename__ = "key_paths_dated"
    day: Mapped[str] = mapped_column(sa.String, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String, primary_key=True, default=lambda: _next_key)


class SlugData(BaseModel):
    """A schema that makes a key of its own."""

    name: str = Field(default_factory=lambda: _next_key)


class CodeData(BaseModel):
    """A schema that names the key by its synonym."""

    code: str | None = None


class NoteData(BaseModel):
    """A schema of a change, whose default for the key is never written."""

    name: str = ""
    note: str | None = None


def test_a_key_that_the_app_made_is_not_the_clients_fault(
    plugin: DatabasePlugin,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Slug, prefix="/derived"))
    app.include_router(crud_router(Slug, prefix="/schema", create_schema=SlugData))
    app.include_router(crud_router(Slug, prefix="/synonym", create_schema=CodeData))
    app.include_router(crud_router(Dated, prefix="/dated"))
    api = Api(app, runner)
    for name, value in _MADE.items():
        monkeypatch.setattr(f"{__name__}._next_key", value)
        for path, row in (("/derived", {}), ("/schema", {}), ("/synonym", {}), ("/dated", {"day": "1"})):
            caplog.clear()
            answer = api.post(path, tenant="a", json=row)
            assert (answer.status_code, "detail" in answer.json()) == (500, False), f"{name} {path} {answer.text}"
            (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
            assert "name: the app made a key that no URL can lead to" in record.getMessage()
            assert api.get(path, tenant="a").json()["total"] == 0
    monkeypatch.setattr(f"{__name__}._next_key", "plain")
    for path, row in (
        ("/schema", {"name": "a/b"}),
        ("/schema", {"name": "a\x00"}),
        ("/schema", {"name": ""}),
        ("/synonym", {"code": ".."}),
        ("/dated", {"day": "a/b"}),
        ("/dated", {"day": "x" * 4001}),
    ):
        assert api.post(path, tenant="a", json=row).status_code == 422, (path, row)


def test_a_default_that_a_change_does_not_write_is_nobodys_fault(
    plugin: DatabasePlugin, runner: asyncio.Runner
) -> None:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Slug, prefix="/slugs", update_schema=NoteData))
    api = Api(app, runner)
    assert api.post("/slugs", tenant="a", json={}).headers["Location"] == "/slugs/plain"
    assert api.patch("/slugs/plain", tenant="a", json={"note": "n"}).status_code == 200
