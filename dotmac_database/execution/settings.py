"""Settings that a transaction gets before its first statement that needs them, such as the tenant and the actor.

A `SettingsProvider` has the current values. It is registered in one of three ways:

- ``add_provider(session, provider)``: the transactions of this session have the settings, for reads and writes.
- ``provide_for_writes(provider, concerns)``: a write to a table that it ``concerns`` has them, in all sessions, and
  also on connections without a session. Reads never send them. If the driver sends a single write outside of a
  transaction, the settings of triggers are a part of it: see `announcing.with_settings`.
- ``provide_for_transactions(engine, provider)``: the transactions of this engine have them. No statement gets a
  transaction because of it.

The settings of all providers travel in one message: with BEGIN if the driver sends the statement and begins the
transaction, else in one statement of their own. They are sent again if a value has changed, and after a rollback to a
savepoint. A provider whose `current` is None sends nothing, unless the transaction already has a value of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from weakref import ref

from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Session
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import TextClause

from ..dialects.drivers import Opening
from ..dialects.features import has_transaction_settings
from ..dialects.settings import ANNOUNCING, announced, send_settings
from ..dialects.transactions import watch
from .state import SettingsProvider, state_of

_SESSION = "dotmac_settings_of"
"""The execution option of a connection with a reference to the session whose settings it needs."""

_HARMLESS = re.compile(
    r"\s*(?:SELECT|SHOW|EXPLAIN|VALUES|TABLE|PRAGMA|SET|RESET|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|CREATE|ALTER|DROP)\b",
    re.IGNORECASE,
)
"""A text that can't write rows, or only by a function that it calls."""

_ENDS = re.compile(r'(?:COMMIT|ROLLBACK|RELEASE)[\w\s"]*\Z')
"""A text of SQLAlchemy's that ends a savepoint or the transaction, which may have failed. It is one statement."""

_COMES_FIRST = re.compile(r"\s*(?:SET|RESET|SHOW|LOCK|COMMIT|END|ABORT|ROLLBACK|RELEASE|PREPARE)\b", re.IGNORECASE)
"""A text that may have to come before the transaction's first query, or that may end a failed transaction."""


class _ForWrites(NamedTuple):
    provider: SettingsProvider
    concerns: Callable[[Table], bool]


FOR_WRITES: list[_ForWrites] = []
"""The providers of `provide_for_writes`. Empty as long as nothing in the process needs one."""

FOR_TRANSACTIONS: list[tuple[Engine, SettingsProvider]] = []
"""The providers of `provide_for_transactions`, each with its engine."""


def add_provider(session: Session, provider: SettingsProvider) -> None:
    """Give the transactions of a session the provider's settings, from the next one on. Sends nothing.

    The session then sends every statement in a transaction, since a setting needs one.
    """
    state_of(session).settings += (provider,)
    if not event.contains(session, "after_begin", _on_begin):
        event.listen(session, "after_begin", _on_begin)


def provide_for_writes(provider: SettingsProvider, concerns: Callable[[Table], bool]) -> None:
    """Give each transaction of this process that writes to a table which it ``concerns`` the provider's settings.

    Raw SQL that may write counts as a write to such a table. A SELECT does not, even if it calls a function that
    writes.
    """
    if not FOR_WRITES:
        event.listen(Engine, "before_cursor_execute", _before_statement, retval=True)
    FOR_WRITES.append(_ForWrites(provider, concerns))


def provide_for_transactions(engine: Engine, provider: SettingsProvider) -> Callable[[], None]:
    """Give the transactions of an engine the provider's settings. Returns a function that ends this.

    They travel with BEGIN if a repository's statement begins the transaction, by the driver alone. Otherwise they are a
    statement of their own. Statements that the server commits by itself don't have them.
    """
    entry = engine, provider
    if not (FOR_WRITES or event.contains(engine, "before_cursor_execute", _before_statement)):
        event.listen(engine, "before_cursor_execute", _before_statement, retval=True)
    watch(engine)
    FOR_TRANSACTIONS.append(entry)
    return lambda: FOR_TRANSACTIONS.remove(entry)


def write_needs(table: Table, *, by_driver: bool = False) -> bool:
    """Whether a write to the table needs a transaction with settings now.

    ``by_driver``: the driver sends the write alone, and with it the settings that only triggers read.
    """
    return any(
        not (by_driver and provider.for_triggers) and concerns(table) and provider.current() is not None
        for provider, concerns in FOR_WRITES
    )


def settings_for_write(tables: Iterable[Table]) -> dict[str, str]:
    """The settings by name that the triggers of these tables need for a write that is no part of a transaction."""
    values: dict[str, str] = {}
    for provider, concerns in FOR_WRITES:
        state = provider.current() if provider.for_triggers else None
        if state is not None and any(map(concerns, tables)):
            values |= provider.values(state)
    return values


