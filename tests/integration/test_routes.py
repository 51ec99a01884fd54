"""Each driver in each condition: the route of a read and of a write, its reason, and what then really happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    Boundary,
    DatabaseTransaction,
    Route,
    Sender,
    departures,
)
from dotmac_database.departures import Departure
from dotmac_database.dialects import drivers
from dotmac_database.engines import sync_url
from dotmac_database.execution import driver as direct
from dotmac_database.execution import routes
from dotmac_database.execution.routes import Circumstance, Reason
from tests.conftest import DRIVERS, Face, Faces


class RoutesBase(DeclarativeBase): ...


class Thing(RoutesBase):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def face(driver: str, faces: Faces) -> Iterator[Face]:
    face = faces[driver]
    with create_engine(sync_url(face.database.url), poolclass=NullPool).begin() as connection:
        RoutesBase.metadata.create_all(connection)
    yield face
    with face.session() as session:
        face(face.repository(session, Thing).delete_where, [], allow_all=True)


class Condition(NamedTuple):
    """What differs from the ordinary case, and the reasons why the routes of a read and of an update differ then."""

    block: Callable[[Face, Any], AbstractContextManager[Any]] = lambda face, session: nullcontext()
    auto_commit: bool = True
    locks: bool = False
    hook: bool = False
    expires: bool = False
    reading: tuple[Boundary | None, Reason | None] = (None, None)
    writing: tuple[Boundary | None, Reason | None] = (None, None)
    """None: as in the ordinary case, except for the driver if there is a reason."""


def in_block(face: Face, session: Any) -> AbstractContextManager[Any]:
    open_block = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(open_block(session))


@contextmanager
def in_transaction(face: Face, session: Any) -> Iterator[None]:
    face(session.begin)
    yield
    face(session.rollback)


@contextmanager
def listening(target: Any, name: str) -> Iterator[None]:
    def listener(*_: Any, **__: Any) -> None: ...

    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@contextmanager
def logged_by(face: Face, _session: Any) -> Iterator[None]:
    logger = face.engine.logger.logger if hasattr(face.engine.logger, "logger") else face.engine.logger
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


def sync(face: Face, session: Any) -> Session:
    inner: Session = session.sync_session if face.is_async else session
    return inner


OPEN = Boundary.SESSION_TRANSACTION
OWN = Boundary.OWN_TRANSACTION
CONDITIONS: dict[str, Condition] = {
    "ordinary": Condition(),
    "open transaction": Condition(
        in_transaction,
        reading=(OPEN, Circumstance.OPEN_TRANSACTION),
        writing=(Boundary.SAVEPOINT, Circumstance.OPEN_TRANSACTION),
    ),
    "open block": Condition(
        in_block,
        reading=(OPEN, Circumstance.OPEN_TRANSACTION),
        writing=(Boundary.SAVEPOINT, Circumstance.OPEN_TRANSACTION),
    ),
    "no auto_commit": Condition(auto_commit=False, writing=(OPEN, Circumstance.NO_AUTO_COMMIT)),
    "objects expire": Condition(
        expires=True,
        reading=(OPEN, Circumstance.EXPIRES_ON_COMMIT),
        writing=(OWN, Circumstance.EXPIRES_ON_COMMIT),
    ),
    "locks": Condition(
        auto_commit=False,
        locks=True,
        reading=(OPEN, Circumstance.LOCKS),
        writing=(OPEN, Circumstance.NO_AUTO_COMMIT),
    ),
    "conditions()": Condition(
        hook=True, reading=(None, Circumstance.CONDITIONS), writing=(None, Circumstance.CONDITIONS)
    ),
    "session listener": Condition(
        lambda face, session: listening(sync(face, session), "after_begin"),
        reading=(OWN, Departure.SESSION_LISTENER),
        writing=(OWN, Departure.SESSION_LISTENER),
    ),
    "engine listener": Condition(
        lambda face, session: listening(face.engine, "begin"),
        reading=(OWN, Departure.ENGINE_LISTENER),
        writing=(OWN, Departure.ENGINE_LISTENER),
    ),
    "model listener": Condition(
        lambda face, session: listening(Thing, "refresh"),
        reading=(None, Departure.MODEL_LISTENER),
        writing=(None, Departure.MODEL_LISTENER),
    ),
    "log of statements": Condition(
        logged_by, reading=(None, Departure.ENGINE_LOG), writing=(None, Departure.ENGINE_LOG)
    ),
}


def expected(driver: str, condition: Condition, *, reads: bool) -> Route:
    boundary, reason = condition.reading if reads else condition.writing
    if condition.expires and DRIVERS[driver][0] == "async":
        boundary = reason = None  # the objects of an AsyncSession never expire
    if boundary is None and reason is None:
        return Route(Sender.DRIVER, Boundary.AUTOCOMMIT)
    if boundary is None:
        boundary = Boundary.AUTOCOMMIT if "sqlite" not in driver else OWN
    by_driver = isinstance(reason, Circumstance) and reason is not Circumstance.CONDITIONS
    by_driver |= reason is Departure.SESSION_LISTENER  # this listener is called when the transaction begins
    return Route(Sender.DRIVER if by_driver else Sender.STATEMENT, boundary, reason)


@pytest.fixture
def sent_by_driver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that the driver sent by itself."""
    sent: list[str] = []
    real = direct._sent

    def spy(dialect: Any, pooled: Any, to_send: Any, *args: Any, **kwargs: Any) -> Any:
        rows = real(dialect, pooled, to_send, *args, **kwargs)
        sent.append(to_send.sql)
        return rows

    monkeypatch.setattr(direct, "_sent", spy)
    return sent


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == routes.__name__]


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
@pytest.mark.parametrize("name", CONDITIONS)
def test_the_route_of_each_condition(
    driver: str, face: Face, name: str, sent_by_driver: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger=routes.__name__)
    condition = CONDITIONS[name]
    base: Any = AsyncRepository if face.is_async else BaseRepository

    class Things(base):  # type: ignore[misc, valid-type]  # either face
        if condition.hook:

            def conditions(self) -> Any:
                return (Thing.id > 0,)

    with face.session(expire_on_commit=condition.expires) as session:
        face(face.repository(session, Thing).create, {"id": 1, "name": "one"})
        with condition.block(face, session):
            things = Things(session, Thing, auto_commit=condition.auto_commit)
            reading = things.for_update() if condition.locks else things
            if name == "open block":
                face(things.count)  # the block begins its transaction with the first statement
            caplog.clear()
            sent_by_driver.clear()
            before = sync(face, session).in_transaction()
            route = face(reading.explain_route)
            assert route == expected(driver, condition, reads=True)
            assert sync(face, session).in_transaction() is before
            assert logged(caplog) == sent_by_driver == []

            assert [thing.name for thing in face(reading.list)] == ["one"]
            assert logged(caplog) == [f"Thing: {route}"]
            assert len(sent_by_driver) == (route.sender is Sender.DRIVER)
            assert sync(face, session).in_transaction() is (before or route.boundary is OPEN)
            if not before and sync(face, session).in_transaction():
                face(session.rollback)

            caplog.clear()
            sent_by_driver.clear()
            face(things.update, 1, {"name": "two"})
            written = expected(driver, condition, reads=False)
            assert logged(caplog) == [f"Thing: {written}"]
            assert len(sent_by_driver) == (written.sender is Sender.DRIVER)
            assert sync(face, session).in_transaction() is (before or written.boundary is OPEN)
            if not before and sync(face, session).in_transaction():
                face(session.rollback)


