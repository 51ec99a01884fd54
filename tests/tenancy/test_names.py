"""What is no tenant's name is refused wherever a tenant is given, by the toolkit's own exception.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import bindparam, column, func, literal, literal_column, null, select, text, true

from dotmac_database import (
    BaseRepository,
    TenantRequiredError,
    ValidationError,
    bind_tenant,
    create_async_repository,
    create_repository,
    missing_references,
    tenant_scope,
)

from .conftest import Guarded
from .models import Account, Device, Note


class _Clause:
    def __clause_element__(self) -> Any:
        return literal_column("tenant_id")


class _Unhashable:
    __hash__ = None  # type: ignore[assignment]


NO_NAMES: dict[str, Any] = {
    "literal_column": literal_column("tenant_id"),
    "column": column("tenant_id"),
    "attribute": Account.tenant_id,
    "text": text("tenant_id"),
    "literal": literal("a"),
    "bindparam": bindparam("x", "a"),
    "function": func.lower("A"),
    "null": null(),
    "true": true(),
    "subquery": select(Account.tenant_id).scalar_subquery(),
    "condition": Account.tenant_id == "a",
    "clause": _Clause(),
    "bytes": b"a",
    "bytearray": bytearray(b"a"),
    "list": ["a"],
    "tuple": ("a",),
    "set": {"a"},
    "frozenset": frozenset("a"),
    "dict": {"a": 1},
    "True": True,
    "float": 1.5,
    "class": Account,
    "function of Python": lambda: "a",
    "unhashable": _Unhashable(),
    "NUL": "a\x00",
}


@pytest.fixture(params=list(NO_NAMES))
def no_name(request: pytest.FixtureRequest) -> Any:
    return NO_NAMES[request.param]


def _repository(guarded: Guarded, model: type, tenant: Any) -> Any:
    create: Callable[..., Any] = create_async_repository if guarded.face.is_async else create_repository
    return create(guarded.session(), model, tenant)


@pytest.mark.parametrize("model", [Account, Note, Device])
def test_repositories(guarded: Guarded, no_name: Any, model: type) -> None:
    with pytest.raises(ValidationError):
        _repository(guarded, model, no_name)
    known = UUID(int=1) if model is Device else "a"
    with pytest.raises(ValidationError):
        _repository(guarded, model, known).with_tenant(no_name)


def test_sessions(guarded: Guarded, no_name: Any) -> None:
    session = guarded.session()
    with pytest.raises(ValidationError):
        bind_tenant(session, no_name)
    with pytest.raises(ValidationError), tenant_scope(session, no_name):
        pass


def test_unguarded_repositories(guarded: Guarded, no_name: Any) -> None:
    with guarded.face.database.sessions() as session, pytest.raises(ValidationError):
        BaseRepository(session, Account, no_name)


def test_references(guarded: Guarded, no_name: Any) -> None:
    with guarded.face.database.sessions() as session, pytest.raises(ValidationError):
        missing_references(session, Note, {"account_id": 1}, tenant_id=no_name)


@pytest.mark.parametrize("blank", [None, "", " ", "\t", "\xa0"])
def test_no_name_at_all(guarded: Guarded, blank: str | None) -> None:
    with pytest.raises(TenantRequiredError):
        _repository(guarded, Account, blank)
    with pytest.raises(TenantRequiredError):
        bind_tenant(guarded.session(), blank)
