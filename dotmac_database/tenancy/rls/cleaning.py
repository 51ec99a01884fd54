"""Replaces a connection that has executed raw SQL of unknown structure, so that no other session gets it.

Raw SQL of known structure (see `raw_sql`) can't leave anything on a connection. After other raw SQL, the toolkit's own
settings are emptied just before the commit, in the same transaction, so that this works behind a transaction pooler
too; a rollback undoes the settings anyway. Then the connection is replaced, because a changed role or search path, or a
temporary table that hides a real table, can't be reset safely: RESET would also undo what the application itself sets
on each new connection, such as a SET ROLE that lowers its rights.

Connections without such SQL are not affected. The listeners are registered at the first such SQL of an engine.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, event, func, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from .raw_sql import refusal
from .signature import ACTOR_SETTING, ALL_TENANTS_SETTING, SETTING

CLEANING: Final = "dotmac_cleaning"
"""The execution option of the statement that empties the settings, which is allowed without a tenant."""

_EMPTY = "dotmac_settings_to_empty"
_REPLACE = "dotmac_connection_to_replace"
_FAILED_TRANSACTION = "25P02"
_SESSION_WIDE: ColumnElement[bool] = literal_column("false")
_SETTINGS = (SETTING, ALL_TENANTS_SETTING, ACTOR_SETTING)
_CLEAN = select(*(func.set_config(each, "", _SESSION_WIDE) for each in _SETTINGS))


def mark_raw(connection: Connection, sent: str, harmless: frozenset[str] = frozenset()) -> None:
    """Mark the connection, if ``sent`` is SQL of unknown structure, to be cleaned and replaced. Sends nothing.

    ``sent`` is raw SQL, or a statement that contains text. ``harmless``: see `refusal`.
    """
    if refusal(sent, harmless) is None:
        return
    if not event.contains(connection.engine, "commit", _before_commit):
        event.listen(connection.engine, "commit", _before_commit)
        event.listen(connection.engine, "prepare_twophase", _before_commit)
        event.listen(connection.engine, "rollback", _on_rollback)
        event.listen(connection.engine.pool, "checkin", _on_checkin)
    connection.info[_EMPTY] = connection.info[_REPLACE] = True


def _before_commit(connection: Connection, *_: object) -> None:
    if not connection.info.pop(_EMPTY, False):
        return
    try:
        connection.execute(_CLEAN, execution_options={CLEANING: True})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _FAILED_TRANSACTION:
            raise  # in an aborted transaction the commit is a rollback, which undoes all settings


def _on_rollback(connection: Connection) -> None:
    connection.info.pop(_EMPTY, None)


def _on_checkin(_dbapi_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info.pop(_EMPTY, None)
    if entry.info.pop(_REPLACE, False):
        # The connection is closed at its next checkout, because closing it here could require an event loop.
        entry.invalidate(soft=True)


_listener: Any  # for mypy, functions do not have this attribute
for _listener in (_before_commit, _on_rollback):
    _listener.dotmac_internal = True
