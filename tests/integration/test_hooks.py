"""Whatever a user hangs on SQLAlchemy takes effect: no way that passes SQLAlchemy by is taken where one would miss it.

The oracle is SQLAlchemy itself: what an event, a method or a bind does when the same is done by hand with the ORM, it
does when a repository does it.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine.events import ConnectionEvents, DialectEvents
from sqlalchemy.event.attr import _ClsLevelDispatch, _EmptyListener, _ListenerCollection
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, Session, mapped_column, sessionmaker
from sqlalchemy.orm.events import AttributeEvents, InstanceEvents, MapperEvents, SessionEvents
from sqlalchemy.pool import Pool
from sqlalchemy.pool.events import PoolEvents
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from dotmac_database import (
    DatabaseTransaction,
    EntityNotFoundError,
    SessionEndedError,
    create_database,
    departures,
    guard_tenants,
)
from dotmac_database.engines import sync_url
from dotmac_database.execution import driver as direct
from dotmac_database.repositories import bulk
from dotmac_database.sqlalchemy_internals import has_ended
from tests.conftest import DRIVERS, Face, Faces
from tests.matrices import sampled


class Hooked(DeclarativeBase):
    """A base of its own, so that listeners to it are nobody else's."""


class Item(Hooked):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    writer: Mapped[str] = mapped_column(server_default=text("CURRENT_USER"))


class Stored(DeclarativeBase):
    """The same table where there are no users."""


class StoredItem(Stored):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    writer: Mapped[str] = mapped_column(server_default="nobody")


POSTGRES = ["asyncpg", "psycopg", "psycopg-async"]


class Place(Face):
    """One driver's face of a database, and its session factories."""

    model: Any = Item

    def maker(self, **options: Any) -> Any:
        given = {"expire_on_commit": False, **options}
        if not self.is_async:
            return sessionmaker(self.engine, **given)
        return async_sessionmaker(self.database.async_engine, **given)

    @contextmanager
    def made(self, maker: Any) -> Iterator[Any]:
        session = maker()
        try:
            yield session
        finally:
            self(session.close)

    @cached_property
    def aside(self) -> Engine:
        """Another engine for the same database, whose connections are nobody's afterwards."""
        return create_engine(sync_url(self.database.url), poolclass=NullPool)

    def start(self, engine: Engine | None = None) -> None:
        """Three rows, and nothing else."""
        with (engine or self.aside).begin() as connection:
            connection.execute(text("DELETE FROM items"))
            rows = ({"i": number, "n": f"n{number}"} for number in (1, 2, 3))
            connection.execute(text("INSERT INTO items (id, name) VALUES (:i, :n)"), list(rows))


@pytest.fixture(scope="module")
def places(faces: Faces) -> dict[str, Place]:
    """A place for each driver, created at its first use."""

    class Places(dict[str, Place]):
        def __missing__(self, driver: str) -> Place:
            face = faces[driver]
            place = self[driver] = Place(face.name, face.database, face.runner)
            place.model = StoredItem if place.engine.dialect.name == "sqlite" else Item
            place.model.metadata.create_all(place.aside)
            return place

    return Places()


@pytest.fixture(params=DRIVERS)
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    place: Place = places[request.param]
    place.start()
    return place


@pytest.fixture(params=POSTGRES)
def server(request: pytest.FixtureRequest, places: dict[str, Place]) -> Place:
    place: Place = places[request.param]
    place.start()
    return place


