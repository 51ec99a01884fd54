"""`page` gives the kind of page that the options ask for, on every kind of repository."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, FastAPI

from dotmac_database import (
    AsyncRepository,
    CursorPaginationParams,
    CursorPaginationResult,
    MisuseError,
    PaginationParams,
    PaginationResult,
    QueryOptions,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from dotmac_database_fastapi import DatabasePlugin, get_repository, options_query, register_exception_handlers
from tests.conftest import Face
from tests.fastapi.conftest import Api
from tests.models import Tag

ASKED: list[tuple[Any, type[Any]]] = [
    (None, PaginationResult),
    ({}, PaginationResult),
    ({"pagination": {"page": 2, "per_page": 2}}, PaginationResult),
    (QueryOptions(pagination=PaginationParams(2, 2)), PaginationResult),
    ({"cursor_pagination": {"limit": 2, "cursor_field": "name"}}, CursorPaginationResult),
    (QueryOptions(cursor_pagination=CursorPaginationParams(2, cursor_field="name")), CursorPaginationResult),
]


def _names(page: Any) -> list[str]:
    return [each["name"] if isinstance(each, dict) else each.name for each in page.items]


@pytest.mark.parametrize("kind", ["rows", "values", "mock"])
def test_the_options_decide(face: Face, kind: str) -> None:
    with face.session() as session:
        if kind == "mock":
            tags: Any = (AsyncMockRepository if face.is_async else MockRepository)(Tag, tenant_id="t")
        else:
            tags = face.repository(session, Tag, "t")
        face(tags.bulk_create, [{"name": name} for name in "abc"])
        read = tags.values("id", "name") if kind == "values" else tags
        for options, result in ASKED:
            page = face(read.page, options)
            assert type(page) is result
            method = read.cursor_paginate if result is CursorPaginationResult else read.list_paginated
            assert _names(page) == _names(face(method, options))


def test_both_kinds_at_once_are_refused(face: Face) -> None:
    with face.session() as session:
        tags = face.repository(session, Tag, "t")
        with pytest.raises(MisuseError, match="page"):
            face(tags.page, {"pagination": {"page": 1}, "cursor_pagination": {"limit": 1}})


def test_the_options_of_a_query_string(database: Any) -> None:
    plugin = DatabasePlugin(database.url, tenant=lambda: "t")
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)

    @app.get("/tags")
    async def listed(
        options: QueryOptions = Depends(options_query(Tag)), tags: AsyncRepository[Tag] = Depends(get_repository(Tag))
    ) -> str:
        return type(await tags.page(options)).__name__

    with asyncio.Runner() as runner:
        api = Api(app, runner)
        assert api.get("/tags").json() == "PaginationResult"
        assert api.get("/tags?page=2&per_page=5").json() == "PaginationResult"
        assert api.get("/tags?limit=2").json() == "CursorPaginationResult"
        runner.run(plugin.database.dispose_async())
