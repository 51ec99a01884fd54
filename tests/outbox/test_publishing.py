"""A message is written if, and only if, the transaction in which it is published commits."""

# ruff: noqa: PT012  # the block that an exception leaves is what is tested
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import MetaData, event, insert

from dotmac_database import (
    DatabaseTransaction,
    MisuseError,
    SessionEndedError,
    TenantIsolationError,
    ValidationError,
    bind_tenant,
    outbox_table,
    publish,
    restrict_to_reads,
    tenant_scope,
)
from dotmac_database.outbox import publishing, table
from tests.conftest import counted

from .conftest import Place
from .models import OUTBOX, Order


class MineError(Exception):
    """The user's own."""


def block(place: Place, session: Any, **options: Any) -> Any:
    kind = "async_transaction" if place.face.is_async else "sync_transaction"
    return place.face.entered(getattr(DatabaseTransaction, kind)(session, **options))


def add(session: Any, number: int) -> None:
    session.add(Order(tenant_id="a", number=number))


def commit(place: Place, session: Any) -> None:
    publish(session, "t", 1)
    place.face(session.commit)


def commit_with_rows(place: Place, session: Any) -> None:
    add(session, 1)
    publish(session, "t", 1)
    place.face(session.flush)
    publish(session, "t", 2)
    place.face(session.commit)


def rolled_back(place: Place, session: Any) -> None:
    publish(session, "t", "lost")
    place.face(session.rollback)
    publish(session, "t", 1)
    place.face(session.commit)


def closed(place: Place, session: Any) -> None:
    publish(session, "t", "lost")
    place.face(session.close)
    place.face(session.commit)


def nobody_commits(place: Place, session: Any) -> None:
    add(session, 1)
    place.face(session.flush)
    publish(session, "t", "lost")


def savepoint_rolled_back(place: Place, session: Any) -> None:
    publish(session, "t", 1)
    savepoint = session.begin_nested() if not place.face.is_async else place.face(session.begin_nested().start)
    publish(session, "t", "lost")
    place.face(savepoint.rollback)
    publish(session, "t", 2)
    place.face(session.commit)


def savepoint_released(place: Place, session: Any) -> None:
    publish(session, "t", 1)
    savepoint = session.begin_nested() if not place.face.is_async else place.face(session.begin_nested().start)
    publish(session, "t", 2)
    place.face(savepoint.commit)
    publish(session, "t", 3)
    place.face(session.commit)


def outer_committed_over_an_open_savepoint(place: Place, session: Any) -> None:
    outer = session.begin() if not place.face.is_async else place.face(session.begin().start)
    publish(session, "t", 1)
    if place.face.is_async:
        place.face(session.begin_nested().start)
    else:
        session.begin_nested()
    publish(session, "t", 2)
    place.face(outer.commit)


def lazy_block(place: Place, session: Any) -> None:
    with block(place, session, lazy=True):
        publish(session, "t", 1)


def block_in_a_block(place: Place, session: Any) -> None:
    with block(place, session):
        publish(session, "t", 1)
        with pytest.raises(MineError), block(place, session):
            publish(session, "t", "lost")
            raise MineError
        with block(place, session):
            publish(session, "t", 2)


def block_that_fails(place: Place, session: Any) -> None:
    with pytest.raises(MineError), block(place, session):
        add(session, 1)
        publish(session, "t", "lost")
        raise MineError


def repository_that_commits(place: Place, session: Any) -> None:
    publish(session, "t", 1)
    place.face(place.face.repository(session, Order, "a", auto_commit=True).create, {"number": 1})


def read_alone(place: Place, session: Any) -> None:
    with block(place, session, lazy=True):
        place.face(place.face.repository(session, Order, "a").count)
        publish(session, "t", 1)
        place.face(place.face.repository(session, Order, "a").count)


