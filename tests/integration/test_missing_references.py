"""`missing_references`: which foreign keys of a row to be written name no row of the tenant, in one statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from dotmac_database import (
    ALL_TENANTS,
    Database,
    RowLevelSecurity,
    TenantIsolationError,
    TenantRequiredError,
    ValidationError,
    async_missing_references,
    bind_tenant,
    missing_references,
    unscoped,
)
from tests.conftest import Face, counted
from tests.fastapi.test_references import METADATA, UNKNOWN, A, B, Common, Dog, Item, OrgItem, Plain, fill
from tests.tenancy.conftest import Guarded

Missing = Callable[..., set[str]]

ALL_KEYS = ("plain_id", "elsewhere_id", "unmapped_id", "dog_id", "within_id", "renamed")


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return METADATA


@pytest.fixture(params=["plain", "guarded", "rls"])
def sessions(request: pytest.FixtureRequest, face: Face, database: Database) -> Iterator[Any]:
    """Makes sessions of a kind, with the rows of both tenants there."""
    fill(database)
    kinds: dict[str, Any] = {"guarded": {}, "rls": {"rls": RowLevelSecurity(METADATA)}}
    if request.param == "plain":
        opened: list[Any] = []
        made: Any = database.async_sessions if face.is_async else database.sessions

        def new() -> Any:
            opened.append(made())
            return opened[-1]

        yield new
        for session in opened:
            face(session.close)
        return
    guarded = Guarded(face, **kinds[request.param])
    yield guarded.session
    guarded.close()


@pytest.fixture
def missing(face: Face) -> Missing:
    def ask(session: Any, model: type, values: dict[str, Any], tenant: Any = "a") -> set[str]:
        call: Any = async_missing_references if face.is_async else missing_references
        found = face(call, session, model, values, tenant_id=tenant)
        return {field for each in found for field in each.fields}

    return ask


def test_every_key_is_asked_for_in_one_statement(sessions: Any, face: Face, missing: Missing) -> None:
    session = sessions()
    engine = face.engine
    for key, expected in ((A, set()), (B, set(ALL_KEYS)), (UNKNOWN, set(ALL_KEYS)), (None, set())):
        with counted(engine) as sent:
            assert missing(session, Item, dict.fromkeys(ALL_KEYS, key)) == expected
        selects = [each for each in sent if each.startswith("SELECT EXISTS")]
        assert len(selects) == (0 if key is None else 1)
    mixed = {"plain_id": B, "dog_id": A, "elsewhere_id": UNKNOWN}
    assert missing(session, Item, mixed) == {"plain_id", "elsewhere_id"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"aisle": A, "shelf": A}, set()),
        ({"aisle": A, "shelf": B}, {"aisle", "shelf"}),
        ({"aisle": A, "shelf": None}, set()),
        ({"aisle": A}, set()),
        ({"full_aisle": A, "full_shelf": A}, set()),
        ({"full_aisle": A, "full_shelf": None}, {"full_aisle", "full_shelf"}),
        ({"full_aisle": None, "full_shelf": None}, set()),
        ({}, set()),
    ],
)
def test_keys_of_two_columns(sessions: Any, missing: Missing, values: dict[str, Any], expected: set[str]) -> None:
    assert missing(sessions(), Item, values) == expected


@pytest.mark.parametrize(
    ("model", "field"), [(Dog, "friend_id"), (Dog, "keeper_id"), (Plain, "parent_id"), (OrgItem, "by_org_id")]
)
def test_other_classes(sessions: Any, missing: Missing, model: type, field: str) -> None:
    for key, expected in ((A, set()), (B, {field}), (UNKNOWN, {field})):
        assert missing(sessions(), model, {field: key}) == expected


def test_the_tenant_of_the_session_is_meant(sessions: Any, missing: Missing) -> None:
    session = sessions()
    try:
        bind_tenant(session, "b")
    except TenantIsolationError:
        with pytest.raises(TenantRequiredError):  # not guarded
            missing(session, Common, {"plain_id": B}, None)
        return
    assert missing(session, Common, {"plain_id": B}, None) == set()
    assert missing(session, Common, {"plain_id": A}, None) == {"plain_id"}
    with pytest.raises(TenantIsolationError):
        missing(session, Item, {"plain_id": A}, "a")


def test_across_tenants_it_is_the_rows(sessions: Any, face: Face, missing: Missing) -> None:
    session = sessions()
    plain: Session = session.sync_session if face.is_async else session
    asked = [({"tenant_id": "a", "plain_id": A}, set()), ({"tenant_id": "a", "plain_id": B}, {"plain_id"})]
    if not hasattr(type(plain), "dotmac_guarded"):
        assert [missing(session, Item, values, ALL_TENANTS) for values, _ in asked] == [each for _, each in asked]
        return
    with pytest.raises(TenantIsolationError):
        missing(session, Item, asked[0][0], ALL_TENANTS)
    with unscoped(session, reason="a test"):
        assert [missing(session, Item, values, ALL_TENANTS) for values, _ in asked] == [each for _, each in asked]
        with pytest.raises(TenantRequiredError):
            missing(session, Item, {"plain_id": A}, ALL_TENANTS)


def test_values_that_are_no_keys(sessions: Any, missing: Missing) -> None:
    session = sessions()
    assert missing(session, Item, {"plain_id": "1"}) == set()
    with pytest.raises(ValidationError, match=r"Item\.plain_id"):
        missing(session, Item, {"plain_id": "one"})