@pytest.fixture
def passed_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went past SQLAlchemy: statements by the driver, COPY, statements without BEGIN."""
    ways: list[str] = []
    for module, name in ((direct, "_records"), (direct, "_records_within"), (bulk, "copy")):
        real = getattr(module, name)

        def spy(*args: Any, _real: Any = real, _name: str = name, **options: Any) -> Any:
            ways.append(_name)
            return _real(*args, **options)

        monkeypatch.setattr(module, name, spy)
    return ways


def many(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"n{number}"} for number in range(100, 100 + count)]


Operation = Callable[[Place, Any], Any]

OPERATIONS: dict[str, Operation] = {
    "get": lambda face, rows: face(rows.get_by_id, 1),
    "list": lambda face, rows: face(rows.list, {"filters": [{"field": "name", "operator": "ne", "value": "x"}]}),
    "page": lambda face, rows: face(rows.list_paginated, {"pagination": {"per_page": 2}}),
    "create": lambda face, rows: face(rows.create, {"id": 9, "name": "new"}),
    "update": lambda face, rows: face(rows.update, 1, {"name": "changed"}),
    "bulk_create": lambda face, rows: face(rows.bulk_create, many(40), returning=False),
    "copy": lambda face, rows: face(rows.bulk_create, many(600), returning=False),
}


def by_hand(session: Session, operation: str, model: Any) -> Any:
    """The same with the ORM alone."""
    match operation:
        case "get":
            return session.scalars(select(model).where(model.id == 1)).all()
        case "list" | "page":
            return session.scalars(select(model).where(model.name != "x").order_by(model.id).limit(2)).all()
        case "create":
            made = model(id=9, name="new")
            session.add(made)
            session.commit()
            return made
        case "update":
            found = session.scalars(select(model).where(model.id == 1)).one()
            found.name = "changed"
            session.commit()
            return found
    session.execute(insert(model), many(40))
    return session.commit()


EVENTS: list[tuple[Any, str]] = [
    (family, name)
    for family in (
        *(ConnectionEvents, DialectEvents, PoolEvents, SessionEvents, MapperEvents, InstanceEvents, AttributeEvents),
    )
    for name in family.dispatch._event_names  # type: ignore[attr-defined]  # made at run time
]
"""All that this version of SQLAlchemy can tell of, by introspection."""


def target_of(family: Any, place: Place, maker: Any) -> Any:
    if family in (ConnectionEvents, DialectEvents, PoolEvents):
        return place.engine
    if family is SessionEvents:
        return maker if not place.is_async else maker.kw["sync_session_class"]
    return {AttributeEvents: place.model.name}.get(family, place.model)


@contextmanager
def listening(target: Any, name: str, fired: list[str]) -> Iterator[None]:
    def listener(*args: Any, **kwargs: Any) -> None:
        fired.append(name)

    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def own_maker(place: Place) -> Any:
    """A factory of a session class of its own, which overrides nothing."""
    own = type("OwnSession", (Session,), {})
    return place.maker(sync_session_class=own) if place.is_async else place.maker(class_=own)


OF_THE_POOL = ("connect", "first_connect", "close", "detach", "do_connect", "engine_disposed")
OF_MAPPING = ("before_configured", "after_configured")
EXCUSED = {
    "rollback": "By hand a read's transaction is rolled back when its session is closed; here it is committed.",
    "do_executemany": "Many rows are one statement here, which sends do_execute.",
}


@pytest.mark.parametrize(
    ("family", "name"), sampled(EVENTS, 4), ids=[f"{family.__name__}-{name}" for family, name in EVENTS]
)
def test_an_event_is_sent_as_by_hand(place: Place, family: Any, name: str) -> None:
    if name in (*OF_THE_POOL, *OF_MAPPING):
        pytest.skip("No statement sends it.")
    missed: list[str] = []
    for operation, run in OPERATIONS.items():
        maker = own_maker(place)
        fired: dict[str, list[str]] = {"hand": [], "repository": []}
        for way, names in fired.items():
            place.start()
            with listening(target_of(family, place, maker), name, names), place.made(maker) as session:
                if way == "repository":
                    held = run(place, place.repository(session, place.model))
                elif place.is_async:
                    held = place(session.run_sync, by_hand, operation, place.model)
                else:
                    held = by_hand(session, operation, place.model)
            del held
        if fired["hand"] and not fired["repository"]:
            missed.append(operation)
    assert name in EXCUSED or missed == []


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
def test_where_nothing_is_hooked_in_the_driver_is_used(place: Place, passed_by: list[str]) -> None:
    used: dict[str, list[str]] = {}
    for operation, run in OPERATIONS.items():
        place.start()
        passed_by.clear()
        with place.made(own_maker(place)) as session:
            run(place, place.repository(session, place.model))
            assert not session.in_transaction()
        used[operation] = list(passed_by)
    copied = ["copy"] if place.engine.dialect.name == "postgresql" else []
    single = ["_records"]
    assert used == {**dict.fromkeys(OPERATIONS, single), "bulk_create": [], "copy": copied}


@contextmanager
def heard_by(target: Any, name: str, listener: Any) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def by_cursor(statement: str) -> Callable[..., None]:
    """A listener that has a DBAPI cursor or connection in its arguments, and sends on it."""

    def listener(*args: Any) -> None:
        for each in args:
            if hasattr(each, "cursor") and not isinstance(each, Connection):
                cursor = each.cursor()
                cursor.execute(statement)
                cursor.close()
                return
            if hasattr(each, "execute") and hasattr(each, "fetchone"):
                each.execute(statement)
                return

    return listener


def by_connection(statement: str) -> Callable[..., None]:
    """A listener that has SQLAlchemy's connection in its arguments."""

    def listener(*args: Any) -> None:
        connection = next(each for each in args if isinstance(each, Connection))
        if not connection.info.get("busy"):
            connection.info["busy"] = True
            try:
                connection.exec_driver_sql(statement)
            finally:
                connection.info.pop("busy")

    return listener