CASES: dict[Callable[[Place, Any], None], tuple[list[Any], list[int]]] = {
    commit: ([1], []),
    commit_with_rows: ([1, 2], [1]),
    rolled_back: ([1], []),
    closed: ([], []),
    nobody_commits: ([], []),
    savepoint_rolled_back: ([1, 2], []),
    savepoint_released: ([1, 2, 3], []),
    outer_committed_over_an_open_savepoint: ([1, 2], []),
    lazy_block: ([1], []),
    block_in_a_block: ([1, 2], []),
    block_that_fails: ([], []),
    repository_that_commits: ([1], [1]),
    read_alone: ([1], []),
}
"""What is done, with the messages and the orders that are committed then."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_message_is_committed_with_its_transaction(place: Place, case: Callable[[Place, Any], None]) -> None:
    with place.session() as session:
        if place.kind != "plain":
            bind_tenant(session, "a")
        case(place, session)
    messages, orders = CASES[case]
    assert place.rows() == messages
    assert place.orders() == orders
    tenant = None if place.kind == "plain" else "a"
    assert {each for (each,) in place.columns("tenant_id")} <= {tenant}


def test_many_messages_are_one_statement_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dotmac_database.outbox.publishing.QUIET", 60.0)  # no second notification, however slow it is
    with place.session() as session:
        if place.kind != "plain":
            bind_tenant(session, "a")
        engine = place.engine.sync_engine if place.face.is_async else place.engine

        def sent(count: int) -> list[str]:
            add(session, 1)
            for number in range(count):
                publish(session, "t", number, key="k")
            with counted(engine) as statements:
                place.face(session.commit)
            return statements

        sent(1)  # the first connection, and the first notification
        without, one, many = sent(0), sent(1), sent(300)
        assert len(one) == len(many) == len(without) + 1
        assert one == many
    assert place.rows() == [0, 0, *range(300)]
    assert sorted(place.columns("position")) == place.columns("position")


def test_the_columns_of_a_message(place: Place) -> None:
    payload = {"text": "é\x00\ud800", "list": [None, True, 1.5, 2**70, {}], "nested": {"a": ("b",)}}
    with place.session() as session:
        if place.kind != "plain":
            bind_tenant(session, "a")
        published = publish(session, "orders.created", payload, key="7")
        payload["text"] = "changed later"
        other = publish(session, "orders.created", None)
        place.face(session.commit)
    assert isinstance(published, UUID)
    assert (published.version, other.version) == (7, 7)
    assert place.columns("id", "topic", "key", "status", "attempt", "failures", "available_at") == [
        (published, "orders.created", "7", "pending", 0, 0, None),
        (other, "orders.created", None, "pending", 0, 0, None),
    ]
    stored, empty = place.rows()
    assert stored == {"text": "é\x00\ud800", "list": [None, True, 1.5, 2**70, {}], "nested": {"a": ["b"]}}
    assert empty is None


def test_messages_of_listeners_to_the_flush_are_written(place: Place) -> None:
    with place.session() as session:
        if place.kind != "plain":
            bind_tenant(session, "a")
        sync = session.sync_session if place.face.is_async else session
        event.listen(sync, "after_flush", lambda inner, _: publish(inner, "t", "flushed"))
        publish(session, "t", "first")
        add(session, 1)
        place.face(session.commit)
        assert place.rows() == ["first", "flushed"]
        add(session, 2)
        place.face(session.commit)  # the flush is a part of this COMMIT, which had no message before
    assert place.rows() == ["first", "flushed", "flushed"]


def test_the_tenant_is_that_of_the_call(place: Place) -> None:
    if place.kind == "plain":
        pytest.skip("a plain session has no tenant")
    with place.session() as session:
        publish(session, "t", "nobody's")
        with tenant_scope(session, "a"):
            publish(session, "t", "a's")
            with pytest.raises(TenantIsolationError):
                bind_tenant(session, "b")
        with pytest.raises(TenantIsolationError):
            bind_tenant(session, "b")
        place.face(session.commit)
        with tenant_scope(session, "b"):
            publish(session, "t", "b's")
            place.face(session.commit)
    assert place.columns("tenant_id", "payload") == [(None, "nobody's"), ("a", "a's"), ("b", "b's")]


def test_a_tenant_can_neither_read_nor_forge_messages(place: Place) -> None:
    if place.kind == "plain":
        pytest.skip("a plain session has no tenant")
    with place.session() as session:
        bind_tenant(session, "a")
        forged = {"id": uuid4(), "tenant_id": "b", "topic": "t", "payload": 1, "created_at": publishing.utc_now()}
        for statement in (OUTBOX.select(), OUTBOX.delete(), insert(OUTBOX).values(forged)):
            with pytest.raises(Exception, match=r"dotmac_outbox|denied|row-level"):
                place.face(session.execute, statement)
            place.face(session.rollback)
    assert place.rows() == []


BAD: dict[str, tuple[Any, str]] = {
    "set": ({"a": [1, {"b": {2}}]}, r"payload\.a\[1\]\.b is of type set"),
    "bytes": (b"secret", "payload is of type bytes"),
    "nan": ([float("nan")], r"payload\[0\] is not a finite number"),
    "key": ({1: "secret"}, "payload has a key of type int"),
    "object": ({"at": object()}, r"payload\.at is of type object"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_payload_that_is_no_json_names_its_path_and_no_value(places: Any, bad: str) -> None:
    payload, words = BAD[bad]
    with places["sqlite3-plain"].session() as session:
        with pytest.raises(ValidationError, match=words) as refused:
            publish(session, "t", payload)
        assert "secret" not in str(refused.value)
        assert not session.in_transaction()


def test_a_payload_that_contains_itself_is_refused(places: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with places["sqlite3-plain"].session() as session, pytest.raises(ValidationError, match="levels deep"):
        publish(session, "t", endless)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\x00b", "\ud800", 7])
@pytest.mark.parametrize("field", ["topic", "key"])
def test_topics_and_keys_are_checked(places: Any, field: str, name: Any) -> None:
    values = {"topic": "t", "key": "k", field: name}
    with places["sqlite3-plain"].session() as session, pytest.raises(ValidationError, match=f"The {field} of a"):
        publish(session, values["topic"], 1, key=values["key"])


def test_sessions_that_can_not_publish(places: Any) -> None:
    place = places["sqlite3-guarded"]
    with place.session() as session:
        restrict_to_reads(session)
        with pytest.raises(MisuseError):
            publish(session, "t", 1)
    ended = place.maker(close_resets_only=False)
    ended.close()
    with pytest.raises(SessionEndedError):
        publish(ended, "t", 1)


def test_without_a_table_and_with_several(monkeypatch: pytest.MonkeyPatch, places: Any) -> None:
    with places["sqlite3-plain"].session() as session:
        monkeypatch.setattr(table, "_MADE", set())
        with pytest.raises(MisuseError, match=r"call outbox_table\(metadata\)"):
            publish(session, "t", 1)
        first, second = outbox_table(MetaData()), outbox_table(MetaData(schema="shop"))
        with pytest.raises(MisuseError, match=r"dotmac_outbox, shop\.dotmac_outbox"):
            publish(session, "t", 1)
        publish(session, "t", 1, table=first)
        assert second.fullname == "shop.dotmac_outbox"
        assert outbox_table(first.metadata) is first


def test_a_process_notifies_once_in_a_while(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = places["psycopg-plain"]
    now = [time.monotonic()]
    monkeypatch.setattr(publishing.time, "monotonic", lambda: now[0])
    with place.session() as session, counted(place.engine) as statements:
        for pause in (0.0, 0.01, 0.01, 0.2, 0.01):
            now[0] += pause
            publish(session, "t", 1)
            session.commit()
    place.empty()
    notifying = ["pg_notify" in each for each in statements if each.startswith("INSERT")]
    assert notifying == [True, False, False, True, False]
