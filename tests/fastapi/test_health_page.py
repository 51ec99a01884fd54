"""The health of a database as a page: who gets it, what it shows to whom, and that it loads and runs nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException

from dotmac_database import HealthCheckResult, HealthStatus
from dotmac_database_fastapi import DatabasePlugin, health_router, register_exception_handlers
from dotmac_database_fastapi.health.history import HealthHistory
from dotmac_database_fastapi.health.page import page_response
from tests.fastapi.conftest import Api, MakePlugin, threads_ended

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
PAGE = {"Accept": BROWSER}
FACES: list[tuple[str | list[str] | None, str]] = [
    (None, "json"),  # a load balancer
    ("*/*", "json"),  # curl, fetch()
    ("", "json"),
    (BROWSER, "html"),
    ("text/html", "html"),
    ("TEXT/HTML", "html"),
    ("text/*", "html"),
    ("text/*;q=0.5, application/json;q=0.4", "html"),
    ("application/json", "json"),
    ("application/json, text/html", "json"),
    ("text/html;q=0.5, application/json", "json"),
    ("text/html;q=0.5, application/json;q=0.4", "html"),
    ("text/html; q=0.5 , */*;q=0.1", "html"),
    ("text/html;q=0.1, */*", "json"),
    ("text/html;q=0, */*;q=0.5", "json"),
    ("text/html;q=0", "json"),
    ("text/html;charset=utf-8", "html"),
    ("text/html;q=high", "json"),
    ("text/html;q=7", "json"),
    ("text/html;q=nan", "json"),
    ("application/xml", "json"),
    (";;,,=", "json"),
    (["application/xml", "text/html"], "html"),
]


class Elements(HTMLParser):
    """The elements of a page and its text, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def app_of(plugin: DatabasePlugin, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(health_router(plugin=plugin, **options))
    return app


async def asked(api: Api, method: str, accept: str | list[str] | None) -> httpx.Response:
    values = [] if accept is None else [accept] if isinstance(accept, str) else accept
    async with api.client() as client:
        del client.headers["accept"]
        return await client.request(method, "/health/db", headers=[("Accept", each) for each in values])


def test_a_page_is_for_those_who_prefer_it(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    api = Api(app_of(make_plugin()), runner)
    for accept, face in FACES:
        answer, head = (runner.run(asked(api, method, accept)) for method in ("GET", "HEAD"))
        assert answer.status_code == 200
        assert answer.headers["content-type"].split("/")[1].startswith(face), accept
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["cache-control"] == "no-store"
        assert head.headers["content-type"] == answer.headers["content-type"]
        assert head.content == b""


@pytest.mark.parametrize("path", ["/health/db/live", "/health/db/ready"])
def test_what_orchestrators_ask_stays_json(make_plugin: MakePlugin, runner: asyncio.Runner, path: str) -> None:
    assert Api(app_of(make_plugin()), runner).get(path, headers=PAGE).headers["content-type"] == "application/json"


def test_strangers_see_the_status_and_nothing_else(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    def operator(authorization: str = Header("")) -> bool:
        if authorization == "bad":
            raise HTTPException(401)
        return authorization == "operator"

    api = Api(app_of(make_plugin(), details=operator), runner)
    public = api.get("/health/db", headers=PAGE)
    page = Elements(public.text)
    assert "healthy" in page.text
    assert "The database answers." in page.text
    assert not page.tags("svg")
    assert not page.tags("dl")
    assert "ms" not in page.text.rpartition("}")[2]
    shown = Elements(api.get("/health/db", headers={**PAGE, "Authorization": "operator"}).text)
    assert re.search(r"latency[\d.]+ ms", shown.text)
    assert "server · version" in shown.text
    assert shown.tags("svg")
    assert api.get("/health/db", headers={**PAGE, "Authorization": "bad"}).status_code == 401


def test_it_runs_nothing_and_loads_nothing(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    answer = Api(app_of(make_plugin(), details=True), runner).get("/health/db", headers=PAGE)
    page = Elements(answer.text)
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style
    allowed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == f"'sha256-{allowed}'"
    assert "script-src" not in policy
    assert not [tag for tag, _ in page.elements if tag in ("script", "link", "img", "iframe", "object")]
    # Neither an inline style nor a handler would be allowed.
    assert not [names for _, names in page.elements if any(each == "style" or each.startswith("on") for each in names)]
    assert [each["content"] for each in page.tags("meta") if each.get("name") == "viewport"]


def test_it_loads_itself_again_until_it_is_told_not_to(make_plugin: MakePlugin, runner: asyncio.Runner) -> None:
    api = Api(app_of(make_plugin()), runner)

    def refresh(query: str) -> list[str | None]:
        metas = Elements(api.get(f"/health/db{query}", headers=PAGE).text).tags("meta")
        return [each["content"] for each in metas if each.get("http-equiv") == "refresh"]

    assert (refresh(""), refresh("?refresh=30"), refresh("?refresh=0")) == (["10"], ["30"], [])
    for wrong in ("-1", "soon", "999999"):
        refused = api.get(f"/health/db?refresh={wrong}", headers=PAGE)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_a_database_that_is_gone_is_a_page_too(dialect: str, runner: asyncio.Runner) -> None:
    url = "sqlite:////nowhere/at/all.db" if dialect == "sqlite" else "postgresql://me:pw@127.0.0.1:1/x"
    plugin = DatabasePlugin(url)
    with threads_ended(runner):
        shown = Api(app_of(plugin, details=True), runner).get("/health/db", headers=PAGE)
        public = Api(app_of(plugin), runner).get("/health/db", headers=PAGE)
        runner.run(plugin.database.dispose_async())
    assert shown.status_code == public.status_code == 503
    assert "DatabaseUnavailableError: " in shown.text
    assert "DatabaseUnavailableError" not in public.text
    assert "The database does not answer, or refuses to work." in public.text
    assert "pw" not in shown.text


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def result_of(latency: float | None, *, locks: object = 0, used: int = 1, **more: Any) -> HealthCheckResult:
    details = {
        "latency_ms": latency,
        "waiting_locks": locks,
        "pool": {"kind": "QueuePool", "size": 5, "checked_out": used, "overflow": 0},
    }
    return HealthCheckResult(HealthStatus.HEALTHY, "The database answers.", 1.0, details, **more)


FAILED = HealthCheckResult(HealthStatus.UNHEALTHY, "gone", 1.0, {}, error="DatabaseUnavailableError: gone")


class TestTheHistory:
    def test_it_is_bounded_however_often_one_asks(self) -> None:
        clock = Clock()
        history = HealthHistory(window=60, step=5, clock=clock)
        for _ in range(5000):
            history.add(result_of(1.0))
            clock.now += 0.05
        assert len(history.samples()) == 12
        assert len(history._samples) == 12
        assert all(age <= 60 for age, _ in history.samples())

    def test_it_forgets_what_is_old(self) -> None:
        clock = Clock()
        history = HealthHistory(window=60, step=5, clock=clock)
        history.add(result_of(1.0))
        clock.now += 65
        assert history.samples() == []

    def test_a_step_keeps_the_worst_of_its_checks(self) -> None:
        history = HealthHistory(clock=Clock())
        for each in (result_of(2.0, used=3), FAILED, result_of(7.0, locks=4), result_of(None, locks={"error": "no"})):
            history.add(each)
        ((_, sample),) = history.samples()
        assert (sample.latency_ms, sample.in_use, sample.waiting_locks) == (7.0, 3, 4)
        assert sample.status is HealthStatus.UNHEALTHY


class TestTheDrawing:
    def drawn(self, *results: HealthCheckResult, apart: float = 30) -> tuple[str, Elements]:
        clock = Clock()
        history = HealthHistory(clock=clock)
        for result in results:
            history.add(result)
            clock.now += apart
        page = bytes(page_response(results[-1], history, 0).body).decode()
        return page, Elements(page)

    def path(self, page: Elements, kind: str) -> str:
        """The path of the first plot."""
        return str(next(each["d"] for each in page.tags("path") if each.get("class") == kind))

    def test_there_is_a_plot_for_each_value_that_was_measured(self) -> None:
        _, page = self.drawn(result_of(1.0, used=2), result_of(3.5, locks=2))
        labels = [str(each["aria-label"]) for each in page.tags("svg")]
        assert labels == [
            "Latency: last 3.5 ms, at most 3.5 ms in 10 minutes",
            "Connections in use (pool of 5): last 1, at most 2 in 10 minutes",
            "Waiting locks: last 2, at most 2 in 10 minutes",
        ]

    def test_a_value_that_was_never_measured_has_no_plot(self) -> None:
        nothing = HealthCheckResult(
            HealthStatus.HEALTHY, "fine", 1.0, {"latency_ms": 1.0, "pool": {"kind": "NullPool"}}
        )
        _, page = self.drawn(nothing)
        assert len(page.tags("svg")) == 1

    def test_a_line_joins_what_was_measured_and_no_gap(self) -> None:
        _, page = self.drawn(result_of(1.0), result_of(2.0), apart=30)
        assert self.path(page, "line").count("L") == 1
        _, page = self.drawn(result_of(1.0), result_of(2.0), apart=200)
        assert self.path(page, "line").count("L") == 0
        assert self.path(page, "dots").count("M") == 2

    def test_a_failure_is_marked_where_nothing_was_measured(self) -> None:
        _, page = self.drawn(result_of(1.0), FAILED, result_of(1.0))
        assert self.path(page, "failed").count("M") == 1
        assert self.path(page, "dots").count("M") == 2
        assert self.path(page, "line").count("L") == 0
        assert str(page.tags("svg")[0]["aria-label"]).endswith(", 1 failed in 10 minutes")

    def test_what_the_database_says_is_text_and_never_markup(self) -> None:
        evil = "<script>alert('x')</script>\"&"
        result = HealthCheckResult(
            HealthStatus.DEGRADED,
            evil,
            1.0,
            {evil: evil, "nested": {evil: {"deep": evil}}, "slow_queries": [{"query": evil}]},
            error=f"Error: {evil}",
        )
        page, read = self.drawn(result)
        assert not read.tags("script")
        assert evil not in page
        assert read.text.count(evil) >= 5


def test_details_have_their_units() -> None:
    details = {
        "latency_ms": 1.5,
        "storage": {"size_bytes": 9437184, "file": None},
        "lag_s": 2,
        "checks": 3,
        "found": [],
    }
    page = bytes(page_response(HealthCheckResult(HealthStatus.HEALTHY, "", 1.0, details), HealthHistory(), 0).body)
    rows = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.decode())
    assert rows[2:] == [
        ("latency", "1.5 ms"),
        ("storage · size", "9.4 MB"),
        ("storage · file", "unknown"),
        ("lag", "2 s"),
        ("checks", "3"),
        ("found", "none"),
    ]


def test_it_is_in_the_document(make_plugin: MakePlugin) -> None:
    plugin = make_plugin()
    document = app_of(plugin).openapi()["paths"]
    operation = document["/health/db"]["get"]
    for status in ("200", "503"):
        assert set(operation["responses"][status]["content"]) == {"application/json", "text/html"}
        assert "Vary" in operation["responses"][status]["headers"]
    assert [each["name"] for each in operation["parameters"]] == ["refresh"]
    assert set(document["/health/db/ready"]["get"]["responses"]["200"]["content"]) == {"application/json"}
