"""Statements that are sent directly by asyncpg, because SQLAlchemy's processing costs more than the statement itself.

`routes` decides whether the driver can send a statement. The statement is compiled once, and runs on the pooled driver
connection. Its rows become the same objects, in the same state, as with the ORM. If the statement or the connection
turns out to be unsuitable, the functions return None, and the ORM is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Insert,
    Select,
    SelectBase,
    Table,
    TextClause,
    Update,
)
from sqlalchemy import exc as sa
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.base import instance_dict, instance_state
from sqlalchemy.sql import ClauseElement, visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import await_only

from ..departures import WRITE_BY_DRIVER, engine_departure
from ..dialects.driver_internals import (
    Adapted,
    Attribute,
    Pooled,
    attributes_of,
    begin,
    caches_statements,
    has_begun,
    prepared_statement,
)
from ..dialects.errors import loses_connection
from ..dialects.stale_plans import go_back, is_stale_plan, note_stale, point_of
from ..dialects.transactions import BUSY, mark_aborted
from ..errors import SessionEndedError
from ..models.expressions import hybrid_sql
from ..models.traits import Traits, is_of_cached_shape
from ..sqlalchemy_internals import (
    accept_all,
    annotations_of,
    has_loader_options,
    identity_adder,
    identity_class,
    note_inserted,
    raise_as_connect_error,
    result_columns,
    unload,
    without_annotations,
)
from .routes import engine_of
from .state import refuse_ended
from .work import lost_in_write

M = TypeVar("M")
Process = Callable[[object], object]


@dataclass(slots=True, eq=False)
class DriverStatement:
    """A compiled statement for the driver.

    ``keys`` are the attributes of the object, or the keys of the dict, that each row begins with, in the row's order.
    """

    sql: str
    parameters: Sequence[tuple[str, object, Process | None]]
    types: list[TypeEngine[object]]
    keys: tuple[str, ...]

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """The parameters in the driver's order."""
        return [
            value if process is None else process(value)
            for name, constant, process in self.parameters
            for value in (values.get(name, constant),)
        ]

    def processors(self, dialect: Dialect, attributes: Sequence[Attribute]) -> Processors:
        """The conversions of a row's values, by position. They depend on the types that the server reports."""
        processors = (
            (place, type_.dialect_impl(dialect).result_processor(dialect, attribute.type.oid))
            for place, (type_, attribute) in enumerate(zip(self.types, attributes, strict=True))
        )
        return tuple((place, process) for place, process in processors if process is not None)


Processors = tuple[tuple[int, Process], ...]

_DRIVER_STATEMENTS = "dotmac_driver_statements"
"""The attribute of a dialect that caches its `DriverStatement`s, so that the cache is freed with the engine.

None stands for a statement that the driver can't send.
"""

_PROCESSORS = "dotmac_database.processors"
"""The key in a pooled connection's ``info`` under which the conversions for each `DriverStatement` are cached."""

_MAX_PROCESSORS = 256
"""The maximum number of statements with cached conversions of a connection; asyncpg caches 100 prepared statements."""


def fetch(
    session: Session,
    statement: object,
    parameters: Mapping[str, object],
    traits: Traits[M],
    fields: Sequence[str] | None,
) -> list[tuple[object, ...]] | None:
    """The rows of a read, which takes one statement.

    Each row begins with a dict of these ``fields``, or with an object if ``fields`` is empty. With ``fields=None`` it
    has only values. Returns None if the statement was not sent, or if the connection was lost, since a read may be sent
    again. Raises SQLAlchemy's `DBAPIError`, whose ``orig`` is the driver's exception.
    """
    engine = engine_of(session)
    to_send = _driver_statement(statement, engine.dialect, traits, fields)
    if to_send is None:
        return None
    rows = _records(engine, to_send, parameters)
    if rows is None or fields is None:
        return None if rows is None else [tuple(row) for row in rows]
    width = len(to_send.keys)
    firsts: list[Any] = (
        [dict(zip(to_send.keys, row[:width], strict=True)) for row in rows]
        if fields
        else _objects(session, traits, to_send.keys, rows)
    )
    return [(each, *row[width:]) for each, row in zip(firsts, rows, strict=True)]


def can_send(session: Session, statement: object, traits: Traits[M], fields: Sequence[str] | None) -> bool:
    """Whether `fetch` would send this statement, if the connection caches prepared statements. Sends nothing."""
    return _driver_statement(statement, engine_of(session).dialect, traits, fields) is not None


def write(session: Session, statement: object, parameters: Mapping[str, object], traits: Traits[M]) -> list[M] | None:
    """The objects of the rows that a write returns. The write is one statement, which the server commits by itself.

    Returns None if the statement was not sent. If the connection is lost, it raises `TransactionError` with
    ``outcome="unknown"``.
    """
    engine = engine_of(session)
    to_send = _driver_statement(statement, engine.dialect, traits, ())
    if to_send is None:
        return None
    rows = _records(engine, to_send, parameters, repeatable=False)
    return None if rows is None else _objects(session, traits, to_send.keys, rows)


