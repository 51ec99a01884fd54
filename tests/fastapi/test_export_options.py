"""What decides whether, and as what, a list is exported: options, classes, permissions, the identity."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, RootModel
from sqlalchemy.orm import DeclarativeBase

from dotmac_database import (
    ALL_TENANTS,
    AsyncTenantRepository,
    Database,
    ValidationError,
    current_actor,
)
from dotmac_database.testing import AsyncMockRepository
from dotmac_database_fastapi import (
    DatabasePlugin,
    PluginError,
    get_repository,
    get_session,
    register_exception_handlers,
    rerun_route,
)
from tests.conftest import counted
from tests.fastapi.conftest import Api, MakePlugin
from tests.fastapi.exporting import (
    Account,
    Accounts,
    Base,
    fill,
    parsed,
)
from tests.fastapi.shared_routers import crud_router, list_router

pytestmark = pytest.mark.shared_plugin

CSV, NDJSON = {"accept": "text/csv"}, {"accept": "application/x-ndjson"}
EXPORTS = {"csv": CSV, "ndjson": NDJSON}


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


@pytest.fixture
def accounts(database: Database) -> None:
    with database.engine.begin() as connection:
        fill(connection)


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize("exports", [(), ("csv",), ("ndjson",), ("ndjson", "csv")])
@pytest.mark.parametrize("router", [list_router, crud_router])
def test_the_option_says_which_formats_there_are(app: FastAPI, api: Api, router: Any, exports: Any) -> None:
    app.include_router(router(Account, prefix="/accounts", exports=exports))
    for name, headers in EXPORTS.items():
        got = api.get("/accounts", tenant="a", headers=headers)
        expected = headers["accept"] if name in exports else "application/json"
        assert got.headers["content-type"].startswith(expected)
        assert got.headers.get("vary") == ("Accept" if exports else None)
    content = app.openapi()["paths"]["/accounts"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json"} | {EXPORTS[name]["accept"] for name in exports}


@pytest.mark.parametrize("exports", [(), ("csv",), ("ndjson",), ("ndjson", "csv")])
@pytest.mark.parametrize("paging", [None, "range"])
def test_a_format_in_the_query_string_is_told_the_header(app: FastAPI, api: Api, exports: Any, paging: Any) -> None:
    app.include_router(list_router(Account, prefix="/accounts", exports=exports, paging=paging))
    for name, headers in EXPORTS.items():
        for query in (f"format={name}", f"_export={name.upper()}"):
            [fault] = api.get(f"/accounts?{query}", tenant="a").json()["errors"]
            is_hinted = fault["msg"].endswith(f"; for an export, send the header Accept: {headers['accept']}.")
            assert is_hinted is (name in exports)
    [fault] = api.get("/accounts?as=xlsx", tenant="a").json()["errors"]
    assert fault["msg"] == "There is no query parameter 'as'."


def test_an_unknown_format_is_refused() -> None:
    unknown: Any = ["xlsx"]
    with pytest.raises(ValidationError, match=r"xlsx.*csv, ndjson") as refused:
        list_router(Account, exports=unknown)
    assert refused.value.field == "exports"


class Hiding(AsyncTenantRepository[Account]):
    """A class that may hide rows from pages."""

    async def list_paginated(self, options: Any = None) -> Any:
        return await super().list_paginated(options)


@pytest.mark.usefixtures("accounts")
def test_a_class_that_may_hide_rows_of_pages_has_exports_only_if_they_are_named(app: FastAPI, api: Api) -> None:
    app.include_router(list_router(Account, "/hidden", repository=Hiding))
    app.include_router(list_router(Account, "/named", repository=Hiding, exports=["csv"]))
    hidden = api.get("/hidden", tenant="a", headers=CSV)
    assert (hidden.headers["content-type"], "vary" in hidden.headers) == ("application/json", False)
    assert api.get("/named", tenant="a", headers=CSV).headers["content-type"].startswith("text/csv")


class Whole(RootModel[Any]):
    """A schema whose fields are unknown."""


@pytest.mark.usefixtures("accounts")
def test_rows_of_unknown_fields_are_no_csv(app: FastAPI, api: Api) -> None:
    app.include_router(list_router(Account, "/accounts", read_schema=str, filters=["name"]))
    assert api.get("/accounts?name=x", tenant="a", headers=CSV).headers["content-type"] == "application/json"
    assert api.get("/accounts?name=x", tenant="a", headers=NDJSON).headers["content-type"] == NDJSON["accept"]
    with pytest.raises(ValidationError, match="CSV"):
        list_router(Account, read_schema=Whole, exports=["csv"])


def refused() -> None:
    raise HTTPException(403)


@pytest.mark.usefixtures("accounts")
def test_a_route_class_that_runs_endpoints_again(app: FastAPI, api: Api) -> None:
    app.include_router(list_router(Account, "/accounts", route_class=rerun_route()))
    assert len(parsed(api.get("/accounts", tenant="a", headers=NDJSON).text, "")) == 5
    assert api.request("HEAD", "/accounts", tenant="a", headers=NDJSON).status_code == 200


@pytest.mark.usefixtures("accounts")
def test_permissions_hold(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Account, prefix="/accounts", permissions={"list": Depends(refused)}))
    for headers in EXPORTS.values():
        assert api.get("/accounts", tenant="a", headers=headers).status_code == 403


ASKED: list[str] = []


async def asking(request: Request) -> Any:
    ASKED.append("tenant")
    name = request.headers["X-Tenant-ID"]
    return ALL_TENANTS if name == "*" else name


async def acting() -> str:
    ASKED.append("actor")
    return "alice"


class Acting(AsyncTenantRepository[Account]):
    """A stream that shows the actor, and writes."""

    async def stream(self, options: Any = None, batch_size: int = 1000) -> AsyncIterator[Account]:
        async for row in super().stream(options, batch_size):
            assert current_actor() == "alice"
            yield row
        await self.update(1, {"name": f"seen by {current_actor()}"})


def test_the_identity_is_asked_once_and_holds_in_the_body(make_plugin: MakePlugin, runner: Any, accounts: None) -> None:
    app = FastAPI(lifespan=make_plugin(tenant=asking, actor=acting).lifespan)
    register_exception_handlers(app)
    app.include_router(list_router(Account, "/accounts", repository=Acting))
    api = Api(app, runner)
    ASKED.clear()
    for headers in EXPORTS.values():
        assert len(parsed(api.get("/accounts", tenant="a", headers=headers).text, headers["accept"])) == 5
    assert ASKED == ["tenant", "actor"] * 2
    assert current_actor() is None
    assert api.get("/accounts?sort=id", tenant="a").json()["items"][0]["name"] == "seen by alice"


def test_across_all_tenants(make_plugin: MakePlugin, runner: Any, accounts: None) -> None:
    app = FastAPI(lifespan=make_plugin(tenant=asking).lifespan)
    app.include_router(list_router(Account, "/accounts"))
    api = Api(app, runner)
    assert len(parsed(api.get("/accounts", tenant="*", headers=NDJSON).text, "")) == 10


@pytest.mark.usefixtures("accounts")
def test_the_repository_may_be_a_mock(app: FastAPI, api: Api) -> None:
    mock = AsyncMockRepository(Account, "a")
    mock.add_mock_data([{"name": "mocked"}])
    app.include_router(list_router(Account, "/accounts", plugin=None))
    app.dependency_overrides[get_repository(Account)] = lambda: mock
    assert [row["name"] for row in parsed(api.get("/accounts", tenant="a", headers=NDJSON).text, "")] == ["mocked"]


@pytest.mark.usefixtures("accounts")
def test_another_class_on_the_request_s_session_is_refused(app: FastAPI, api: Api) -> None:
    """Else the body would have the rows of the router's class, which the other one may hide."""

    async def other(session: Any = Depends(get_session)) -> Any:
        return Accounts(session, tenant_id="a")

    app.include_router(list_router(Account, "/accounts"))
    app.dependency_overrides[get_repository(Account)] = other
    with pytest.raises(PluginError, match=r"Accounts .* repository="):
        api.get("/accounts", tenant="a", headers=NDJSON)


