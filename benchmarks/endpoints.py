"""Case K: the CPU time that an app needs for one request, for a list of 100 rows with its total and for a POST.

The contenders are apps. Each app is called through its ASGI interface, without an HTTP server or client, so that only
the app and its database driver are measured. The responses are compared before the measurement.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from dotmac_database_fastapi import DatabasePlugin, crud_router, tenant_from_header

from .contenders import TENANT
from .schema import User

LIST = "/users?status=active&sort=-created_at&page=1&per_page=100"


class UserCreate(BaseModel):
    name: str
    email: str
    score: int = 0
    bio: str | None = None


class UserRead(UserCreate):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    status: str
    created_at: datetime


class Page(BaseModel):
    items: list[UserRead]
    total: int


App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


async def call(app: App, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    """Send one request to ``app``: the status and the body of its response."""
    plain, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "headers": [(b"x-tenant-id", TENANT.encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
        "root_path": "",
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def toolkit(url: str) -> FastAPI:
    plugin = DatabasePlugin(url, tenant=tenant_from_header("X-Tenant-ID"), pool_size=2)
    app = FastAPI()
    plugin.install(app)
    app.include_router(crud_router(User, prefix="/users"))
    app.state.dispose = plugin.database.dispose_async
    return app


def _by_hand(url: str) -> tuple[FastAPI, Any, AsyncEngine]:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=2)
    maker = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> Any:
        async with maker() as session:
            yield session

    app = FastAPI()
    app.state.dispose = engine.dispose
    return app, get_session, engine


def _own() -> Any:
    return select(User).where(User.tenant_id == TENANT, User.is_deleted.is_(False))


def sqlalchemy_by_hand(url: str) -> FastAPI:
    app, get_session, _ = _by_hand(url)

    @app.get("/users", response_model=Page)
    async def list_users(
        status: str, page: int = 1, per_page: int = 20, session: AsyncSession = Depends(get_session)
    ) -> Any:
        selected = _own().where(User.status == status)
        total = await session.scalar(select(func.count()).select_from(selected.subquery()))
        ordered = (
            selected.order_by(User.created_at.desc(), User.id.desc()).limit(per_page).offset((page - 1) * per_page)
        )
        return {"items": (await session.execute(ordered)).scalars().all(), "total": total}

    @app.post("/users", response_model=UserRead, status_code=201)
    async def create_user(data: UserCreate, session: AsyncSession = Depends(get_session)) -> Any:
        user = User(tenant_id=TENANT, id=uuid4(), **data.model_dump())
        session.add(user)
        await session.commit()
        return user

    return app


def hand_tuned(url: str) -> FastAPI:
    """asyncpg and orjson, with hand-written SQL: about the least that FastAPI and the driver need."""
    import asyncpg
    import orjson

    app, pool = FastAPI(), asyncpg.create_pool(url, min_size=1, max_size=2)
    app.state.dispose = pool.close
    keys = tuple(UserRead.model_fields)
    names = ", ".join(keys)
    own = "tenant_id = $1 AND NOT is_deleted AND status = $2"
    page_sql = (
        f"SELECT {names}, (SELECT count(*) FROM bench_users WHERE {own}) AS total FROM bench_users WHERE {own}"
        " ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
    )
    insert_sql = (
        "INSERT INTO bench_users (tenant_id, id, name, email, status, score, bio, created_at, is_deleted)"
        f" VALUES ($1, $2, $3, $4, 'active', $5, $6, $7, false) RETURNING {names}"
    )

    def answer(content: Any, status: int = 200) -> Response:
        return Response(orjson.dumps(content, str, orjson.OPT_UTC_Z), status, media_type="application/json")

    @app.get("/users")
    async def list_users(request: Request, status: str, page: int = 1, per_page: int = 20) -> Response:
        rows = await (await pool).fetch(
            page_sql, request.headers["x-tenant-id"], status, per_page, (page - 1) * per_page
        )
        items = [dict(zip(keys, row, strict=False)) for row in rows]
        return answer({"items": items, "total": rows[0]["total"]})

    @app.post("/users")
    async def create_user(request: Request, data: UserCreate) -> Response:
        tenant, now = request.headers["x-tenant-id"], datetime.now(UTC)
        values = tenant, uuid4(), data.name, data.email, data.score, data.bio, now
        return answer(dict(await (await pool).fetchrow(insert_sql, *values)), 201)

    return app


def fastapi_pagination(url: str) -> FastAPI:
    from fastapi_pagination import Page as Numbered
    from fastapi_pagination import Params, add_pagination
    from fastapi_pagination.ext.sqlalchemy import apaginate

    app, get_session, _ = _by_hand(url)

    @app.get("/users", response_model=Numbered[UserRead])
    async def list_users(status: str, per_page: int = 20, session: AsyncSession = Depends(get_session)) -> Any:
        ordered = _own().where(User.status == status).order_by(User.created_at.desc(), User.id.desc())
        return await apaginate(session, ordered, Params(page=1, size=per_page))

    add_pagination(app)
    return app


def advanced_alchemy(url: str) -> FastAPI:
    from advanced_alchemy.filters import LimitOffset
    from advanced_alchemy.repository import SQLAlchemyAsyncRepository

    class Users(SQLAlchemyAsyncRepository[User]):  # type: ignore[type-var]  # it wants models derived from its own base class
        model_type = User

    app, get_session, _ = _by_hand(url)

    @app.get("/users", response_model=Page)
    async def list_users(status: str, per_page: int = 20, session: AsyncSession = Depends(get_session)) -> Any:
        order: Any = [("created_at", True), ("id", True)]
        own: Any = {"status": status, "tenant_id": TENANT, "is_deleted": False}
        users, total = await Users(session=session).list_and_count(LimitOffset(per_page, 0), order_by=order, **own)
        return {"items": users, "total": total}

    @app.post("/users", response_model=UserRead, status_code=201)
    async def create_user(data: UserCreate, session: AsyncSession = Depends(get_session)) -> Any:
        user = User(tenant_id=TENANT, id=uuid4(), **data.model_dump())
        return await Users(session=session).add(user, auto_commit=True)

    return app


def fastcrud(url: str) -> FastAPI:
    from fastcrud import FastCRUD

    users: Any = FastCRUD(User)
    app, get_session, _ = _by_hand(url)

    class Keyed(UserCreate):
        tenant_id: str
        id: UUID

    @app.get("/users", response_model=Page)
    async def list_users(status: str, per_page: int = 20, session: AsyncSession = Depends(get_session)) -> Any:
        result = await users.get_multi(
            session,
            limit=per_page,
            sort_columns=["created_at", "id"],
            sort_orders=["desc", "desc"],
            status=status,
            tenant_id=TENANT,
            is_deleted=False,
        )
        return {"items": result["data"], "total": result["total_count"]}

    @app.post("/users", response_model=UserRead, status_code=201)
    async def create_user(data: UserCreate, session: AsyncSession = Depends(get_session)) -> Any:
        new = Keyed(tenant_id=TENANT, id=uuid4(), **data.model_dump())
        return await users.create(session, new, schema_to_select=UserRead, return_as_model=True)

    return app


MAKERS: tuple[Callable[[str], FastAPI], ...] = (
    toolkit,
    hand_tuned,
    sqlalchemy_by_hand,
    advanced_alchemy,
    fastcrud,
    fastapi_pagination,
)


def _comparable(document: dict[str, Any]) -> Any:
    """What the contenders' responses must have in common: a page's rows and total, or a new row's own values."""
    if "items" in document:
        return document["items"], document["total"]
    return {name: value for name, value in document.items() if name not in ("id", "email", "created_at")}