def by_session(statement: str) -> Callable[..., None]:
    def listener(state: Any) -> None:
        state.session.connection().exec_driver_sql(statement)

    return listener


LOWERING: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "begin": ("engine", "begin", by_connection),
    "engine_connect": ("engine", "engine_connect", by_connection),
    "before_execute": ("engine", "before_execute", by_connection),
    "before_cursor_execute": ("engine", "before_cursor_execute", by_cursor),
    "checkout": ("engine", "checkout", by_cursor),
    "after_begin": ("session", "after_begin", by_connection),
    "do_orm_execute": ("session", "do_orm_execute", by_session),
}


@pytest.fixture(scope="module")
def weak(postgres_url: str) -> Iterator[str]:
    """A role of few rights."""
    import psycopg

    role = f"weak_{postgres_url.rpartition('_')[2]}_{postgres_url.rpartition('_')[0].rpartition('_')[2]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} NOLOGIN")
    yield role
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


@pytest.fixture
def guarded_rows(server: Place, weak: str) -> Iterator[str]:
    """The role, which may not see the rows 1 and 3."""
    with server.aside.begin() as connection:
        connection.execute(text(f"GRANT ALL ON items TO {weak}"))
        connection.execute(text("ALTER TABLE items ENABLE ROW LEVEL SECURITY"))
        connection.execute(text(f"CREATE POLICY seen ON items TO {weak} USING (id = 2 OR id >= 9)"))
    yield weak
    with server.aside.begin() as connection:
        connection.execute(text("DROP POLICY seen ON items"))
        connection.execute(text("ALTER TABLE items DISABLE ROW LEVEL SECURITY"))
    # A role that was committed stays with its connection.
    server(server.database.async_engine.dispose) if server.is_async else server.engine.dispose()