def test_the_route_is_a_sentence() -> None:
    route = Route(Sender.STATEMENT, Boundary.SAVEPOINT, Circumstance.OPEN_TRANSACTION)
    assert str(route) == (
        "The statement is sent as a statement of SQLAlchemy's, in a savepoint of the session's transaction. "
        "The session is in a transaction."
    )
    assert str(routes.DIRECT) == "The statement is sent by the driver, without SQLAlchemy, without BEGIN and COMMIT."


ROWS = [(5, Sender.VALUES), (100, Sender.ARRAYS), (600, Sender.COPY)]


@pytest.mark.fast_way("copy", "arrays")
@pytest.mark.parametrize(("count", "sender"), ROWS)
def test_the_log_names_the_sender_of_many_rows(
    driver: str, face: Face, count: int, sender: Sender, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="dotmac_database")
    if "sqlite" in driver:
        sender = Sender.VALUES
    with face.session() as session:
        rows = [{"id": number, "name": "n"} for number in range(1, count + 1)]
        assert face(face.repository(session, Thing).bulk_create, rows, returning=False) == count
    assert any(sender.value in message for message in caplog.messages), caplog.messages


def test_a_held_object_whose_row_is_gone_is_created_in_one_transaction(face: Face) -> None:
    """The SELECT for the held key has begun a transaction, so that the INSERT can't be sent without BEGIN."""
    with face.session() as session, face.session() as other:
        things = face.repository(session, Thing)
        held = face(things.create, {"id": 1, "name": "one"})
        assert face(face.repository(other, Thing).delete, 1)
        with listening(Thing, "refresh_flush"):
            assert face(things.create, {"id": 1, "name": "two"}).name == "two"
        assert held.name == "one"
    with face.session() as session:
        assert face(face.repository(session, Thing).get_by_id, 1).name == "two"


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.parametrize("owner", ["SQLAlchemy", "asyncpg"])
def test_a_private_name_that_is_gone_breaks_no_call(
    driver: str, face: Face, owner: str, sent_by_driver: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if owner == "SQLAlchemy":
        monkeypatch.setattr(departures, "_ABSENT", "_gone")
    else:
        monkeypatch.setattr(drivers, "absent_of_asyncpg", lambda: "_gone")
    with face.session() as session:
        things = face.repository(session, Thing)
        route = face(things.explain_route)
        if owner == "SQLAlchemy":
            assert route.reason in (Departure.INTERNALS, Circumstance.EXPIRES_ON_COMMIT)
        elif driver == "asyncpg":
            assert route == Route(Sender.STATEMENT, Boundary.AUTOCOMMIT, Departure.INTERNALS)
        else:
            assert route == routes.DIRECT  # the names are asyncpg's
        face(things.create, {"id": 1, "name": "one"})
        rows = [{"id": number, "name": "n"} for number in range(2, 700)]
        assert face(things.bulk_create, rows, returning=False) == 698
        assert face(things.update, 1, {"name": "two"}).name == "two"
        assert face(things.get_by_id, 1).name == "two"
        assert face(things.delete, 1)
        assert face(things.count) == 698
    assert sent_by_driver == [] or (owner == "asyncpg" and driver != "asyncpg")
