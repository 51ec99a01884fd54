"""Whose fault it is: what the server's own code names wrongly is a 500 in the log, what the client names is a 422."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi import Body, Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import MetaData

from dotmac_database import AsyncRepository, QueryFilter, QueryOptions, SortField
from dotmac_database_fastapi import get_repository, options_query
from tests.fastapi.conftest import Api
from tests.models import Base, User


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


Users = AsyncRepository[User]
KEY = UUID(int=1)
MISUSES: dict[str, Callable[[Users], Awaitable[Any]]] = {
    "create": lambda users: users.create({"nmae": "x", "email": "a@b.c"}),
    "bulk_create": lambda users: users.bulk_create([{"nmae": "x"}]),
    "upsert": lambda users: users.upsert({"name": "x"}, ["nmae"]),
    "update": lambda users: users.update(KEY, {"nmae": "x"}),
    "update_where": lambda users: users.update_where([QueryFilter("name", "eq", "x")], {"nmae": "x"}),
    "filter": lambda users: users.list({"filters": [QueryFilter("nmae", "eq", "x")]}),
    "path": lambda users: users.list({"filters": [QueryFilter("posts.nmae", "eq", "x")]}),
    "sort": lambda users: users.list({"sorts": [SortField("nmae")]}),
    "relationship": lambda users: users.get_by_id(KEY, relationships=["nmae"]),
    "field": lambda users: users.get_by_field("nmae", "x"),
    "values": lambda users: users.values("nmae").list(),
    "a sort by many": lambda users: users.list({"sorts": [SortField("posts.title")]}),
    "all rows": lambda users: users.delete_where([]),
    "a cursor on a numbered page": lambda users: users.list_paginated(QueryOptions(cursor_pagination={"limit": 2})),
}
VALUES: dict[str, Callable[[Users], Awaitable[Any]]] = {
    "filter": lambda users: users.list({"filters": [QueryFilter("score", "eq", "many")]}),
    "create": lambda users: users.create({"name": "x", "email": "a@b.c", "score": "many"}),
    "update": lambda users: users.update(KEY, {"score": "many"}),
    "null": lambda users: users.update(KEY, {"name": None}),
}


def _api(app: FastAPI, runner: asyncio.Runner, work: Callable[[Users], Awaitable[Any]]) -> Api:
    @app.get("/work")
    async def endpoint(users: Users = Depends(get_repository(User))) -> None:
        await work(users)

    return Api(app, runner)


@pytest.mark.parametrize("name", MISUSES)
def test_what_the_server_names_wrongly_is_its_own_fault(
    app: FastAPI, runner: asyncio.Runner, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    api = _api(app, runner, MISUSES[name])
    with caplog.at_level(logging.ERROR):
        answer = api.get("/work", tenant="t")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal"), answer.text
    assert "detail" not in answer.json()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_refused_is_the_clients(app: FastAPI, runner: asyncio.Runner, name: str) -> None:
    answer = _api(app, runner, VALUES[name]).get("/work", tenant="t")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


def test_a_name_that_the_client_sent_is_the_clients(app: FastAPI, runner: asyncio.Runner) -> None:
    @app.get("/sorted")
    async def by_hand(request: Request, users: Users = Depends(get_repository(User))) -> None:
        await users.list({"sorts": [SortField(request.query_params["by"])]})

    @app.post("/dicts")
    async def of_a_dict(data: dict[str, Any] = Body(), users: Users = Depends(get_repository(User))) -> None:
        await users.create(data)

    @app.post("/objects")
    async def of_an_object(data: Anything, users: Users = Depends(get_repository(User))) -> None:
        await users.create(data)

    api = Api(app, runner)
    long = "nmae" * 40
    for answer in (
        api.get("/sorted?by=nm%61e", tenant="t"),
        api.get(f"/sorted?by={long}", tenant="t"),
        api.post("/dicts", tenant="t", json={"nmae": "x"}),
        api.post("/objects", tenant="t", json={"nmae": "x"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text


def test_the_options_of_a_query_never_blame_the_client(app: FastAPI, runner: asyncio.Runner) -> None:
    @app.get("/users")
    async def listed(
        options: QueryOptions = Depends(options_query(User)), users: Users = Depends(get_repository(User))
    ) -> int:
        return len((await users.list_paginated(options)).items)

    assert Api(app, runner).get("/users?limit=2", tenant="t").status_code == 500