def writes_have_settings() -> bool:
    """Whether a write to some table needs settings now."""
    return any(each.provider.current() is not None for each in FOR_WRITES)


def providers_for(session: Session | None, tables: Iterable[Table] | None) -> list[SettingsProvider]:
    """The providers for a statement that writes to these tables; empty: it only reads; None: to any table."""
    providers = () if session is None else state_of(session).settings
    needed = (each for each in FOR_WRITES if tables is None or any(map(each.concerns, tables)))
    return [*providers, *(each.provider for each in needed)]


def announce(connection: Connection, providers: Iterable[SettingsProvider]) -> None:
    """Send what the open transaction does not have yet. At most one statement."""
    values = dict(_pending(connection, providers, note=False))
    if not values:
        return
    settings = {name: value for provider, state in values.items() for name, value in provider.values(state).items()}
    watch(connection)
    send_settings(connection, settings)
    announced(connection.info).update(values.items())


def opening(connection: Connection, providers: Iterable[SettingsProvider]) -> Opening | None:
    """The settings for the beginning of a transaction, which the caller sends; None: it needs none.

    It is noted that the transaction has them.
    """
    states = dict(_pending(connection, providers, note=True))
    settings = [each for provider, state in states.items() for each in provider.values(state).items()]
    return Opening(tuple(settings), is_secret=any(each.is_secret for each in states)) if settings else None


def _pending(
    connection: Connection, providers: Iterable[SettingsProvider], *, note: bool
) -> Iterator[tuple[SettingsProvider, object]]:
    """The providers whose settings the open transaction does not have, each with its present state."""
    all_kinds = has_transaction_settings(connection.dialect.name)
    present = announced(connection.info)
    for provider in (*providers, *_of_engine(connection)):
        state = provider.current() if all_kinds or provider.for_triggers else None
        if state != present.get(provider):
            yield provider, state
            if note:
                present[provider] = state


def _of_engine(connection: Connection) -> Iterable[SettingsProvider]:
    # Not by the engine itself: `Engine.execution_options` makes another one with the same pool.
    return [provider for engine, provider in FOR_TRANSACTIONS if engine.pool is connection.engine.pool]


def before_statement(
    session: Session | None, connection: Connection, statement: str, context: DefaultExecutionContext | None
) -> None:
    """Announce what a statement that SQLAlchemy is about to send needs."""
    if (context is not None and ANNOUNCING in context.execution_options) or _ENDS.match(statement):
        return
    providers = providers_for(session, _written(statement, context) if FOR_WRITES else ())
    if not providers and (not FOR_TRANSACTIONS or _COMES_FIRST.match(statement)):
        return
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        announce(connection, providers)


def _written(statement: str, context: DefaultExecutionContext | None) -> list[Table] | None:
    """The tables to which a statement writes; None: it is raw SQL, so any."""
    compiled = None if context is None else context.compiled
    if compiled is None or isinstance(compiled.statement, TextClause):
        return [] if _HARMLESS.match(statement) else None
    if isinstance(compiled.statement, ExecutableDDLElement):
        return []
    outermost = compiled.statement
    elements = [
        getattr(outermost, "element", outermost),  # the ORM wraps the statement of `from_statement`
        *(cte.element for cte in getattr(compiled, "ctes", None) or ()),
    ]
    tables = [each.table for each in elements if isinstance(each, UpdateBase)]
    # The ORM annotates the tables of its statements, so that they are other objects.
    return [each.metadata.tables.get(each.key, each) for each in tables if isinstance(each, Table)]


def _before_statement(
    connection: Connection,
    _cursor: object,
    statement: str,
    parameters: object,
    context: DefaultExecutionContext | None,
    _many: bool,
) -> tuple[str, object]:
    reference = connection.get_execution_options().get(_SESSION)
    before_statement(None if reference is None else reference(), connection, statement, context)
    return statement, parameters


def _on_begin(session: Session, _transaction: object, connection: Connection) -> None:
    """Listen to the statements of the session's connection."""
    connection.execution_options(**{_SESSION: ref(session)})
    if not (FOR_WRITES or event.contains(connection.engine, "before_cursor_execute", _before_statement)):
        event.listen(connection.engine, "before_cursor_execute", _before_statement, retval=True)


# See `dotmac_database.departures`: SQLAlchemy wraps a listener that returns nothing, and the mark would be lost.
_before_statement.dotmac_internal = True  # type: ignore[attr-defined]  # a function takes any attribute
_on_begin.dotmac_internal = True  # type: ignore[attr-defined]  # as above
