"""Exports: all rows of a list, as CSV or NDJSON, by the Accept header."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import counted
from tests.fastapi.conftest import Api, checked_out
from tests.fastapi.exporting import (
    NAMES,
    PLACES,
    Account,
    AccountRead,
    Accounts,
    Member,
    Place,
    PlaceApi,
    Streaming,
    cell_of,
    parsed,
    place_named,
    served_on,
)
from tests.fastapi.shared_routers import list_router

CSV, NDJSON = {"accept": "text/csv"}, {"accept": "application/x-ndjson"}
EXPORTS = {"csv": CSV, "ndjson": NDJSON}


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_named(request, tmp_path_factory.mktemp("exports")) as place:
        yield place


@pytest.fixture
def served(place: Place, runner: asyncio.Runner) -> Iterator[PlaceApi]:
    with served_on(place, runner) as api:
        yield api


KINDS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "derived": (Account, {}, NAMES),
    "schema": (Account, {"read_schema": AccountRead}, NAMES),
    "sqlmodel": (Member, {}, NAMES),
    "repository": (Account, {"repository": Accounts}, tuple(name for name in NAMES if name != "Bob")),
    "stream": (Account, {"repository": Streaming}, tuple(name for name in NAMES if name != "Bob")),
}
"""The class, the options, and the names of the rows that a client may see."""


def test_the_matrix(served: PlaceApi) -> None:
    """Every format of every kind of list, for two tenants whose rows look alike, has the rows of the list's JSON."""
    for kind, (model, options, _) in KINDS.items():
        served.app.include_router(
            list_router(model, f"/{kind}", filters=["name", "id"], sorts=["id", "name"], **options)
        )
    seen = 0
    for kind, (_, _, names) in KINDS.items():
        for tenant, first in (("a", 1), ("b", 101)):
            for query in ("", "?sort=-id", "?name__ne=Ann&sort=name", "?name=nobody"):
                pages = served.get(f"/{kind}{query}", tenant=tenant)
                assert (pages.status_code, pages.headers["vary"]) == (200, "Accept"), pages.text
                items = pages.json()["items"]
                if not query:
                    assert [item.get("fullName", item.get("name")) for item in items] == list(names)
                    assert {item["id"] for item in items} <= set(range(first, first + 5))
                for name, headers in EXPORTS.items():
                    got = served.get(f"/{kind}{query}", tenant=tenant, headers=headers)
                    assert (got.status_code, got.headers["vary"]) == (200, "Accept"), got.text
                    assert got.headers["content-type"].startswith(headers["accept"])
                    file = "members" if kind == "sqlmodel" else "accounts"
                    assert got.headers["content-disposition"] == f'attachment; filename="{file}.{name}"'
                    rows = parsed(got.text, headers["accept"])
                    assert rows == (items if name == "ndjson" else [_cells(item) for item in items])
                    seen += len(rows)
    assert seen > 200


def _cells(item: dict[str, Any]) -> dict[str, str]:
    numbers = {"balance", "price", "doubled"}
    return {name: cell_of(value, name in numbers) for name, value in item.items() if name != "lines"}


