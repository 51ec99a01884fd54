"""Listeners to an engine's statements get the same from the driver as from SQLAlchemy: driver x operation x event.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from dotmac_database import DatabaseTransaction, DatabaseUnavailableError, DuplicateEntityError
from dotmac_database.engines import sync_url
from tests.conftest import DRIVERS, Face, Faces
from tests.ways import SentByDriver, recorded


class ListenedBase(DeclarativeBase): ...


class Note(ListenedBase):
    __tablename__ = "listened_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[str]


class Trace(ListenedBase):
    """What a listener writes."""

    __tablename__ = "listened_traces"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(params=DRIVERS)
def face(request: pytest.FixtureRequest, faces: Faces) -> Iterator[Face]:
    face = faces[request.param]
    with create_engine(sync_url(face.database.url), poolclass=NullPool).begin() as connection:
        ListenedBase.metadata.drop_all(connection)
        ListenedBase.metadata.create_all(connection)
    yield face
    assert face.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def by_driver() -> Iterator[list[SentByDriver]]:
    """The statements that the driver has sent."""
    with recorded() as sent:
        yield sent


@contextmanager
def heard_by(target: Any, name: str, listener: Any, **options: Any) -> Iterator[None]:
    event.listen(target, name, listener, **options)
    try:
        yield
    finally:
        event.remove(target, name, listener)


OPERATIONS: dict[str, Callable[[Face, Any], Any]] = {
    "get": lambda face, notes: face(notes.get_by_id, 1),
    "list": lambda face, notes: face(notes.list, {"filters": [{"field": "words", "value": "one"}]}),
    "page": lambda face, notes: face(notes.list_paginated),
    "count": lambda face, notes: face(notes.count),
    "create": lambda face, notes: face(notes.create, {"id": 7, "words": "seven"}),
    "update": lambda face, notes: face(notes.update, 1, {"words": "two"}),
}


def in_transaction(face: Face, session: Any) -> Any:
    kind = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
    return face.entered(kind(session))


@contextmanager
def prepared(face: Face, *, inside: bool) -> Iterator[Any]:
    """A repository with one row, on a new session, in a transaction that has begun if ``inside``."""
    with face.session(expire_on_commit=False) as session:
        notes = face.repository(session, Note)
        face(notes.create, {"id": 1, "words": "one"})
        if not inside:
            yield notes
            return
        with in_transaction(face, session):
            face(notes.count)
            yield notes


def seen_by_listeners(face: Face, operation: str, *, inside: bool) -> list[dict[str, Any]]:
    """What a listener before and a listener after the statements of an operation got."""
    seen: list[dict[str, Any]] = []

    def before(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        connection.info["started"] = context.started = len(seen)
        kinds = context.isinsert, context.isupdate, context.isdelete, context.execute_style
        seen.append({"sql": sql, "parameters": parameters, "kinds": kinds, "many": many})
        seen[-1] |= {
            "statement": None if context.compiled is None else context.compiled.statement.__visit_name__,
            "cursor": type(cursor),
            "own": context.cursor is cursor,
        }
        seen[-1] |= {"engine": connection.engine is face.engine, "dialect": type(context.dialect)}

    def after(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        seen.append({"sql": sql, "parameters": parameters, "many": many, "cursor": type(cursor)})
        seen[-1]["since"] = connection.info.pop("started"), context.started

    with (
        prepared(face, inside=inside) as notes,
        heard_by(face.engine, "before_cursor_execute", before),
        heard_by(face.engine, "after_cursor_execute", after),
    ):
        OPERATIONS[operation](face, notes)
    own = [each for each in seen if "listened_notes" in each["sql"]]
    for each in own:
        each.pop("since", None)
    return own


@pytest.mark.fast_way("driver", "update-statements")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_listeners_get_the_same_from_the_driver(
    face: Face, by_driver: list[SentByDriver], operation: str, inside: bool
) -> None:
    from_driver = seen_by_listeners(face, operation, inside=inside)
    assert len([each for each in by_driver if each.sql == from_driver[0]["sql"]]) >= 1
    for sent in from_driver:
        assert sent.get("own", True)
    with face.session() as session:
        face(face.repository(session, Note).delete_where, [], allow_all=True)
    by_driver.clear()
    with heard_by(face.engine, "before_execute", lambda *_: None):  # rules the driver out
        from_sqlalchemy = seen_by_listeners(face, operation, inside=inside)
    assert by_driver == []
    if operation in ("create", "update"):  # the ORM names the parameters otherwise
        for each in (*from_driver, *from_sqlalchemy):
            parameters = each.pop("parameters")
            each["values"] = sorted(map(str, parameters.values() if isinstance(parameters, dict) else parameters))
            each.pop("sql")
    assert from_driver == from_sqlalchemy


@pytest.mark.fast_way("driver")
@pytest.mark.parametrize("inside", [False, True])
def test_listeners_to_errors_get_the_same(face: Face, by_driver: list[SentByDriver], inside: bool) -> None:
    def errors() -> list[Any]:
        seen: list[Any] = []

        def handle(context: Any) -> None:
            seen.append((type(context.sqlalchemy_exception), type(context.original_exception), context.is_disconnect))
            seen.append((context.connection.engine is face.engine, "listened_notes" in context.statement))
            seen.append(type(context.execution_context))

        with (
            prepared(face, inside=inside) as notes,
            heard_by(face.engine, "handle_error", handle),
        ):
            with pytest.raises(DuplicateEntityError):
                face(notes.create, {"id": 1, "words": "again"})
            assert face(notes.count) == 1
            assert face(notes.update, 1, {"words": "after"}).words == "after"
        with face.session() as session:
            face(face.repository(session, Note).delete_where, [], allow_all=True)
        return seen

    from_driver = errors()
    assert len(from_driver) == 3
    assert by_driver
    by_driver.clear()
    with heard_by(face.engine, "before_execute", lambda *_: None):
        assert errors() == from_driver
    assert by_driver == []


@pytest.mark.parametrize("way", ["driver", "sqlalchemy"])
@pytest.mark.parametrize("operation", ["count", "update"])
def test_a_connection_that_is_lost_inside_is_reported(face: Face, way: str, operation: str) -> None:
    """The operation raises the error, and the block is left by it."""
    if face.engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL's")
    others = [heard_by(face.engine, "before_execute", lambda *_: None)] if way == "sqlalchemy" else []
    with ExitStack() as stack:
        for each in (*others, heard_by(face.engine, "after_cursor_execute", lambda *_: None)):
            stack.enter_context(each)
        with pytest.raises(DatabaseUnavailableError), prepared(face, inside=True) as notes:  # noqa: PT012 - see above
            end_connections(face)
            OPERATIONS[operation](face, notes)
        with face.session() as session:
            assert face(face.repository(session, Note).count) == 1


def end_connections(face: Face) -> None:
    """Let the server end all other connections to the database, and wait until they have ended."""
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    own = create_engine(sync_url(face.database.url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with own.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        while connection.scalar(text(f"SELECT count(*) {others}")):
            connection.execute(text("SELECT pg_stat_clear_snapshot()"))


@pytest.mark.fast_way("driver", "page-totals", "update-statements")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_listener_may_replace_the_sql(
    face: Face, by_driver: list[SentByDriver], operation: str, inside: bool
) -> None:
    def commented(_c: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
        return f"{sql} /* of a listener */", parameters

    with (
        prepared(face, inside=inside) as notes,
        heard_by(face.engine, "before_cursor_execute", commented, retval=True),
    ):
        by_driver.clear()
        result = OPERATIONS[operation](face, notes)
    assert all(each.sql.endswith("/* of a listener */") for each in by_driver)
    assert len(by_driver) == 1
    assert {"get": "one", "create": "seven", "update": "two"}.get(operation, "") == getattr(result, "words", "")


@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_a_listener_writes_is_in_the_transaction_of_the_write(face: Face, name: str, fails: bool) -> None:
    """A write whose listener fails is not committed; one whose listener writes is committed with what it wrote."""
    busy: list[bool] = []

    def listener(connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if busy or "INSERT INTO listened_notes" not in sql:
            return
        busy.append(True)
        connection.execute(text("INSERT INTO listened_traces (id) VALUES (1)"))
        if fails:
            raise LookupError

    with face.session(expire_on_commit=False) as session, heard_by(face.engine, name, listener):
        notes = face.repository(session, Note)
        if fails:
            with pytest.raises(LookupError):
                face(notes.create, {"id": 7, "words": "seven"})
        else:
            face(notes.create, {"id": 7, "words": "seven"})
        assert busy
    with face.session() as session:
        rows = [face(face.repository(session, model).count) for model in (Note, Trace)]
    assert rows == ([0, 0] if fails else [1, 1])
