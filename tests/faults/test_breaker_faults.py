"""A circuit breaker before a server that dies and comes back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database.errors import CircuitOpenError, DatabaseUnavailableError
from dotmac_database.retry.breaker import CircuitBreaker
from dotmac_database.transactions import TransactionManager
from tests.postgres import OwnServer


def test_trips_when_the_server_is_gone_and_closes_when_it_is_back(
    own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("dotmac_database.retry.breaker.time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = create_engine(make_url(own_server.url("psycopg")))
    manager = TransactionManager(sessionmaker(engine), max_retries=0)
    breaker = CircuitBreaker(failure_threshold=3, recovery_timeout=0.2)

    @breaker
    def ask() -> int:
        return manager.execute_with_retry(count)

    def count(session: Session) -> int:
        return int(session.scalar(text("SELECT count(*) FROM fault_rows")) or 0)

    assert ask() == 0
    own_server.kill()
    for _ in range(3):
        assert breaker.state == "closed"
        with pytest.raises(DatabaseUnavailableError):
            ask()
    assert breaker.state == "open"
    for _ in range(1000):
        with pytest.raises(CircuitOpenError):
            ask()
    now[0] += 0.3
    with pytest.raises(DatabaseUnavailableError):
        ask()
    assert breaker.state == "open", "the trial failed"
    own_server.start()
    now[0] += 0.3
    assert breaker.state == "half_open"
    assert ask() == 0
    assert breaker.state == "closed"
    engine.dispose()
