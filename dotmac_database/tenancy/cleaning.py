"""A connection over which raw SQL of unknown structure went is not what another session gets.

Raw SQL whose structure is known (`raw_sql`) can leave nothing on a connection. Of the rest our own settings are emptied
just before the commit, in the same transaction, which is right behind a transaction pooler as well; a rollback undoes
what was set. And the connection is replaced: a role, a search path, a temporary table that hides a true one can't be
put back safely, as RESET would also undo what the application itself makes of each new connection, such as a SET ROLE
that lowers its rights.

A connection that saw no such SQL pays nothing; not even a listener is there before the first of its engine.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, event, func, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from .raw_sql import refusal
from .signature import ACROSS, SETTING

CLEANING: Final = "dotmac_cleaning"
"""The execution option of the statement that empties the settings, which needs no tenant."""

_EMPTY = "dotmac_settings_to_empty"
_REPLACE = "dotmac_connection_to_replace"
_FAILED_TRANSACTION = "25P02"
_SESSION_WIDE: ColumnElement[bool] = literal_column("false")
_CLEAN = select(func.set_config(SETTING, "", _SESSION_WIDE), func.set_config(ACROSS, "", _SESSION_WIDE))


def mark_raw(connection: Connection, sent: str, harmless: frozenset[str] = frozenset()) -> None:
    """Note that raw SQL, or a statement with text in it, is about to be sent. No statement.

    SQL whose structure is known leaves nothing behind. ``harmless``: see `refusal`.
    """
    if refusal(sent, harmless) is None:
        return
    if not event.contains(connection.engine, "commit", _before_commit):
        event.listen(connection.engine, "commit", _before_commit)
        event.listen(connection.engine, "prepare_twophase", _before_commit)
        event.listen(connection.engine, "rollback", _on_rollback)
        event.listen(connection.engine.pool, "checkin", _on_checkin)
    connection.info[_EMPTY] = connection.info[_REPLACE] = True


def _before_commit(connection: Connection, *_: Any) -> None:
    if not connection.info.pop(_EMPTY, False):
        return
    try:
        connection.execute(_CLEAN, execution_options={CLEANING: True})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _FAILED_TRANSACTION:
            raise  # else the commit is a rollback, which undoes every setting


def _on_rollback(connection: Connection) -> None:
    connection.info.pop(_EMPTY, None)


def _on_checkin(_dbapi_connection: Any, entry: ConnectionPoolEntry) -> None:
    entry.info.pop(_EMPTY, None)
    if entry.info.pop(_REPLACE, False):
        # Closed, and made anew, when it is next asked for: closing it here would need an event loop at times.
        entry.invalidate(soft=True)


_listener: Any
for _listener in (_before_commit, _on_rollback):
    _listener.dotmac_internal = True
