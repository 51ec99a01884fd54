"""What each repository method sends: exact, where clocks are noisy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dotmac_database import DatabaseTransaction, QueryFilter, SortField
from tests.conftest import Face, counted
from tests.models import Tag, User

F = QueryFilter
READ, WRITE = 1, 1


def words(sent: list[str]) -> list[str]:
    """Each statement's first word; an upsert is told from an insert, and an update may begin with its values."""
    return ["UPSERT" if "ON CONFLICT" in each else each.split()[0].replace("WITH", "UPDATE") for each in sent]


@pytest.fixture
def user(face: Face) -> Any:
    with face.session() as session:
        users = face.repository(session, User, "a")
        created = face(users.bulk_create, [{"name": f"u{n}", "email": f"{n}@x", "score": n} for n in range(5)])
        face(face.repository(session, Tag, "a").create, {"id": 1, "name": "t"})
    return created[0]


READS: dict[str, tuple[Callable[[Face, Any, Any], Any], list[str]]] = {
    "get_by_id": (lambda face, users, user: face(users.get_by_id, user.id), ["SELECT"]),
    "get_by_id_or_raise": (lambda face, users, user: face(users.get_by_id_or_raise, user.id), ["SELECT"]),
    "get_by_id with posts": (
        lambda face, users, user: face(users.get_by_id, user.id, relationships=["posts"]),
        ["SELECT", "SELECT"],
    ),
    "get_many": (lambda face, users, user: face(users.get_many, [user.id] * 3), ["SELECT"]),
    "get_by_field": (lambda face, users, user: face(users.get_by_field, "name", "u1"), ["SELECT"]),
    "list_by_field": (lambda face, users, user: face(users.list_by_field, "name", "u1"), ["SELECT"]),
    "first": (lambda face, users, user: face(users.first), ["SELECT"]),
    "exists": (lambda face, users, user: face(users.exists, user.id), ["SELECT"]),
    "count": (lambda face, users, user: face(users.count), ["SELECT"]),
    "list": (lambda face, users, user: face(users.list, {"filters": [F("posts.title", value="x")]}), ["SELECT"]),
    "list_paginated": (lambda face, users, user: face(users.list_paginated, {}), ["SELECT"]),
    "list_paginated past the end": (
        lambda face, users, user: face(users.list_paginated, {"pagination": {"page": 9}}),
        ["SELECT", "SELECT"],
    ),
    "cursor_paginate": (
        lambda face, users, user: face(users.cursor_paginate, {"sorts": [SortField("name")]}),
        ["SELECT"],
    ),
    "get_tenant_stats": (lambda face, users, user: face(users.get_tenant_stats), ["SELECT"]),
}


@pytest.mark.fast_way("autocommit", "page-totals")
@pytest.mark.parametrize("method", READS)
def test_a_read_is_a_statement_of_its_own(face: Face, user: Any, method: str) -> None:
    call, expected = READS[method]
    with face.session() as session, counted(face.engine) as sent:
        call(face, face.repository(session, User, "a"), user)
        assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert not session.in_transaction()
    # On PostgreSQL there is no transaction around it; SQLite's costs no message.
    plain = [word for word in words(sent) if word not in ("BEGIN", "COMMIT")]
    assert plain == expected
    if face.engine.dialect.name == "postgresql":
        assert words(sent) == expected


def test_a_stream_is_a_statement_for_each_batch(face: Face, user: Any) -> None:
    with face.session() as session, counted(face.engine) as sent:
        users = face.repository(session, User, "a")
        assert len(face(users.stream, {}, 2)) == 5
    assert words(sent).count("SELECT") == 3


