"""Exceptions as problems."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import date
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

import dotmac_database
import dotmac_database_fastapi
from dotmac_database import (
    CircuitOpenError,
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    InvalidCursorError,
    LazyLoadError,
    MisuseError,
    PermissionDeniedError,
    PolicyNotExpressibleError,
    SessionEndedError,
    StaleEntityError,
    StatementBudgetExceeded,
    TenantIsolationError,
    TenantNotGivenError,
    TenantRequiredError,
    TransactionError,
    UnscopedStatementError,
    ValidationError,
)
from dotmac_database_fastapi import (
    BadTenantError,
    JobHeadersError,
    SuspendedTenantError,
    UnknownTenantError,
    register_exception_handlers,
)
from tests.fastapi.conftest import Api

CASES: list[tuple[DatabaseError, int, dict[str, Any]]] = [
    (EntityNotFoundError("no such User"), 404, {"detail": "no such User", "code": "not_found"}),
    (DuplicateEntityError("exists", fields=("email",)), 409, {"fields": ["email"], "code": "duplicate"}),
    (ConstraintViolationError("refused"), 409, {"code": "constraint"}),
    (StaleEntityError("changed"), 409, {"code": "stale"}),
    (ValidationError("bad", field="score"), 422, {"fields": ["score"], "code": "invalid"}),
    (MisuseError("secret", field="nmae"), 500, {"code": "internal"}),
    (PolicyNotExpressibleError("secret"), 500, {"code": "internal"}),
    (InvalidCursorError(), 400, {"code": "invalid_cursor"}),
    (TenantRequiredError("which?"), 400, {"code": "tenant_required"}),
    (TenantNotGivenError("which?"), 400, {"code": "tenant_required"}),
    (TenantIsolationError("foreign"), 403, {"code": "tenant_isolation"}),
    (BadTenantError("which?"), 400, {"code": "tenant_required"}),
    (SuspendedTenantError(), 403, {"code": "tenant_suspended"}),
    (UnknownTenantError(), 404, {"code": "tenant_unknown"}),
    (JobHeadersError("altered"), 403, {"code": "job_refused"}),
    (PermissionDeniedError("not yours"), 403, {"detail": "not yours", "code": "permission_denied"}),
    (UnscopedStatementError("raw"), 403, {"code": "tenant_isolation"}),
    (DatabaseUnavailableError("at host secret"), 503, {"code": "unavailable"}),
    (DatabaseTimeoutError("slow"), 503, {"code": "timeout"}),
    (CircuitOpenError(retry_after=12.3), 503, {"code": "circuit_open"}),
    (TransactionError("lost", transient=True, sqlstate="40001"), 503, {"code": "conflict"}),
    (TransactionError("secret"), 500, {"code": "internal"}),
    (TransactionError("secret", outcome="unknown", transient=True), 500, {"code": "internal"}),
    (SessionEndedError("secret"), 500, {"code": "internal"}),
    (LazyLoadError("secret"), 500, {"code": "internal"}),
    (StatementBudgetExceeded("secret"), 500, {"code": "internal"}),
    (DatabaseError("secret"), 500, {"code": "internal"}),
]


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/raise/{number}")
    async def fail(number: int) -> None:
        raise CASES[number][0]

    return app


@pytest.fixture
def api(app: FastAPI, runner: asyncio.Runner) -> Api:
    return Api(app, runner)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: type(CASES[number][0]).__name__)
def test_each_class_has_its_status(api: Api, number: int, caplog: pytest.LogCaptureFixture) -> None:
    error, status, members = CASES[number]
    with caplog.at_level(logging.INFO, "dotmac_database_fastapi"):
        answer = api.get(f"/raise/{number}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"]
    assert body.items() >= members.items()
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "secret" not in answer.text
    # What the client is not told, the log is: in one line where there may be thousands.
    logged = [record for record in caplog.records if record.name.startswith("dotmac_database_fastapi")]
    assert [record.levelno for record in logged] == {500: [logging.ERROR], 503: [logging.WARNING]}.get(status, [])
    assert [record.exc_info[1] for record in logged if record.exc_info] == ([error] if status == 500 else [])
    assert all(f"GET /raise/{number}: " in record.getMessage() for record in logged)
    assert all(type(error).__name__ in record.getMessage() for record in logged if status == 503)


def test_a_breaker_says_when_to_come_again(api: Api) -> None:
    number = next(n for n, (error, *_) in enumerate(CASES) if isinstance(error, CircuitOpenError))
    assert api.get(f"/raise/{number}").headers["retry-after"] == "13"


def test_a_stale_version_under_if_match_is_a_failed_precondition(api: Api) -> None:
    number = next(n for n, (error, *_) in enumerate(CASES) if isinstance(error, StaleEntityError))
    assert api.get(f"/raise/{number}", headers={"If-Match": '"1"'}).status_code == 412


def test_fastapis_own_validation_error(api: Api) -> None:
    answer = api.get("/raise/x")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["loc"] == ["path", "number"]


HTTP_ERRORS: list[tuple[Any, dict[str, str] | None, dict[str, Any]]] = [
    ((418, "mine"), None, {"status": 418, "title": "I'm a Teapot", "code": "i_m_a_teapot", "detail": "mine"}),
    ((401, None), {"WWW-Authenticate": "Bearer"}, {"status": 401, "title": "Unauthorized", "code": "unauthorized"}),
    ((499, "gone"), None, {"status": 499, "title": "Client Error", "code": "client_error", "detail": "gone"}),
    (
        (409, {"code": "sold_out", "detail": "No seats.", "headers": 1, "status": 1}),
        None,
        {"status": 409, "title": "Conflict", "code": "sold_out", "detail": "No seats.", "headers": 1},
    ),
    ((400, [{"at": date(2026, 1, 2)}]), None, {"status": 400, "title": "Bad Request", "code": "bad_request"}),
]


@pytest.mark.parametrize("number", range(len(HTTP_ERRORS)))
def test_an_http_exception_is_a_problem(app: FastAPI, api: Api, number: int) -> None:
    (status, detail), headers, expected = HTTP_ERRORS[number]

    @app.get("/error")
    async def error() -> None:
        raise HTTPException(status, detail, headers)

    answer = api.get("/error")
    if isinstance(detail, list):
        expected = {**expected, "errors": [{"at": "2026-01-02"}]}
    assert (answer.status_code, answer.json()) == (status, {"type": "about:blank", **expected})
    assert answer.headers["content-type"] == "application/problem+json"
    for name, value in (headers or {}).items():
        assert answer.headers[name] == value


def test_a_redirect_by_an_http_exception_is_no_problem(app: FastAPI, api: Api) -> None:
    @app.get("/moved")
    async def moved() -> None:
        raise HTTPException(307, headers={"Location": "/elsewhere"})

    answer = api.get("/moved")
    assert (answer.status_code, answer.headers["location"]) == (307, "/elsewhere")
    assert answer.headers["content-type"] == "application/json"


def test_what_the_router_refuses_is_a_problem(api: Api) -> None:
    unknown = api.get("/nowhere")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = api.post("/raise/1")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "GET")
    for answer in (unknown, wrong):
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_unexpected_exception_is_a_problem_and_reaches_the_server(app: FastAPI, runner: asyncio.Runner) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("secret")

    sent: list[Any] = []

    async def call() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/broken",
            "headers": [],
            "query_string": b"",
            "root_path": "",
        }

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    with pytest.raises(LookupError):  # for the server's log
        runner.run(call())
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"]) == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "code": "internal",
    }


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", [StarletteHTTPException, HTTPException, 404, DatabaseError, RequestValidationError])
def test_a_handler_of_the_users_own_wins(runner: asyncio.Runner, kind: Any, when: str) -> None:
    app = FastAPI()

    async def own(request: Request, error: Exception) -> Response:
        return Response("own", 299)

    if when == "before":
        app.add_exception_handler(kind, own)
    register_exception_handlers(app)
    if when == "after":
        app.add_exception_handler(kind, own)

    @app.get("/{number}")
    async def fail(number: int) -> None:
        raise HTTPException(404) if number else DatabaseError("of the database")

    path = {DatabaseError: "/0", RequestValidationError: "/x"}.get(kind, "/1")
    assert Api(app, runner).get(path).status_code == 299


def test_every_error_has_been_thought_of() -> None:
    exported = [*vars(dotmac_database).values(), *vars(dotmac_database_fastapi).values()]
    tree = {each for each in exported if isinstance(each, type) and issubclass(each, DatabaseError)}
    assert tree == {type(error) for error, *_ in CASES}
