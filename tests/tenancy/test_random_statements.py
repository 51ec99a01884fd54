"""Random statements on a guarded session give what they give in a database that holds the tenant's rows alone.

``DOTMAC_RANDOM_STATEMENTS`` says how many there are of each kind; the usual run has 300, and 60 on the async face.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine, inspect
from sqlalchemy.exc import SAWarning, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from dotmac_database import TenantIsolationError, bind_tenant
from dotmac_database.engines import Database
from tests.conftest import Face, empty

from .conftest import Guarded
from .people import TENANTS, PeopleBase, contents, fill
from .random_statements import Maker

EXAMPLES = int(os.environ.get("DOTMAC_RANDOM_STATEMENTS", "300"))
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*cartesian product:sqlalchemy.exc.SAWarning", "ignore:.*cartesian:sqlalchemy.exc.SAWarning"
)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return PeopleBase.metadata


@pytest.fixture(scope="module")
def alone(_database: Database) -> Iterator[Engine]:
    """A database of the same kind with the rows of tenant a alone."""
    if _database.engine.dialect.name == "postgresql":
        with _database.engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA alone")
        engine = create_engine(_database.engine.url, connect_args={"options": "-csearch_path=alone"})
    else:
        engine = create_engine("sqlite://")
    PeopleBase.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection, "a")
    yield engine
    engine.dispose()
    if _database.engine.dialect.name == "postgresql":
        with _database.engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA alone CASCADE")


@pytest.fixture(scope="module")
def mixed(_database: Database, tables: MetaData) -> Iterator[Database]:
    """The rows, which go again: a run in parallel may come back to this database after the other one."""
    with _database.engine.begin() as connection:
        fill(connection, *TENANTS)
    yield _database
    empty(_database, tables)


@pytest.fixture
def database(mixed: Database) -> Database:
    return mixed


def plain(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """A row as plain values: objects by what they have loaded, collections in order of their keys."""
    state = inspect(value, raiseerr=False)
    if state is None or not hasattr(state, "mapper"):
        return value
    if id(value) in seen:
        return (type(value).__name__, state.identity)
    within = seen | {id(value)}
    held = []
    for key, each in sorted(state.dict.items()):
        if key == "_sa_instance_state":
            continue
        if key in state.mapper.relationships:
            many = each if isinstance(each, list) else [each]
            held.append((key, sorted((plain(member, within) for member in many), key=repr)))
        else:
            held.append((key, each))
    return (type(value).__name__, *held)


def rows(session: Session, statement: Any) -> list[Any]:
    """The rows of a statement, in an order of their own."""
    result = session.execute(statement)
    found = [tuple(map(plain, row)) for row in result.unique().all()]
    session.expunge_all()
    return sorted(found, key=repr)


def outcome(work: Callable[[], Any]) -> tuple[str, Any]:
    """What came of it: the answer, a refusal, or an error of the database's."""
    try:
        return "answer", work()
    except TenantIsolationError as error:
        return "refused", str(error)
    except (SQLAlchemyError, AssertionError, NotImplementedError) as error:
        if isinstance(error, SAWarning):
            raise
        return "error", str(error)


def examples(face: Face) -> int:
    return EXAMPLES // 5 if face.is_async else EXAMPLES


def test_reads_are_those_of_a_database_of_the_tenant_alone(face: Face, alone: Engine) -> None:
    guarded = Guarded(face)
    session = guarded.session()
    bind_tenant(session, "a")
    reference = sessionmaker(alone)()
    count: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for seed in range(examples(face)):
        statement = Maker(seed, alone.dialect.name).read()
        expected = outcome(lambda: rows(reference, statement))  # noqa: B023 - called at once
        if expected[0] != "answer":
            reference.rollback()
            continue
        found = outcome(lambda: guarded.run(session, lambda s: rows(s, statement)))  # noqa: B023 - called at once
        count[found[0]] += 1
        if found[0] == "refused":
            refusals[found[1]] += 1
            face(session.rollback)
            continue
        assert found == expected, f"seed {seed}: {statement}"
    guarded.close()
    reference.close()
    assert count["answer"] >= 0.98 * sum(count.values()), refusals
    assert count["answer"] >= examples(face) * 0.8, count  # the maker makes few that no database takes


def test_text_reads_nothing_of_others(face: Face) -> None:
    guarded = Guarded(face)
    session = guarded.session()
    bind_tenant(session, "a")
    refused = 0
    for seed in range(examples(face)):
        statement = Maker(seed, face.engine.dialect.name).with_text()
        found = outcome(lambda: guarded.run(session, lambda s: rows(s, statement)))  # noqa: B023 - called at once
        assert "b!" not in str(found[1]), f"seed {seed}: {statement}"
        assert "c!" not in str(found[1]), f"seed {seed}: {statement}"
        refused += found[0] == "refused"
        face(session.rollback)
    guarded.close()
    assert refused > 0.5 * examples(face)


def test_writes_are_those_of_a_database_of_the_tenant_alone(face: Face, alone: Engine) -> None:
    guarded = Guarded(face)
    with face.database.engine.connect() as connection:
        before = contents(connection)
    with alone.connect() as connection:
        own_before = contents(connection)
    count: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for seed in range(examples(face) // 2):
        reference = sessionmaker(alone)()
        session = guarded.session()
        bind_tenant(session, "a")

        def changed(s: Session, seed: int = seed) -> dict[str, list[Any]]:
            Maker(seed, alone.dialect.name).write()(s)
            s.flush()
            return contents_unguarded(s)

        expected = outcome(lambda: changed(reference))  # noqa: B023 - called at once
        if expected[0] == "answer":
            found = outcome(lambda: guarded.run(session, changed))  # noqa: B023 - called at once
            count[found[0]] += 1
            if found[0] == "answer":
                assert difference(before, found[1]) == difference(own_before, expected[1]), f"seed {seed}"
            else:
                refusals[found[1]] += 1
        reference.rollback()
        reference.close()
        face(session.close)
    guarded.opened.clear()
    with face.database.engine.connect() as connection:
        assert contents(connection) == before
    assert count["answer"] >= 0.98 * sum(count.values()), refusals
    assert count["answer"] >= examples(face) * 0.35, count


def contents_unguarded(session: Session) -> dict[str, list[Any]]:
    """Every row as the session's transaction sees it, past its guard."""
    from dotmac_database import unscoped
    from dotmac_database.tenancy.context import binding_of

    if binding_of(session) is None:
        return contents(session.connection())
    with unscoped(session, reason="compare"):
        return contents(session.connection())


def difference(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> dict[str, tuple[list[Any], list[Any]]]:
    """What a write has taken and added, by table."""
    return {
        name: (
            sorted(set(before[name]) - set(after[name]), key=repr),
            sorted(set(after[name]) - set(before[name]), key=repr),
        )
        for name in before
        if before[name] != after[name]
    }