@pytest.mark.parametrize("rows", [0, 250, 251, 1000, 1001])
@pytest.mark.parametrize("schema", [None, "user's"])
def test_one_statement_for_each_thousand_rows(
    app: FastAPI, api: Api, plugin: DatabasePlugin, database: Database, rows: int, schema: Any
) -> None:
    class Short(BaseModel):
        id: int

    app.include_router(list_router(Account, "/accounts", read_schema=Short if schema else None))
    with database.engine.begin() as connection:
        if rows:
            data = [{"id": number, "tenant_id": "a", "name": "x", "balance": 1} for number in range(rows)]
            connection.execute(sa.insert(Account), data)
    for name, headers in EXPORTS.items():
        with counted(plugin.database.async_engine.sync_engine) as sent:
            got = api.get("/accounts?sort=-id", tenant="a", headers=headers)
        ids = [int(row["id"]) for row in parsed(got.text, headers["accept"])]
        assert ids == list(reversed(range(rows))), name
        assert len([each for each in sent if each.startswith("SELECT")]) == rows // 1000 + 1


@pytest.mark.usefixtures("accounts")
def test_a_fault_before_the_first_row_is_a_problem(app: FastAPI, api: Api, database: Database) -> None:
    app.include_router(list_router(Account, "/accounts"))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE exported_accounts RENAME TO elsewhere")
    try:
        got = api.get("/accounts", tenant="a", headers=CSV)
        assert (got.status_code, got.headers["content-type"]) == (500, "application/problem+json")
        assert "content-disposition" not in got.headers
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO exported_accounts")


def test_the_file_s_name_may_have_any_letter(app: FastAPI, api: Api) -> None:
    own = type("Own", (DeclarativeBase,), {})
    size = type("Größe", (own,), {"__tablename__": "sizes", "id": sa.Column(sa.Integer, primary_key=True)})
    app.include_router(list_router(size, "/sizes"))
    got = api.request("HEAD", "/sizes", tenant="a", headers=CSV)
    assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fes.csv"
