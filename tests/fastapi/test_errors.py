"""Exceptions as problems."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException

import dotmac_database
from dotmac_database import (
    CircuitOpenError,
    ConstraintViolationError,
    DatabaseError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    EntityNotFoundError,
    InvalidCursorError,
    SessionEndedError,
    StaleEntityError,
    TenantIsolationError,
    TenantRequiredError,
    TransactionError,
    UnscopedStatementError,
    ValidationError,
)
from dotmac_database_fastapi import register_exception_handlers
from tests.fastapi.conftest import Api

CASES: list[tuple[DatabaseError, int, dict[str, Any]]] = [
    (EntityNotFoundError("no such User"), 404, {"detail": "no such User", "code": "not_found"}),
    (DuplicateEntityError("exists", fields=("email",)), 409, {"fields": ["email"], "code": "duplicate"}),
    (ConstraintViolationError("refused"), 409, {"code": "constraint"}),
    (StaleEntityError("changed"), 409, {"code": "stale"}),
    (ValidationError("bad", field="score"), 422, {"fields": ["score"], "code": "invalid"}),
    (InvalidCursorError(), 400, {"code": "invalid_cursor"}),
    (TenantRequiredError("which?"), 400, {"code": "tenant_required"}),
    (TenantIsolationError("foreign"), 403, {"code": "tenant_isolation"}),
    (UnscopedStatementError("raw"), 403, {"code": "tenant_isolation"}),
    (DatabaseUnavailableError("at host secret"), 503, {"code": "unavailable"}),
    (DatabaseTimeoutError("slow"), 503, {"code": "timeout"}),
    (CircuitOpenError(retry_after=12.3), 503, {"code": "circuit_open"}),
    (TransactionError("lost", transient=True, sqlstate="40001"), 503, {"code": "conflict"}),
    (TransactionError("secret"), 500, {"code": "internal"}),
    (TransactionError("secret", outcome="unknown", transient=True), 500, {"code": "internal"}),
    (SessionEndedError("secret"), 500, {"code": "internal"}),
    (DatabaseError("secret"), 500, {"code": "internal"}),
]


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/raise/{number}")
    async def fail(number: int) -> None:
        raise CASES[number][0]

    @app.get("/http")
    async def http() -> None:
        raise HTTPException(418, "mine")

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


def test_other_exceptions_are_left_alone(api: Api) -> None:
    answer = api.get("/http")
    assert (answer.status_code, answer.json()) == (418, {"detail": "mine"})


def test_every_error_has_been_thought_of() -> None:
    tree = {
        each for each in vars(dotmac_database).values() if isinstance(each, type) and issubclass(each, DatabaseError)
    }
    assert tree == {type(error) for error, *_ in CASES}