@pytest.mark.parametrize("schema", [None, AccountRead], ids=["derived", "schema"])
def test_no_connection_is_in_use_while_a_chunk_is_sent(
    served: PlaceApi, place: Place, schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may read slowly, and a transaction of row-level security would wait for it."""
    monkeypatch.setattr("dotmac_database_fastapi.exports.ROWS_PER_CHUNK", 1)
    monkeypatch.setattr("dotmac_database_fastapi.exports.ROWS_PER_STATEMENT", 2)
    if place.lends:
        pytest.skip("The session is the app's, and so is its transaction.")
    served.app.include_router(list_router(Account, "/accounts", read_schema=schema))
    app, in_use = served.app, []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            in_use.append(checked_out(served.plugin))
            await send(message)

        await app(scope, receive, sent)

    rows = Api(watched, served.runner).get("/accounts", tenant="a", headers=NDJSON)  # type: ignore[arg-type]
    assert len(rows.text.splitlines()) == len(NAMES)
    assert in_use == [0] * (len(NAMES) + 2)


def test_csv_has_the_header_also_without_rows(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", read_schema=AccountRead))
    header = "id,fullName,grade,balance,long,doubled\r\n"
    assert served.get("/accounts?name=nobody", tenant="a", headers=CSV).text == header
    assert served.get("/accounts", tenant="c", headers=CSV).text == header
    assert served.get("/accounts", tenant="c", headers=NDJSON).text == ""
    first = served.get("/accounts?name=%3DCid", tenant="a", headers=CSV).text
    assert first == f"{header}3,'=Cid,HIGH,-1.50,'=long,-3.00\r\n"


def test_formulas_may_be_left(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", read_schema=AccountRead, csv_formulas=True))
    assert "\r\n3,=Cid,HIGH,-1.50,=long,-3.00\r\n" in served.get("/accounts", tenant="a", headers=CSV).text


def test_relationships_are_in_json_lines(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts", read_schema=AccountRead))
    rows = parsed(served.get("/accounts", tenant="b", headers=NDJSON).text, "")
    assert [row["lines"] for row in rows] == [[{"text": "x"}, {"text": "x"}], [], [], [], []]


PAGES = {"page": "1", "per_page": "5", "total": "none", "limit": "5", "cursor": "x", "facets": "grade"}


@pytest.mark.parametrize("name", PAGES)
def test_parameters_of_a_page_are_refused(served: PlaceApi, name: str) -> None:
    served.app.include_router(list_router(Account, "/accounts", facets=["grade"]))
    for headers in EXPORTS.values():
        got = served.get(f"/accounts?{name}={PAGES[name]}", tenant="a", headers=headers)
        assert (got.status_code, got.json()["errors"][0]["loc"]) == (422, ["query", name])


def test_all_parameters_of_pages_are_named(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts"))
    got = served.get("/accounts?page=1&limit=5&nmae=x", tenant="a", headers=CSV)
    assert [each["loc"][1] for each in got.json()["errors"]] == ["limit", "page"]
    got = served.get("/accounts?nmae=x", tenant="a", headers=CSV)
    assert (got.status_code, "'name'" in got.text) == (422, True)


def test_a_request_without_a_tenant(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts"))
    assert served.get("/accounts", headers=CSV).status_code == 400


def test_head_has_the_headers_and_reads_nothing(served: PlaceApi) -> None:
    served.app.include_router(list_router(Account, "/accounts"))
    engine = served.plugin.database.async_engine.sync_engine
    for headers in EXPORTS.values():
        get = served.get("/accounts", tenant="a", headers=headers)
        with counted(engine) as sent:
            head = served.request("HEAD", "/accounts", tenant="a", headers=headers)
        assert (head.status_code, head.content, sent) == (200, b"", [])
        assert head.headers == get.headers
    assert served.request("HEAD", "/accounts?page=1", tenant="a", headers=CSV).status_code == 422
    assert served.request("HEAD", "/accounts", headers=CSV).status_code == 400


def test_concurrent_requests_of_two_tenants_never_cross(place: Place, runner: asyncio.Runner) -> None:
    """On one connection, for which the body of an export must wait without the request's own."""
    if place.lends:
        pytest.skip("the session is one for all requests, which can't use it at once")
    with served_on(place, runner, pool_size=1, max_overflow=0) as api:
        api.app.include_router(list_router(Account, "/accounts", facets=["name"]))
        asked = [
            (tenant, headers, query)
            for tenant in ("a", "b")
            for headers, query in ((CSV, ""), (NDJSON, ""), ({}, "?facets=name"))
        ] * 8

        async def all_at_once() -> Any:
            return await asyncio.gather(
                *(
                    api.arequest("GET", f"/accounts{query}", tenant=tenant, headers=headers)
                    for tenant, headers, query in asked
                )
            )

        for (tenant, headers, _), got in zip(asked, api.run(all_at_once()), strict=True):
            rows = parsed(got.text, headers["accept"]) if headers else got.json()["items"]
            first = 1 if tenant == "a" else 101
            assert sorted(int(row["id"]) for row in rows) == list(range(first, first + 5))
            if not headers:
                assert [each["count"] for each in got.json()["facets"]["name"]] == [1] * 5