def insert(session: Session, statement: object, parameters: Mapping[str, object], traits: Traits[M]) -> list[M] | None:
    """The object of a new row, inserted in the session's transaction, which is begun if there is none.

    Returns None if the INSERT was not sent. A rollback makes the object transient, as it does with a flushed object.
    """
    if session.new or session.dirty or session.deleted:
        return None
    to_send = _driver_statement(statement, engine_of(session).dialect, traits, ())
    if to_send is None:
        return None
    connection = session.connection()
    if engine_departure(connection, WRITE_BY_DRIVER):
        return None
    rows = _records_within(connection, to_send, parameters)
    if rows is None:
        return None
    objects = _objects(session, traits, to_send.keys, rows)
    note_inserted(session, map(instance_state, objects))
    return objects


def _driver_statement(
    statement: object, dialect: Dialect, traits: Traits[M], fields: Sequence[str] | None
) -> DriverStatement | None:
    cache: WeakKeyDictionary[object, tuple[DriverStatement | None]] | None = vars(dialect).get(_DRIVER_STATEMENTS)
    if cache is None:
        cache = WeakKeyDictionary()
        setattr(dialect, _DRIVER_STATEMENTS, cache)
    cached = cache.get(statement)
    if cached is None:
        cached = cache[statement] = (_compiled(statement, dialect, traits, fields),)
    return cached[0]


def _compiled(
    statement: object, dialect: Dialect, traits: Traits[M], fields: Sequence[str] | None
) -> DriverStatement | None:
    if (
        not isinstance(statement, (Select, Insert, Update))
        or has_loader_options(statement)
        or _holds_users_sql(statement, traits.tables[0])
    ):
        return None
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler) or compiled.post_compile_params or compiled.literal_execute_params:
        return None
    if compiled.prefetch:
        return None  # Python must compute a value, such as a default, at each execution
    columns = result_columns(compiled)
    keys: tuple[str, ...] = ()
    if fields is not None:
        keys = tuple(_key(traits, entry.objects[0]) for entry in columns[: len(fields) or len(traits.columns)])
        if set(keys) != set(fields or traits.columns):
            return None
    parameters = [
        (name, bind.effective_value, bind.type.dialect_impl(dialect).bind_processor(dialect))
        for name in compiled.positiontup or ()
        for bind in (compiled.binds[name],)
    ]
    return DriverStatement(str(compiled), parameters, [entry.type for entry in columns], keys)


def _holds_users_sql(statement: Select[Any] | Insert | Update, table: Table) -> bool:
    """Whether a statement may contain SQL that the user wrote, with tables that a guarded session may have to confine.

    Such a statement must be sent by the session. In the toolkit's statements, the user's SQL comes only from hybrids
    and from the conditions of relationships, and it has such tables only if it contains a SELECT or a text.
    """
    if not is_of_cached_shape(statement):
        return True
    if isinstance(statement, Select) and [*map(without_annotations, statement.get_final_froms())] != [table]:
        return True
    elements = list(visitors.iterate(statement))
    if not any(_is_opaque(element) for element in elements if element is not statement):
        return False
    owners = (annotations_of(element).get("parententity") for element in elements)
    return any(map(_brings_sql, {owner.mapper for owner in owners if owner is not None}))


def _is_opaque(element: object) -> bool:
    """Whether an element of a statement is a SELECT or a text. The statement's own FROM does not show their tables."""
    literal = isinstance(element, ColumnClause) and element.is_literal and element.name not in ("*", "1")
    return literal or isinstance(element, (SelectBase, TextClause))


def _brings_sql(mapper: Mapper[M]) -> bool:
    """Whether a class's hybrids, or the conditions of its relationships, contain a SELECT or a text."""
    expressions: list[object] = []
    for relationship in mapper.relationships:
        expressions += [relationship.primaryjoin, relationship.secondaryjoin]
    for name, descriptor in mapper.all_orm_descriptors.items():
        if isinstance(descriptor, hybrid_property):
            if descriptor.custom_comparator is not None:
                return True
            expressions.append(hybrid_sql(mapper.class_, name))
    return any(
        _is_opaque(element)
        for expression in expressions
        if isinstance(expression, ClauseElement)
        for element in visitors.iterate(expression)
    )


def _key(traits: Traits[M], column: ColumnElement[object]) -> str:
    mapped = column in traits.mapper.columns.values()
    return traits.mapper.get_property_by_column(column).key if mapped else ""


def _records(
    engine: Engine, to_send: DriverStatement, parameters: Mapping[str, object], *, repeatable: bool = True
) -> list[list[object]] | None:
    """The rows of a statement in AUTOCOMMIT. None: it was not sent, or a ``repeatable`` read lost its connection."""
    try:
        pooled: Any = engine.raw_connection()
    except engine.dialect.loaded_dbapi.Error as error:
        raise_as_connect_error(error, engine)
        raise
    try:
        if not caches_statements(pooled) or has_begun(pooled.dbapi_connection):
            return None  # asyncpg caches no statements, or other code began a transaction that could be rolled back
        return _sent(engine.dialect, pooled, to_send, parameters, begins=False)
    except Exception as error:
        if loses_connection(engine.dialect, pooled, error):
            pooled.invalidate(error)
            if not repeatable:
                raise lost_in_write() from error
            return None
        raise sa.DBAPIError(to_send.sql, None, error) from error
    except BaseException as ended:
        pooled.invalidate(ended)  # the task was cancelled, and it is unknown what the server sends next
        raise
    finally:
        pooled.close()