@pytest.mark.parametrize("local", ["SET", "SET LOCAL"])
@pytest.mark.parametrize("hook", LOWERING)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_rights_that_a_listener_lowers_are_lowered(
    server: Place, guarded_rows: str, hook: str, local: str, operation: str
) -> None:
    if (hook, operation) == ("do_orm_execute", "create"):
        pytest.skip("A flush does not send it.")
    level, name, make = LOWERING[hook]
    maker = own_maker(server)
    target = server.engine if level == "engine" else target_of(SessionEvents, server, maker)
    with heard_by(target, name, make(f"{local} ROLE {guarded_rows}")), server.made(maker) as session:
        rows = server.repository(session, Item)
        if operation == "update":
            with pytest.raises(EntityNotFoundError):
                OPERATIONS[operation](server, rows)
            return
        given = OPERATIONS[operation](server, rows)
    if operation == "get":
        assert given is None
    elif operation in ("list", "page"):
        assert [item.id for item in getattr(given, "items", given)] == [2]
    else:
        with server.aside.connect() as connection:
            writers = connection.execute(text("SELECT DISTINCT writer FROM items WHERE id >= 9")).scalars().all()
        assert writers == [guarded_rows]


def passing(method: str, base: type, called: list[str]) -> Any:
    """A method that does what the base's does, and is counted."""
    real = getattr(base, method)

    def override(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(method)
        return real(self, *args, **kwargs)

    return override


def methods_of(base: type) -> list[str]:
    own = vars(base).items()
    return [
        name for name, value in own if callable(value) and not name.startswith("_") and name != "sync_session_class"
    ]


def without_driver(place: Place, session: Any, passed_by: list[str], operations: Any = tuple(OPERATIONS)) -> None:
    """Every operation gives what it should, and nothing goes past SQLAlchemy."""
    for operation in operations:
        place.start()
        given = OPERATIONS[operation](place, place.repository(session, place.model))
        if operation in ("get", "create", "update"):
            assert given.id == {"get": 1, "create": 9, "update": 1}[operation]
        place(session.commit)
        place(session.reset)
    assert passed_by == []


MAIN = ("execute", "scalars", "connection", "get_bind", "flush", "commit", "add")
"""What is looked at again for each session, since a class can be patched later."""


@pytest.mark.parametrize(
    ("method", "how"),
    [
        (method, how)
        for method in methods_of(Session)
        for how in ("class", "instance", "patch")[: 3 if method in MAIN else 1]
    ],
)
def test_a_method_of_the_session_that_is_replaced(
    server: Place, passed_by: list[str], monkeypatch: pytest.MonkeyPatch, method: str, how: str
) -> None:
    called: list[str] = []
    override = passing(method, Session, called)
    own = type("OwnSession", (Session,), {method: override} if how == "class" else {})
    maker = server.maker(sync_session_class=own) if server.is_async else server.maker(class_=own)
    if how == "patch":
        with server.made(maker) as session:
            assert server(server.repository(session, Item).get_by_id, 1).id == 1
        passed_by.clear()
        monkeypatch.setattr(own, method, override)
    with server.made(maker) as session:
        if how == "instance":
            sync = session.sync_session if server.is_async else session
            monkeypatch.setattr(sync, method, override.__get__(sync), raising=False)
        without_driver(server, session, passed_by)
    if method in ("execute", "get_bind", "flush", "commit"):
        assert called


@pytest.mark.parametrize("method", methods_of(AsyncSession))
def test_a_method_of_the_async_session_that_is_replaced(
    places: dict[str, Place], passed_by: list[str], method: str
) -> None:
    place = places["asyncpg"]
    place.start()
    own = type("OwnSession", (AsyncSession,), {method: passing(method, AsyncSession, [])})
    with place.made(place.maker(class_=own)) as session:
        without_driver(place, session, passed_by)


@pytest.mark.parametrize("method", methods_of(Engine))
def test_a_method_of_the_engine_that_is_replaced(
    server: Place, passed_by: list[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    called: list[str] = []
    # Not setattr: pytest before 9.2 would leave the original method in the engine as an attribute of its own.
    monkeypatch.setitem(vars(server.engine), method, passing(method, Engine, called).__get__(server.engine))
    with server.made(server.maker()) as session:
        without_driver(server, session, passed_by)
    assert called or method not in ("connect", "raw_connection")


@pytest.mark.parametrize(
    "method", ["do_execute", "do_executemany", "do_begin", "do_commit", "do_rollback", "on_connect"]
)
def test_a_method_of_the_dialect_that_is_replaced(
    server: Place, passed_by: list[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    called: list[str] = []
    override = passing(method, type(server.engine.dialect), called).__get__(server.engine.dialect)
    monkeypatch.setitem(vars(server.engine.dialect), method, override)
    with server.made(server.maker()) as session:
        without_driver(server, session, passed_by)
    assert called or method in ("do_begin", "on_connect", "do_executemany")


CONFIGURED: dict[str, dict[str, Any]] = {
    "autobegin": {"autobegin": False},
    "execution_options": {"execution_options": {"logging_token": "t"}},
}


@pytest.mark.parametrize("options", CONFIGURED)
def test_a_session_of_other_options(server: Place, passed_by: list[str], options: str) -> None:
    with server.made(server.maker(**CONFIGURED[options])) as session:
        if options == "autobegin":
            for operation in OPERATIONS:
                server(session.begin)
                without_driver(server, session, passed_by, [operation])
            return
        without_driver(server, session, passed_by)


def test_an_engine_that_logs(server: Place, passed_by: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="sqlalchemy.engine.Engine"), server.made(server.maker()) as session:
        without_driver(server, session, passed_by)
    assert any("FROM items" in record.getMessage() for record in caplog.records)


@pytest.fixture
def elsewhere(server: Place) -> Iterator[Any]:
    """An engine for other tables of the same name, whose rows have other numbers."""
    with server.aside.begin() as connection:
        connection.execute(text("CREATE SCHEMA elsewhere"))
        connection.execute(text("CREATE TABLE elsewhere.items (LIKE items INCLUDING ALL)"))
    asyncpg = server.engine.dialect.driver == "asyncpg"
    how = {"server_settings": {"search_path": "elsewhere"}} if asyncpg else {"options": "-csearch_path=elsewhere"}
    other = create_database(server.database.url, connect_args=how)
    yield other.async_engine if server.is_async else other.engine
    server.runner.run(other.dispose_async())
    with server.aside.begin() as connection:
        connection.execute(text("DROP SCHEMA elsewhere CASCADE"))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("how", ["binds", "bind_mapper", "get_bind"])
def test_another_bind_is_the_one_that_is_used(server: Place, elsewhere: Any, how: str, operation: str) -> None:
    sync = elsewhere.sync_engine if server.is_async else elsewhere
    with server.aside.begin() as connection:
        connection.execute(text("INSERT INTO elsewhere.items SELECT * FROM items"))
        connection.execute(text("DELETE FROM items"))

    def get_bind(self: Any, mapper: Any = None, **given: Any) -> Any:
        return sync if mapper is not None and mapper.class_ is Item else Session.get_bind(self, mapper, **given)

    own = type("OwnSession", (Session,), {"get_bind": get_bind} if how == "get_bind" else {})
    options = {"binds": {Item: elsewhere}} if how == "binds" else {}
    maker = server.maker(sync_session_class=own, **options) if server.is_async else server.maker(class_=own, **options)
    with server.made(maker) as session:
        if how == "bind_mapper":
            (session.sync_session if server.is_async else session).bind_mapper(Item, sync)
        given = OPERATIONS[operation](server, server.repository(session, Item))
        if operation in ("get", "update"):
            assert given.id == 1
        elif operation in ("list", "page"):
            assert [item.id for item in getattr(given, "items", given)][:2] == [1, 2]
    with server.aside.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM items")).scalar() == 0


LEVELS: dict[str, tuple[Any, str]] = {
    "Engine": (Engine, "begin"),
    "Connection": (Connection, "before_cursor_execute"),
    "Pool": (Pool, "checkout"),
    "Session": (Session, "after_begin"),
    "sessionmaker": (None, "after_begin"),
    "Mapper": (Mapper, "before_insert"),
    "base": (Hooked, "load"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_listener_to_all_of_a_kind(server: Place, passed_by: list[str], level: str) -> None:
    target, name = LEVELS[level]
    fired: list[str] = []
    maker = server.maker()
    if target is None:
        target = Session if server.is_async else maker
    options = {"propagate": True} if target is Hooked else {}

    def listener(*_: Any) -> None:
        fired.append(name)

    event.listen(target, name, listener, **options)
    try:
        with server.made(server.maker() if server.is_async else maker) as session:
            operations = ["create"] if level == "Mapper" else ["get", "list", "page", "create", "update"]
            # The driver sends within the transaction of which the session's listener is told, and calls those to loads.
            if "ession" in level or level == "base":
                for operation in operations:
                    OPERATIONS[operation](server, server.repository(session, Item))
            else:
                without_driver(server, session, passed_by, operations)
    finally:
        event.remove(target, name, listener)
    assert fired


FAMILIES = {
    "session": SessionEvents,
    "engine": ConnectionEvents,
    "dialect": DialectEvents,
    "pool": PoolEvents,
    "mapper": MapperEvents,
    "instances": InstanceEvents,
    "attributes": AttributeEvents,
}
WAYS = [
    *(departures.READ_BY_DRIVER, departures.READ_ALONE, departures.WRITE_ALONE, departures.WRITE_BY_DRIVER),
    *(departures.INSERT, departures.CHANGE),
]


@pytest.mark.fast_way("driver", "autocommit")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_event_of_a_later_version_is_not_passed_by(
    places: dict[str, Place], passed_by: list[str], request: pytest.FixtureRequest, family: str
) -> None:
    monkeypatch = pytest.MonkeyPatch()
    request.addfinalizer(departures._affected_listeners.cache_clear)
    request.addfinalizer(monkeypatch.undo)  # called before the other
    place = places["asyncpg"]
    place.start()
    events: Any = FAMILIES[family]
    mapper: Any = inspect(Item)

    def after_pondering(self: Any) -> None: ...

    level = _ClsLevelDispatch(events, after_pondering)
    monkeypatch.setattr(events.dispatch, "_event_names", [*events.dispatch._event_names, "after_pondering"])
    monkeypatch.setattr(events.dispatch, "after_pondering", level, raising=False)
    for kind, empty in events.dispatch._empty_listener_reg.items():
        monkeypatch.setitem(empty, "after_pondering", _EmptyListener(level, kind))
    departures._affected_listeners.cache_clear()
    for owner in (mapper, place.engine):
        monkeypatch.delitem(vars(owner), departures._GETTERS, raising=False)
    with place.made(place.maker()) as session:
        dispatch = {
            "session": session.sync_session.dispatch,
            "engine": place.engine.dispatch,
            "dialect": place.engine.dialect.dispatch,
            "pool": place.engine.pool.dispatch,
            "mapper": mapper.dispatch,
            "instances": mapper.class_manager.dispatch,
            "attributes": Item.name.dispatch,
        }
        assert place(place.repository(session, Item).get_by_id, 1).id == 1
        assert passed_by.pop() == "_records"
        listeners: Any = (print,)
        if family == "session":
            listeners = _ListenerCollection(level, Session)
            listeners.listeners.append(print)
        monkeypatch.setattr(dispatch[family], "after_pondering", listeners, raising=False)
        without_driver(
            place, session, passed_by, [each for each in OPERATIONS if family in KNOWN_TO_COPY or each != "copy"]
        )


KNOWN_TO_COPY = ("session", "dialect", "pool")
"""Many rows at once are promised no event of a class or its objects; a connection's events can't be added to."""


@pytest.mark.parametrize("field", FAMILIES)
def test_the_events_that_a_way_does_not_concern_exist(field: str) -> None:
    events: Any = FAMILIES[field]
    for way in WAYS:
        assert getattr(way, field) <= set(events.dispatch._event_names)


def test_what_is_private_of_sqlalchemy_is_there() -> None:
    """A version that has changed it is found here rather than by a user."""
    with Session() as session:
        assert session._close_state.name == "CLOSE_IS_RESET"
    with Session(close_resets_only=False) as session:
        assert not has_ended(session)
    assert has_ended(session)
    assert departures._CONNECTIONS._events is ConnectionEvents
    assert isinstance(Connection._has_events, bool)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_session_that_has_ended_says_so(place: Place, passed_by: list[str], operation: str) -> None:
    with place.made(place.maker(close_resets_only=False)) as session:
        rows = place.repository(session, place.model)
        assert place(rows.get_by_id, 1).id == 1
    passed_by.clear()
    with pytest.raises(SessionEndedError, match="ended"):
        OPERATIONS[operation](place, rows)
    with pytest.raises(SessionEndedError):
        place(rows.for_update().get_by_id, 1)
    open_block = DatabaseTransaction.async_transaction if place.is_async else DatabaseTransaction.sync_transaction
    with pytest.raises(SessionEndedError), place.entered(open_block(session)):
        pass
    assert passed_by == []


def test_a_transaction_that_somebody_left_open_undoes_no_write(places: dict[str, Place], passed_by: list[str]) -> None:
    """What is sent on a connection at its checkin opens a transaction, as the driver's adapter is made."""
    place = places["asyncpg"]
    place.start()
    sent = by_cursor("SELECT 1")
    sent.dotmac_internal = True  # type: ignore[attr-defined]  # so that the connection alone can tell
    with heard_by(place.engine, "checkout", sent), place.made(place.maker()) as session:
        assert place(place.repository(session, Item).create, {"id": 9, "name": "new"}).name == "new"
    with place.made(place.maker()) as session:
        assert place(place.repository(session, Item).get_by_id, 9).name == "new"


def tracer(package: str) -> Any:
    def listener(*_: Any) -> None: ...

    listener.__module__ = package
    return listener


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
@pytest.mark.parametrize(
    "package", ["opentelemetry.instrumentation.sqlalchemy.engine", "sentry_sdk.integrations", None]
)
def test_who_only_looks_on_needs_no_transaction(server: Place, passed_by: list[str], package: str | None) -> None:
    listener = tracer(package or "an.app")
    if package is None:
        listener.dotmac_observes = True
    operations = ("get", "list", "page", "create", "update")
    with heard_by(server.engine, "before_cursor_execute", listener), server.made(server.maker()) as session:
        for operation in operations:
            OPERATIONS[operation](server, server.repository(session, Item))
    assert passed_by == ["_records"] * 5

    server.start()
    passed_by.clear()
    begun: list[Any] = []

    def begin(connection: Connection) -> None:
        begun.append(connection.get_execution_options().get("isolation_level"))

    begin.dotmac_observes = True  # type: ignore[attr-defined]  # it counts
    with heard_by(server.engine, "begin", begin), server.made(server.maker()) as session:
        for operation in operations:
            OPERATIONS[operation](server, server.repository(session, Item))
    assert begun == ["AUTOCOMMIT"] * 5
    assert passed_by == []


@pytest.mark.fast_way("driver", "autocommit", "update-statements")
@pytest.mark.parametrize("guarded", [False, True])
def test_sessions_of_sqlmodel_and_of_the_guard_are_known(
    places: dict[str, Place], passed_by: list[str], guarded: bool
) -> None:
    place = places["asyncpg"]
    place.start()
    maker: Any = async_sessionmaker(place.database.async_engine, class_=SQLModelSession, expire_on_commit=False)
    with place.made(guard_tenants(maker) if guarded else maker) as session:
        for operation in ("get", "create", "update", "copy"):
            OPERATIONS[operation](place, place.repository(session, Item))
    assert passed_by == ["_records", "_records", "_records", "copy"]
