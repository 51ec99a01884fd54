"""The connection is lost after the server has committed, and before it could say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from dotmac_database.errors import TransactionError
from dotmac_database.retry import RetryPolicy
from dotmac_database.transactions import TransactionManager, on_commit, on_rollback, once

POLICY = RetryPolicy(max_attempts=3, base_delay=0.01)
Ask = Callable[[str], Any]


def insert(session: Session) -> int:
    return int(session.execute(text("INSERT INTO fault_rows (name) VALUES ('a') RETURNING id")).scalar_one())


def test_the_outcome_is_unknown_and_it_is_not_run_again(wire: Any, face: Any, ask: Ask) -> None:
    called: list[str] = []

    def work(session: Session) -> None:
        insert(session)
        on_commit(session, lambda: called.append("committed"))
        on_rollback(session, lambda: called.append("rolled back"))

    wire.lose_commits = 1
    with pytest.raises(TransactionError) as raised:
        face.retrying(TransactionManager(face.maker, policy=POLICY), work)
    assert raised.value.outcome == "unknown"
    assert raised.value.__cause__ is not None
    assert wire.lost == 1
    assert ask("SELECT count(*) FROM fault_rows") == [(1,)], "it did take effect"
    assert called == [], "nobody knows, so nobody is told"


def test_run_again_without_a_key_it_is_done_twice(wire: Any, face: Any, ask: Ask) -> None:
    """Why ``idempotent`` is a promise of the caller's."""
    wire.lose_commits = 1
    face.retrying(TransactionManager(face.maker, policy=POLICY), insert, idempotent=True)
    assert ask("SELECT count(*) FROM fault_rows") == [(2,)]


def test_with_a_key_it_is_done_once_and_gives_the_first_result(wire: Any, face: Any, ask: Ask) -> None:
    def work(session: Session) -> Any:
        record = once(session, "request 1")
        if record.first:
            record.save({"id": insert(session)})
            return None
        return record.result

    wire.lose_commits = 1
    assert face.retrying(TransactionManager(face.maker, policy=POLICY), work, idempotent=True) == {"id": 1}
    assert wire.lost == 1
    assert ask("SELECT count(*) FROM fault_rows") == [(1,)]
