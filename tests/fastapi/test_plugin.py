"""The plugin in its app: installed, found, named, and several of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import MetaData, func, select, table
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

import dotmac_database_fastapi
from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    BaseTenantRepository,
    Database,
    LazyLoadError,
    Policy,
    RowLevelSecurity,
    TenantRequiredError,
    ValidationError,
    bind_tenant,
)
from dotmac_database_fastapi import (
    DatabasePlugin,
    PluginError,
    get_repository,
    get_session,
    get_sync_repository,
    list_router,
    register_exception_handlers,
)
from tests.conftest import _COUNTER
from tests.fastapi.conftest import Api, MakePlugin, inlined
from tests.models import Base, Country, Tag, User


def add_routes(app: FastAPI) -> None:
    @app.get("/")
    async def endpoint(countries: Any = Depends(get_repository(Country))) -> int:
        return int(await countries.count())


class TestInstalling:
    def test_by_lifespan_running_or_not(self, plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
        app = FastAPI(lifespan=plugin.lifespan)
        add_routes(app)
        app.include_router(list_router(Country, prefix="/countries"))
        api = Api(app, runner)
        assert api.get("/").json() == 0

        async def whole_life() -> None:
            async with app.router.lifespan_context(app):
                assert (await api.arequest("GET", "/")).json() == 0

        runner.run(whole_life())

    def test_install_keeps_the_apps_own_lifespan(self, plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
        told: list[str] = []

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncIterator[dict[str, int]]:
            async with plugin.session() as session:
                told.append(f"begin {session.info == {} or True}")
            yield {"answer": 42}
            told.append("end")

        app = FastAPI(lifespan=own)
        plugin.install(app)
        add_routes(app)

        async def whole_life() -> None:
            async with app.router.lifespan_context(app) as state:
                assert state == {"answer": 42}
                assert (await Api(app, runner).arequest("GET", "/")).json() == 0

        runner.run(whole_life())
        assert told == ["begin True", "end"]

    def test_the_pool_has_sqlalchemys_options(self, make_plugin: MakePlugin, dialect: str) -> None:
        plugin = make_plugin(pool_size=3, max_overflow=1, pool_timeout=7)
        assert plugin.database.async_engine.pool.size() == 3
        assert plugin.database.async_engine.pool._max_overflow == 1
        assert plugin.database.engine.pool._timeout == 7

    def test_connections_are_closed_at_the_end(self, plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
        app = FastAPI(lifespan=plugin.lifespan)
        add_routes(app)

        async def whole_life() -> None:
            async with app.router.lifespan_context(app):
                await Api(app, runner).arequest("GET", "/")
                assert plugin.database.async_engine.pool.checkedin() == 1
            assert plugin.database.async_engine.pool.checkedin() == 0

        runner.run(whole_life())

    def test_openapi_names_the_tenants_header(self, plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
        app = FastAPI(lifespan=plugin.lifespan)
        app.include_router(list_router(Tag, prefix="/tags"), prefix="/v1")

        @app.get("/own")
        def own(tags: Any = Depends(plugin.get_sync_repository(Tag))) -> None: ...

        @app.get("/none")
        async def none() -> None: ...

        async def whole_life() -> dict[str, Any]:
            async with app.router.lifespan_context(app):
                return inlined((await Api(app, runner).arequest("GET", "/openapi.json")).json())["paths"]

        for paths in (runner.run(whole_life()), runner.run(whole_life())):
            named = {
                path: [each["name"] for each in operation["get"].get("parameters", ()) if each["in"] == "header"]
                for path, operation in paths.items()
            }
            assert named == {"/v1/tags": ["X-Tenant-ID"], "/own": ["X-Tenant-ID"], "/none": []}

    def test_no_password_is_shown(self) -> None:
        assert "secret" not in repr(DatabasePlugin("postgresql://me:secret@localhost/db"))


class TestSeveral:
    @pytest.fixture
    def other(self, database: Database, dialect: str, request: pytest.FixtureRequest, tmp_path: Any) -> Any:
        if dialect == "sqlite":
            url = f"sqlite:///{tmp_path}/other.db"
        else:
            name = f"other_{next(_COUNTER)}"
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            url = database.url.set(database=name).render_as_string(hide_password=False)
        other = Database(DatabasePlugin(url).database.url)
        Base.metadata.create_all(other.engine)
        yield url
        other.dispose()

    def test_each_plugin_serves_its_own_database(
        self, plugin: DatabasePlugin, other: str, runner: asyncio.Runner
    ) -> None:
        second = DatabasePlugin(other, name="other", tenant=plugin.tenant)
        app = FastAPI()
        plugin.install(app)
        second.install(app)

        @app.post("/")
        async def write(tags: Any = Depends(second.get_repository(Tag))) -> None:
            await tags.create({"name": "one"})

        @app.get("/")
        async def read(
            first: Any = Depends(plugin.get_repository(Tag)),
            others: Any = Depends(second.get_repository(Tag)),
            session: Any = Depends(second.get_session),
        ) -> list[int | bool]:
            return [await first.count(), await others.count(), others.db is session, first.db is session]

        @app.get("/which")
        async def which(_: Any = Depends(get_session)) -> None: ...

        app.include_router(list_router(Tag, prefix="/tags", plugin=second))
        api = Api(app, runner)
        api.post("/", tenant="a")
        assert api.get("/", tenant="a").json() == [0, 1, True, False]
        assert api.get("/tags", tenant="a").json()["total"] == 1
        with pytest.raises(PluginError, match=r"2 DatabasePlugins.*'default', 'other'"):
            api.get("/which")
        runner.run(second.database.dispose_async())

    def test_a_second_one_that_comes_later_is_noticed(
        self, app: FastAPI, api: Api, plugin: DatabasePlugin, make_plugin: MakePlugin
    ) -> None:
        @app.get("/which")
        async def which(_: Any = Depends(get_session)) -> None: ...

        assert api.get("/which").status_code == 200
        make_plugin(name="other").install(app)
        with pytest.raises(PluginError, match="2 DatabasePlugins"):
            api.get("/which")

    def test_two_of_one_name_are_refused(self, make_plugin: MakePlugin) -> None:
        app = FastAPI()
        make_plugin().install(app)
        with pytest.raises(PluginError, match="'default' already"):
            make_plugin().install(app)

    def test_an_app_without_one_says_so(self, runner: asyncio.Runner) -> None:
        app = FastAPI()
        add_routes(app)
        with pytest.raises(PluginError, match=r"no DatabasePlugin.*plugin\.install"):
            Api(app, runner).get("/")


class Users(AsyncTenantRepository[User]):
    """Knows its model."""


class PlainUsers(AsyncTenantRepository):  # type: ignore[type-arg]  # as older code writes it
    """Says its model when it is made, and takes less than its base does."""

    def __init__(self, db: Any, tenant_id: str) -> None:
        super().__init__(db, User, tenant_id)


class SyncUsers(BaseTenantRepository[User]):
    """Of the other face."""


class TestRepositories:
    def test_classes_of_the_users(self, app: FastAPI, api: Api) -> None:
        @app.get("/{kind}")
        async def endpoint(
            model: Any = Depends(get_repository(User)),
            plain: Any = Depends(get_repository(PlainUsers)),
            users: Any = Depends(get_repository(Users)),
            countries: Any = Depends(get_repository(Country)),
        ) -> list[Any]:
            kinds = [type(each) for each in (model, plain, users, countries)]
            assert kinds == [AsyncTenantRepository, PlainUsers, Users, AsyncRepository]
            return [model.tenant_id, plain.tenant_id, users.tenant_id, countries.tenant_id]

        @app.get("/sync/{kind}")
        def sync_endpoint(users: Any = Depends(get_sync_repository(SyncUsers))) -> Any:
            assert type(users) is SyncUsers
            return users.tenant_id

        assert api.get("/x", tenant="a").json() == ["a", "a", "a", None]
        assert api.get("/sync/x", tenant="a").json() == "a"
        assert api.get("/sync/x").status_code == 400
        assert api.get("/x").status_code == 400

    def test_what_is_none_is_refused_at_once(self) -> None:
        with pytest.raises(ValidationError, match="not a mapped class"):
            get_repository(int)
        with pytest.raises(ValidationError, match="use get_sync_repository"):
            get_repository(SyncUsers)
        with pytest.raises(ValidationError, match="use get_repository"):
            get_sync_repository(Users)


def test_dependencies_of_a_router_share_the_request(app: FastAPI, api: Api) -> None:
    seen: list[Any] = []

    async def guard(tags: Any = Depends(get_repository(Tag))) -> None:
        seen.append(tags)

    router = APIRouter(prefix="/inside", dependencies=[Depends(guard)])

    @router.get("/")
    async def endpoint(tags: Any = Depends(get_repository(Tag))) -> bool:
        return tags is seen[-1]

    app.include_router(router)
    assert api.get("/inside/", tenant="a").json() is True


def test_the_public_names_are_what_is_there() -> None:
    names = dotmac_database_fastapi.__all__
    assert len(set(names)) == len(names)
    assert all(hasattr(dotmac_database_fastapi, name) for name in names)


@pytest.mark.parametrize(("tenant_free", "status"), [((), 403), (("sqlite_master",), 200)])
def test_a_table_that_no_class_maps_is_read_where_it_is_declared(
    tmp_path: Path, runner: asyncio.Runner, tenant_free: tuple[str, ...], status: int
) -> None:
    plugin = DatabasePlugin(f"sqlite:///{tmp_path / 'free.db'}", tenant_free=tenant_free)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    @app.get("/tables")
    async def tables(session: Any = Depends(plugin.get_session)) -> int:
        bind_tenant(session, "a")
        return int((await session.execute(select(func.count()).select_from(table("sqlite_master")))).scalar_one())

    assert Api(app, runner).get("/tables").status_code == status
    runner.run(plugin.database.dispose_async())


@pytest.mark.parametrize("strict", [True, False])
def test_strict_loading(make_plugin: MakePlugin, runner: asyncio.Runner, strict: bool) -> None:
    """With it, a lazy load says so, in the async session as in the sync one."""
    plugin = make_plugin(strict_loading=strict)
    app = FastAPI(lifespan=plugin.lifespan)

    @app.get("/async")
    async def read(users: Any = Depends(get_repository(User))) -> int:
        user = await users.create({"name": "ada", "email": "a@b.c"})
        return await users.db.run_sync(lambda session: len(user.posts))

    @app.get("/sync")
    def read_sync(users: Any = Depends(get_sync_repository(User))) -> int:
        return len(users.create({"name": "ada", "email": "a@b.d"}).posts)

    for path in ("/async", "/sync"):
        if strict:
            with pytest.raises(LazyLoadError, match="posts"):
                Api(app, runner).get(path, tenant="a")
        else:
            assert Api(app, runner).get(path, tenant="a").json() == 0


def test_an_app_of_many_routers_has_its_plugin_before_it_runs(plugin: DatabasePlugin, runner: asyncio.Runner) -> None:
    """FastAPI wraps the lifespan once for each router that is included."""
    app = FastAPI(lifespan=plugin.lifespan)
    for number in range(300):
        app.include_router(APIRouter(prefix=f"/{number}"))
    app.include_router(list_router(Country, prefix="/countries"))
    assert Api(app, runner).get("/countries").status_code == 200


def test_the_policies_and_the_row_level_security_of_a_plugin_can_be_read() -> None:
    bare = DatabasePlugin("sqlite://")
    assert (bare.rls, bare.policies) == (None, ())
    rls = RowLevelSecurity(MetaData())
    policy = Policy(User, read=lambda actor: User.name == actor.id)
    ruled = DatabasePlugin("sqlite://", rls=rls, policies=[policy], actor=lambda: None)
    assert ruled.rls is rls
    assert ruled.policies == (policy,)


def test_the_factories_of_a_plugin_make_guarded_sessions(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    """With the plugin's ``tenant_free``, on its database or another one. Those of its database are not guarded."""
    plugin = make_plugin(tenant_free=["pg_class", "sqlite_master"])
    system = "sqlite_master" if plugin.database.url.get_backend_name() == "sqlite" else "pg_class"

    def check(session: Session) -> None:
        with pytest.raises(TenantRequiredError):
            session.scalars(select(User)).all()
        assert session.execute(select(func.count()).select_from(table(system))).scalar_one() > 0
        bind_tenant(session, "a")
        assert session.scalars(select(User.tenant_id).distinct()).all() in ([], ["a"])

    async def check_async(options: dict[str, AsyncEngine]) -> None:
        async with plugin.async_sessions(**options) as session:
            await session.run_sync(check)

    for options in ({}, {"bind": plugin.database.engine}):
        with plugin.sessions(**options) as session:
            check(session)
    for async_options in ({}, {"bind": plugin.database.async_engine}):
        runner.run(check_async(async_options))
    with plugin.database.sessions() as unguarded:
        assert unguarded.scalar(select(func.count()).select_from(User)) is not None
