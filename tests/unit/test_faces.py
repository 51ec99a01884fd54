"""The two faces are one: every public name, its parameters and its docstring."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import (
    AsyncRepository,
    AsyncTenantRepository,
    BaseRepository,
    BaseTenantRepository,
    ValidationError,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.models import Country

PAIRS = [
    (BaseRepository, AsyncRepository),
    (BaseTenantRepository, AsyncTenantRepository),
    (MockRepository, AsyncMockRepository),
]


def public(owner: type[Any]) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(owner, callable) if not name.startswith("_")}


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_both_faces_have_the_same_methods(sync: type[Any], asynchronous: type[Any]) -> None:
    assert public(sync).keys() == public(asynchronous).keys() - {"twin_class"}


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_both_faces_take_the_same_arguments(sync: type[Any], asynchronous: type[Any]) -> None:
    for name, method in public(sync).items():
        one, other = inspect.signature(method), inspect.signature(public(asynchronous)[name])
        assert list(one.parameters.values()) == list(other.parameters.values()), name


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_each_async_method_points_to_its_sync_one(sync: type[Any], asynchronous: type[Any]) -> None:
    for name, method in public(asynchronous).items():
        twin = public(sync).get(name)
        if twin is None or twin is method:
            continue
        assert inspect.getdoc(twin), name
        assert f".{name}`" in (inspect.getdoc(method) or ""), name
        plain = name in ("add_mock_data", "as_of", "for_update", "select", "values")
        assert plain or inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name


def test_a_session_of_the_other_face_is_refused() -> None:
    engine = create_engine("sqlite://")
    with Session(engine) as session:
        with pytest.raises(ValidationError, match="AsyncSession"):
            AsyncRepository(session, Country)
        with pytest.raises(ValidationError, match="takes a Session"):
            BaseRepository(AsyncSession(), Country)
        with pytest.raises(ValidationError, match="Engine"):
            BaseRepository(engine, Country)
    engine.dispose()