WRITES: dict[str, tuple[Callable[[Face, Any, Any], Any], list[str]]] = {
    "create": (lambda face, users, user: face(users.create, {"name": "n"}), ["INSERT"]),
    "bulk_create": (lambda face, users, user: face(users.bulk_create, [{"name": "n"}] * 50), ["INSERT"]),
    "upsert": (lambda face, users, user: face(users.upsert, {"name": "n", "email": "1@x"}, ["email"]), ["UPSERT"]),
    "bulk_upsert": (
        lambda face, users, user: face(
            users.bulk_upsert, [{"name": "n", "email": f"{n}@x"} for n in range(20)], ["email"]
        ),
        ["UPSERT"],
    ),
    "update": (lambda face, users, user: face(users.update, user.id, {"name": "n"}), ["UPDATE"]),
    "update with a version": (
        lambda face, users, user: face(users.update, user.id, {"name": "n"}, expected_version=1),
        ["UPDATE"],
    ),
    "delete": (lambda face, users, user: face(users.delete, user.id), ["UPDATE"]),
    "restore": (lambda face, users, user: face(users.restore, user.id), ["UPDATE"]),
    "bulk_update": (
        lambda face, users, user: face(users.bulk_update, [{"id": user.id, "score": 9}]),
        ["UPDATE"],
    ),
    "update_where": (
        lambda face, users, user: face(users.update_where, [F("score", "gt", 1)], {"score": 0}),
        ["UPDATE"],
    ),
    "delete_where": (lambda face, users, user: face(users.delete_where, [F("score", "gt", 1)]), ["UPDATE"]),
    "delete_where for good": (
        lambda face, users, user: face(users.delete_where, [F("score", "gt", 1)], soft_delete=False),
        ["DELETE"],
    ),
}


IN_A_TRANSACTION = {"bulk_create", "upsert", "bulk_upsert", "bulk_update"}
"""Writes that may take several statements; the others are committed by the server with their only one."""


def as_sent(face: Face, method: str, expected: list[str]) -> list[str]:
    alone = face.engine.dialect.name == "postgresql" and method not in IN_A_TRANSACTION
    return expected if alone else ["BEGIN", *expected, "COMMIT"]


@pytest.mark.fast_way("autocommit", "update-statements")
@pytest.mark.parametrize("method", WRITES)
def test_a_write_is_one_statement_that_is_committed(face: Face, user: Any, method: str) -> None:
    call, expected = WRITES[method]
    with face.session() as session:
        users = face.repository(session, User, "a")
        with counted(face.engine) as sent:
            result = call(face, users, user)
            assert words(sent) == as_sent(face, method, expected)
        with counted(face.engine) as read:
            for entity in result if isinstance(result, list) else [result]:
                assert [getattr(entity, key) for key in users.traits.columns] if hasattr(entity, "id") else True
        assert read == []


@pytest.mark.parametrize("method", WRITES)
def test_objects_stay_readable_where_the_session_expires_on_commit(face: Face, user: Any, method: str) -> None:
    with face.session(expire_on_commit=True) as session:
        users = face.repository(session, User, "a")
        result = WRITES[method][0](face, users, user)
        with counted(face.engine) as read:
            for entity in result if isinstance(result, list) else [result]:
                assert [getattr(entity, key) for key in users.traits.columns] if hasattr(entity, "id") else True
        assert read == []


def test_a_delete_of_a_class_with_relationships_reads_first(face: Face, user: Any) -> None:
    with face.session() as session, counted(face.engine) as sent:
        face(face.repository(session, User, "a").delete, user.id, soft_delete=False)
    assert words(sent) == ["BEGIN", "SELECT", "SELECT", "DELETE", "COMMIT"]


def test_a_transaction_is_one_and_each_write_in_it_a_savepoint(face: Face, user: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        transaction = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
        with counted(face.engine) as sent, face.entered(transaction(session)):
            face(users.create, {"name": "one"})
            face(users.create, {"name": "two"})
        write = ["SAVEPOINT", "INSERT", "RELEASE"]
        assert words(sent) == ["BEGIN", *write, *write, "COMMIT"]


def test_a_lazy_transaction_begins_with_its_first_write(face: Face, user: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        transaction = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
        with counted(face.engine) as sent, face.entered(transaction(session, lazy=True)):
            face(users.count)
            assert not session.in_transaction()
            face(users.create, {"name": "one"})
            face(users.count)
        plain = words(sent)
        assert plain[-4:] == ["BEGIN", "INSERT", "SELECT", "COMMIT"]


def test_many_shapes_of_filters_share_their_statements(face: Face, user: Any) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        face(users.list, {"filters": [F("score", "gt", 1)]})
        before = len(users.traits.statements)
        for value in range(50):
            face(users.list, {"filters": [F("score", "gt", value)]})
            face(users.count, [F("name", "in", [str(value)] * (value + 1))])
        assert len(users.traits.statements) <= before + 2