def _records_within(
    connection: Connection, to_send: DriverStatement, parameters: Mapping[str, object]
) -> list[list[object]] | None:
    """The rows of a statement in the connection's transaction, which is begun if need be. None: nothing was sent."""
    pooled: Any = connection.connection
    if not caches_statements(pooled) or pooled.dbapi_connection.isolation_level == "autocommit":
        return None
    info = pooled.info
    info[BUSY] = True
    try:
        return _sent(connection.dialect, pooled, to_send, parameters, begins=True)
    except SessionEndedError:
        raise
    except Exception as error:
        if connection.closed or connection.invalidated:
            raise SessionEndedError from error
        lost = loses_connection(connection.dialect, pooled, error)
        if lost:
            connection.invalidate(error)
        else:
            mark_aborted(connection)
        raise sa.DBAPIError(to_send.sql, None, error, connection_invalidated=lost) from error
    except BaseException as ended:
        if not connection.closed:
            connection.invalidate(ended)
        raise
    finally:
        info.pop(BUSY, None)


def _sent(
    dialect: Dialect, pooled: Pooled, to_send: DriverStatement, parameters: Mapping[str, object], *, begins: bool
) -> list[list[object]]:
    """The rows of a statement. It is sent again if the server's plan is stale and no earlier work is lost by that.

    With ``begins``, a transaction is begun first unless the connection has one already.
    """
    driver, adapted = pooled.driver_connection, pooled.dbapi_connection
    arguments = to_send.arguments(parameters)
    point = point_of(dialect, pooled)
    if begins and not has_begun(adapted):
        begin(adapted)
        _refuse_lost(pooled, adapted)
    try:
        records = await_only(driver.fetch(to_send.sql, *arguments))
    except Exception as error:
        if not is_stale_plan(error):
            raise
        note_stale(dialect)
        if point is None:
            raise
        _refuse_lost(pooled, adapted)
        go_back(dialect, pooled, point)
        if begins and not has_begun(adapted):
            begin(adapted)
        _refuse_lost(pooled, adapted)
        records = await_only(driver.fetch(to_send.sql, *arguments))
    rows = [list(record) for record in records]
    if rows:
        for place, process in _processors(dialect, pooled, to_send):
            for row in rows:
                row[place] = process(row[place])
    return rows


def _refuse_lost(pooled: Pooled, adapted: Adapted) -> None:
    """Raise `SessionEndedError` if the connection was returned to the pool meanwhile: another session may use it."""
    if pooled.dbapi_connection is not adapted:
        raise SessionEndedError


def _processors(dialect: Dialect, pooled: Pooled, to_send: DriverStatement) -> Processors:
    """The conversions of the rows that a connection has just fetched, for the types that the server reported.

    After a change of the schema, the driver prepares the statement again. The prepared statement is then another
    object, and the conversions are made anew.
    """
    info = pooled.info
    cached: dict[DriverStatement, tuple[object, Processors]] | None = info.get(_PROCESSORS)
    if cached is None:
        cached = info[_PROCESSORS] = {}
    driver = pooled.driver_connection
    prepared = prepared_statement(driver, to_send.sql)
    last = cached.get(to_send)
    if last is not None and prepared is not None and last[0] is prepared:
        return last[1]
    if prepared is None:  # the statement is too long for the driver's cache
        return to_send.processors(dialect, await_only(driver.prepare(to_send.sql)).get_attributes())
    if len(cached) >= _MAX_PROCESSORS:
        cached.clear()
    processors = to_send.processors(dialect, attributes_of(prepared))
    cached[to_send] = prepared, processors
    return processors


def _objects(session: Session, traits: Traits[M], keys: Sequence[str], rows: Sequence[list[object]]) -> list[M]:
    """The objects of these rows. An object that the session already holds is refreshed; the others are new."""
    refuse_ended(session)  # another task may have ended the session during the statement
    mapper, held = traits.mapper, session.identity_map
    make, session_id, kind = mapper.class_manager.new_instance, session.hash_key, identity_class(mapper)
    add = identity_adder(session)
    places = [keys.index(key) for key in traits.primary_key]
    objects: list[M] = []
    for row in rows:
        identity = (kind, tuple([row[place] for place in places]), None)
        entity = held.get(identity)
        if entity is None:
            entity = make()
            state = instance_state(entity)
            state.key = identity
            state.session_id = session_id
            add(state, identity)
            instance_dict(entity).update(zip(keys, row))  # noqa: B905 - further values may follow the object's
        else:
            state, values = instance_state(entity), instance_dict(entity)
            for name in traits.relationships:
                unload(state, values, name)
            values.update(zip(keys, row))  # noqa: B905 - as above
            accept_all(state, values, session)
        objects.append(entity)
    return objects
