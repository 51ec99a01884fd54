"""The example's API, on both databases: what is generated, and what is written by hand."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import airportsdata
import pytest

from example_app.app import STATIC
from example_app.data import folded
from example_app.statements import StatementLog
from tests.fastapi.conftest import Api

REAL = airportsdata.load("ICAO")
ICELAND = {icao for icao, each in REAL.items() if each["country"] == "IS"}


def walked(api: Api, path: str, tenant: str) -> Iterator[dict[str, Any]]:
    """Every row of a list, by its cursors."""
    cursor = ""
    while True:
        page = api.get(f"{path}{cursor}", tenant=tenant).json()
        yield from page["items"]
        if not page["has_next"]:
            return
        cursor = f"&cursor={page['next_cursor']}"


class TestCountries:
    def test_they_are_listed_by_name_without_a_tenant(self, api: Api) -> None:
        items = api.get("/api/countries?limit=500").json()["items"]
        assert {item["code"]: item for item in items}["IS"] == {
            "code": "IS",
            "name": "Iceland",
            "airports": len(ICELAND),
        }
        assert len(items) == len({each["country"] for each in REAL.values()})

    def test_a_summary_counts_what_is_the_countrys(self, api: Api) -> None:
        found = api.get("/api/summary", tenant="IS").json()
        still_open = list(walked(api, "/api/inspections?limit=100&status=open", "IS"))
        assert found == {"airports": len(ICELAND), "staff": 4, "open_inspections": len(still_open)}


class TestAirports:
    @pytest.mark.parametrize("order", ["name", "-elevation_ft", "region", "-latitude"])
    def test_the_pages_are_the_country_and_nothing_else(self, api: Api, order: str) -> None:
        rows = list(walked(api, f"/api/airports?limit=7&sort={order}", "IS"))
        assert len(rows) == len(ICELAND)
        assert {row["icao"] for row in rows} == ICELAND

    def test_they_are_in_the_order_that_was_asked_for(self, api: Api) -> None:
        rows = list(walked(api, "/api/airports?limit=20&sort=-elevation_ft", "CH"))
        heights = [row["elevation_ft"] for row in rows]
        assert heights == sorted(heights, reverse=True)

    def test_numbered_pages_have_a_total_and_links(self, api: Api) -> None:
        response = api.get("/api/airports?page=2&per_page=30", tenant="IS")
        assert response.json()["total"] == len(ICELAND)
        assert 'rel="next"' in response.headers["link"]

    def test_a_search_minds_neither_case_nor_accents(self, api: Api) -> None:
        rows = api.get(f"/api/airports?limit=50&keywords__like={folded('MÝVATN')}", tenant="IS").json()["items"]
        assert [row["icao"] for row in rows] == ["BIRL"]

    @pytest.mark.parametrize(
        ("asked", "matches"),
        [
            ("iata__is_null=false", lambda each: each["iata"]),
            ("elevation_ft__gte=1000", lambda each: round(each["elevation"]) >= 1000),
            ("region=Westfjords", lambda each: each["subd"] == "Westfjords"),
            ("keywords__like=%25reyk%25int%25", lambda each: each["icao"] == "BIKF"),
            ("keywords__like=%25int%25reyk%25", lambda each: each["icao"] == "BIKF"),
        ],
    )
    def test_filters_are_the_same_in_the_list_and_on_the_map(self, api: Api, asked: str, matches: Any) -> None:
        expected = {icao for icao in ICELAND if matches(REAL[icao])}
        assert expected
        rows = walked(api, f"/api/airports?limit=100&{asked}", "IS")
        points = api.get(f"/api/airports/map?{asked}", tenant="IS").json()["points"]
        assert {row["icao"] for row in rows} == {icao for icao, *_ in points} == expected

    def test_a_filter_through_inspections_multiplies_no_rows(self, api: Api) -> None:
        inspections = walked(api, "/api/inspections?limit=100&status=open", "IS")
        expected = sorted({row["airport_icao"] for row in inspections})
        rows = walked(api, "/api/airports?limit=5&inspections.status=open&sort=icao", "IS")
        assert [row["icao"] for row in rows] == expected

    def test_the_map_has_every_airport_of_a_large_country(self, api: Api) -> None:
        points = api.get("/api/airports/map", tenant="US").json()["points"]
        assert len(points) == sum(each["country"] == "US" for each in REAL.values())
        assert dict((icao, rest) for icao, *rest in points)["KJFK"] == [REAL["KJFK"]["lat"], REAL["KJFK"]["lon"]]  # noqa: C402 - the rest is two values

    def test_regions_are_the_countrys_own(self, api: Api) -> None:
        regions = api.get("/api/airports/regions", tenant="IS").json()
        assert regions == sorted({REAL[icao]["subd"] for icao in ICELAND} - {""})

    @pytest.mark.parametrize(
        ("asked", "matches"),
        [
            ("", lambda each: True),
            ("&iata__is_null=false", lambda each: each["iata"]),
            ("&region=Westfjords", lambda each: each["subd"] == "Westfjords"),
        ],
    )
    def test_regions_are_counted_beside_the_list(self, api: Api, asked: str, matches: Any) -> None:
        counts = Counter(REAL[icao]["subd"] or None for icao in ICELAND if matches(REAL[icao]))
        facet = api.get(f"/api/airports?facets=region&limit=1{asked}", tenant="IS").json()["facets"]["region"]
        assert {each["value"]: each["count"] for each in facet} == counts
        numbers = [each["count"] for each in facet]
        assert numbers == sorted(numbers, reverse=True)

    def test_the_list_is_a_file_as_well(self, api: Api) -> None:
        asked = "/api/airports?region=Northeast&sort=-elevation_ft"
        response = api.get(asked, tenant="IS", headers={"Accept": "text/csv"})
        assert response.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
        listed = list(walked(api, f"{asked}&limit=7", "IS"))
        assert rows == [{key: "" if value is None else str(value) for key, value in row.items()} for row in listed]
        assert len(rows) == sum(REAL[icao]["subd"] == "Northeast" for icao in ICELAND)

    def test_another_countrys_airport_is_as_unknown_as_none(self, api: Api) -> None:
        assert api.get("/api/airports/kjfk", tenant="US").json()["iata"] == "JFK"
        foreign, unknown = api.get("/api/airports/KJFK", tenant="IS"), api.get("/api/airports/ZZZZ", tenant="IS")
        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json() == unknown.json()

    @pytest.mark.parametrize(
        "path", ["airports", "airports/map", "airports/regions", "airports/BIRK", "users", "inspections", "summary"]
    )
    def test_without_a_country_nothing_is_told(self, api: Api, path: str) -> None:
        response = api.get(f"/api/{path}")
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "tenant_required"

    @pytest.mark.parametrize("path", ["airports", "airports/map"])
    def test_what_can_not_be_asked_is_refused_by_name(self, api: Api, path: str) -> None:
        response = api.get(f"/api/{path}?colour=red", tenant="IS")
        assert response.status_code == 422
        assert "colour" in response.json()["detail"]

    def test_a_cursor_of_another_country_is_refused(self, api: Api) -> None:
        cursor = api.get("/api/airports?limit=5", tenant="IS").json()["next_cursor"]
        response = api.get(f"/api/airports?limit=5&cursor={cursor}", tenant="DK")
        assert (response.status_code, response.json()["code"]) == (400, "invalid_cursor")


@pytest.fixture
def inspector(api: Api) -> str:
    return str(api.get("/api/users?limit=1&role=inspector", tenant="IS").json()["items"][0]["id"])


@pytest.fixture
def inspection(api: Api, inspector: str) -> dict[str, Any]:
    """A new one, of Reykjavik."""
    data = {"airport_icao": "birk", "inspector_id": inspector, "topic": "runway", "due_on": "2026-12-01"}
    response = api.post("/api/inspections", tenant="IS", json=data, headers={"X-User": "ana@is.example"})
    assert response.status_code == 201
    assert response.headers["location"] == f"/api/inspections/{response.json()['id']}"
    assert response.headers["etag"] == '"1"'
    return dict(response.json())


class TestInspections:
    def test_who_planned_it_is_recorded(self, inspection: dict[str, Any], inspector: str) -> None:
        assert inspection["airport_icao"] == "BIRK"
        assert inspection["created_by"] == inspection["updated_by"] == "ana@is.example"
        assert inspection["inspector"]["id"] == inspector
        assert (inspection["status"], inspection["version"]) == ("open", 1)

    def test_a_change_from_a_stale_view_is_refused(self, api: Api, inspection: dict[str, Any]) -> None:
        path = f"/api/inspections/{inspection['id']}"
        first = {"X-User": "ben@is.example", "If-Match": '"1"'}
        closed = api.patch(path, tenant="IS", json={"status": "closed"}, headers=first)
        assert (closed.status_code, closed.headers["etag"]) == (200, '"2"')
        assert closed.json()["updated_by"] == "ben@is.example"
        stale = api.patch(path, tenant="IS", json={"note": "too late"}, headers={"If-Match": '"1"'})
        assert (stale.status_code, stale.json()["code"]) == (412, "stale")
        assert api.get(path, tenant="IS").json() == closed.json()

    def test_a_deleted_one_is_hidden_and_can_come_back(self, api: Api, inspection: dict[str, Any]) -> None:
        path = f"/api/inspections/{inspection['id']}"
        assert api.delete(path, tenant="IS", headers={"If-Match": '"7"'}).status_code == 412
        assert api.delete(path, tenant="IS", headers={"If-Match": '"1"'}).status_code == 204
        assert api.get(path, tenant="IS").status_code == 404
        assert inspection["id"] not in {row["id"] for row in walked(api, "/api/inspections?limit=100", "IS")}
        back = api.post(f"{path}/restore", tenant="IS")
        assert (back.status_code, back.json()["id"]) == (200, inspection["id"])
        assert api.get(path, tenant="IS").status_code == 200

    def test_a_deleted_one_counts_for_no_filter(self, api: Api, inspector: str) -> None:
        asked = "/api/airports?limit=100&inspections.status=open"
        before = {row["icao"] for row in walked(api, asked, "IS")}
        icao = min(ICELAND - before)
        data = {"airport_icao": icao, "inspector_id": inspector, "topic": "wildlife", "due_on": "2026-12-01"}
        path = api.post("/api/inspections", tenant="IS", json=data).headers["location"]
        assert {row["icao"] for row in walked(api, asked, "IS")} == before | {icao}
        assert api.delete(path, tenant="IS").status_code == 204
        assert {row["icao"] for row in walked(api, asked, "IS")} == before

    def test_another_country_can_neither_see_nor_change_it(self, api: Api, inspection: dict[str, Any]) -> None:
        path = f"/api/inspections/{inspection['id']}"
        assert api.get(path, tenant="DK").status_code == 404
        assert api.patch(path, tenant="DK", json={"status": "closed"}).status_code == 404
        assert api.delete(path, tenant="DK").status_code == 404
        assert api.post(f"{path}/restore", tenant="DK").status_code == 404
        assert api.get(path, tenant="IS").json() == inspection

    def test_it_refers_to_nothing_of_another_country(self, api: Api, inspector: str) -> None:
        danish = api.get("/api/users?limit=1", tenant="DK").json()["items"][0]["id"]
        data = {"airport_icao": "BIRK", "inspector_id": inspector, "topic": "runway", "due_on": "2026-12-01"}

        def answer(**changes: str) -> tuple[int, dict[str, Any]]:
            response = api.post("/api/inspections", tenant="IS", json={**data, **changes})
            return response.status_code, response.json()

        assert answer(inspector_id=danish) == answer(inspector_id=str(uuid4()))
        assert answer(airport_icao="EKCH") == answer(airport_icao="ZZZZ")
        assert answer(inspector_id=danish)[0] == answer(airport_icao="EKCH")[0] == 409

    @pytest.mark.parametrize("changes", [{"status": None}, {"status": "lost"}, {"colour": "red"}, {"tenant_id": "DK"}])
    def test_a_change_that_makes_no_sense_is_refused(
        self, api: Api, inspection: dict[str, Any], changes: dict[str, Any]
    ) -> None:
        response = api.patch(f"/api/inspections/{inspection['id']}", tenant="IS", json=changes)
        assert response.status_code == 422
        assert next(iter(changes)) in response.json()["detail"]


class TestStatements:
    def test_a_response_names_the_statements_behind_it(self, api: Api) -> None:
        response = api.get("/api/airports?limit=5&region=Westfjords", tenant="IS")
        statements = api.get(f"/api/statements/{response.headers['x-statements']}").json()["statements"]
        (select,) = [each for each in statements if each.startswith("SELECT")]
        assert "FROM airports" in select
        assert "Westfjords" not in str(statements)
        assert "'IS'" not in str(statements)

    def test_each_request_has_its_own(self, api: Api) -> None:
        async def both() -> list[Any]:
            paths = ["/api/airports/map", "/api/users?limit=3", "/api/airports/BIRK", "/api/countries?limit=3"] * 5
            return await asyncio.gather(*(api.arequest("GET", path, tenant="IS") for path in paths))

        tables = ["airports", "users", "airports", "countries"] * 5
        for response, table in zip(api.run(both()), tables, strict=True):
            statements = api.get(f"/api/statements/{response.headers['x-statements']}").json()["statements"]
            assert {each.partition("FROM ")[2].split()[0] for each in statements if "FROM" in each} == {table}

    def test_what_is_too_old_is_forgotten(self) -> None:
        log = StatementLog()
        first, statements = log.begin()
        assert log.get(first) is statements
        for _ in range(500):
            last, _ = log.begin()
        assert log.get(first) is None
        assert log.get(last) == []

    def test_an_unknown_token_and_other_paths_tell_nothing(self, api: Api) -> None:
        unknown = api.get("/api/statements/nothing")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
        assert "x-statements" not in unknown.headers
        assert "x-statements" not in api.get("/health/db").headers


class TestHealthAndPage:
    def test_the_databases_health_is_told_with_details(self, api: Api) -> None:
        response = api.get("/health/db")
        assert response.status_code == 200
        assert response.json()["details"]["latency_ms"] > 0
        assert api.get("/health/db/live").status_code == api.get("/health/db/ready").status_code == 200

    def test_the_page_loads_nothing_from_elsewhere(self, api: Api) -> None:
        page = api.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        named = set(re.findall(r'(?:href|src)="(/[^"]+)"', page.text))
        assert {f"/static/{each.name}" for each in STATIC.iterdir() if each.suffix in (".js", ".css")} <= named
        assert all(api.get(path).status_code == 200 for path in named)
        for file in STATIC.iterdir():
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE), file.name

    def test_the_coast_is_small_and_names_its_source_and_licence(self) -> None:
        file = STATIC / "coast.json"
        assert file.stat().st_size < 60_000
        coast = json.loads(file.read_text(encoding="utf-8"))
        assert "Natural Earth" in coast["source"]
        assert "public domain" in coast["licence"]
        assert "Natural Earth" in (STATIC.parent / "README.md").read_text(encoding="utf-8")

    def test_the_api_is_documented(self, api: Api) -> None:
        paths = api.get("/openapi.json").json()["paths"]
        assert {"/api/airports", "/api/airports/map", "/api/inspections/{id}/restore", "/health/db"} <= paths.keys()