async def run(url: str, rounds: int = 15, times: int = 40) -> dict[str, Any]:
    """For each kind of request, the median CPU time of each contender, in µs a request."""
    apps: dict[str, FastAPI] = {}
    for make in MAKERS:
        try:
            apps[make.__name__] = make(url)
        except ImportError as error:
            print(f"({make.__name__} is left out: {error})")

    def body() -> bytes:
        return json.dumps({"name": "n", "email": f"{uuid4().hex}@example.org", "score": 3, "bio": "words"}).encode()

    cases: dict[str, Callable[[FastAPI], Awaitable[tuple[int, Any]]]] = {
        "K1   GET list of 100": lambda app: call(app, "GET", LIST),
        "K2   POST": lambda app: call(app, "POST", "/users", body()),
    }
    results: dict[str, Any] = {}
    for title, request in cases.items():
        participants: dict[str, FastAPI] = {}
        expected: Any = None
        for name, app in apps.items():
            status, content = await request(app)
            if status == 405:
                continue  # this contender has no route for this case
            values = _comparable(json.loads(content))
            expected = values if expected is None else expected
            if status >= 300 or values != expected:
                print(f"{title}: {name} answers {status}, or with other values than the first contender")
                continue
            participants[name] = app
        samples: dict[str, list[float]] = {name: [] for name in participants}
        gc.collect()
        gc.disable()
        for _ in range(rounds):
            for name, app in participants.items():
                started = time.process_time()
                for _ in range(times):
                    await request(app)
                samples[name].append((time.process_time() - started) / times * 1e6)
        gc.enable()
        results[title] = {name: statistics.median(durations) for name, durations in samples.items()}
        print(f"{title:<25}" + " | ".join(f"{n} {t:,.0f} µs CPU" for n, t in results[title].items()), flush=True)
    for app in apps.values():
        await app.state.dispose()
    return results
