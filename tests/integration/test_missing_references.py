"""`missing_references`: which foreign keys of a row to be written name no row of the tenant, in one statement.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

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
    async_first_missing_reference,
    async_missing_references,
    bind_tenant,
    first_missing_reference,
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


class TestManyRows:
    """`first_missing_reference`: the first of many rows that names no row of the tenant."""

    @pytest.fixture
    def first(self, face: Face) -> Callable[..., Any]:
        def ask(session: Any, model: type, rows: Any, tenant: Any = "a") -> Any:
            call: Any = async_first_missing_reference if face.is_async else first_missing_reference
            found = face(call, session, model, rows, tenant_id=tenant)
            return found and (found[0], found[1].fields)

        return ask

    @pytest.mark.parametrize("field", ALL_KEYS)
    def test_the_first_one_is_named(self, sessions: Any, first: Any, field: str) -> None:
        session = sessions()
        own = [{field: A}] * 3
        assert first(session, Item, own) is None
        for key in (B, UNKNOWN):
            assert first(session, Item, [*own, {field: key}, {field: A}, {field: UNKNOWN}]) == (3, (field,))
        assert first(session, Item, []) is None
        assert first(session, Item, [{field: None}, {}]) is None

    def test_of_several_keys_the_first_row_counts(self, sessions: Any, first: Any) -> None:
        rows = [{"plain_id": A}, {"plain_id": A, "dog_id": B}, {"plain_id": B}]
        assert first(sessions(), Item, rows) == (1, ("dog_id",))
        assert first(sessions(), Item, rows[::-1]) == (0, ("plain_id",))

    def test_keys_of_two_columns(self, sessions: Any, first: Any) -> None:
        session = sessions()
        own: dict[str, Any] = {"aisle": A, "shelf": A}
        assert first(session, Item, [own, {"aisle": A, "shelf": None}, {"aisle": B}]) is None
        for aisle, shelf in ((A, B), (B, A), (B, B), (A, UNKNOWN)):
            assert first(session, Item, [own, {"aisle": aisle, "shelf": shelf}]) == (1, ("aisle", "shelf"))
        half = {"full_aisle": A, "full_shelf": None}
        assert first(session, Item, [own, half]) == (1, ("full_aisle", "full_shelf"))

    def test_the_statements_do_not_grow_with_the_rows(self, sessions: Any, face: Face, first: Any) -> None:
        session = sessions()
        for many in (1, 1000):
            with counted(face.engine) as sent:
                assert first(session, Item, [{"plain_id": A, "dog_id": A}] * many) is None
            assert sum(each.startswith("SELECT ") for each in sent) <= 3
        with counted(face.engine) as sent:
            assert first(session, Item, [{"plain_id": A}, *({"plain_id": 100 + n} for n in range(1000))]) == (
                1,
                ("plain_id",),
            )
        assert sum(each.startswith("SELECT ") for each in sent) <= 3

    def test_a_deleted_row_is_no_row(self, sessions: Any, first: Any, database: Database) -> None:
        with database.engine.begin() as connection:
            connection.execute(Plain.__table__.update().where(Plain.id == A).values(is_deleted=True))  # type: ignore[attr-defined]
        assert first(sessions(), Item, [{}, {"plain_id": A}]) == (1, ("plain_id",))

    def test_across_tenants_it_is_the_rows(self, sessions: Any, face: Face, first: Any) -> None:
        session = sessions()
        plain: Session = session.sync_session if face.is_async else session
        rows = [{"tenant_id": "a", "plain_id": A}, {"tenant_id": "b", "plain_id": B}, {"tenant_id": "b", "plain_id": A}]
        if not hasattr(type(plain), "dotmac_guarded"):
            assert first(session, Item, rows, ALL_TENANTS) == (2, ("plain_id",))
            return
        with unscoped(session, reason="a test"):
            assert first(session, Item, rows, ALL_TENANTS) == (2, ("plain_id",))
            assert first(session, Item, rows[:2], ALL_TENANTS) is None

    def test_values_that_are_no_keys(self, sessions: Any, first: Any) -> None:
        session = sessions()
        assert first(session, Item, [{"plain_id": "1"}]) is None
        with pytest.raises(ValidationError, match=r"Item\.plain_id") as refused:
            first(session, Item, [{"plain_id": 1}, {"plain_id": "one"}])
        assert refused.value.index == 1
