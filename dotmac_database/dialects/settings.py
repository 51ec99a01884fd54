"""How a setting, such as the current actor, gets into a transaction, and which settings an open transaction has.

PostgreSQL has settings that end with the transaction. SQLite has none. Settings that triggers read there are rows of
the table ``dotmac_settings``: they are written in the transaction, and deleted before it commits. Other connections
never see them, since SQLite has one writer at a time, and a rollback or a crash undoes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    bindparam,
    event,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.types import Text

from .own_statements import OPENING, OWN

UNKNOWN: Final = object()
"""What a setting is after a rollback to a savepoint: the database has restored an older value."""

SETTINGS_TABLE = "dotmac_settings"
"""SQLite's table with the settings of the transaction that is writing: their names and values."""

_ANNOUNCED = "dotmac_database.announced"
"""The key in a pooled connection's ``info`` of a dict: what each provider of settings has announced."""

ANNOUNCING = "dotmac_announcing"
"""The execution option of the statements of this module, before which nothing else is announced."""

_OPTIONS: dict[str, object] = {OWN: True, OPENING: True, ANNOUNCING: True}
_LOCAL: ColumnElement[bool] = literal_column("true")
SET_ROW = f"INSERT OR REPLACE INTO {SETTINGS_TABLE} (name, value) VALUES (?, ?)"  # noqa: S608 - a constant
"""What gives one of SQLite's settings its value, for the driver."""

CLEAR_ROWS = f"DELETE FROM {SETTINGS_TABLE}"  # noqa: S608 - a constant
"""What deletes SQLite's settings before the commit."""

_UPSERT = text(SET_ROW.replace("(?, ?)", "(:name, :value)"))
_CLEARED: dict[str, Executable] = {"sqlite": text(CLEAR_ROWS)}
_CLEARS = "_dotmac_clears_settings"
"""The attribute of an engine that has the listener `_clear`."""


def announced(info: dict[str, Any]) -> dict[object, object]:
    """What was announced in the open transaction of a pooled connection, by provider. The caller may change it."""
    values: dict[object, object] = info.setdefault(_ANNOUNCED, {})
    return values


def has_announced(info: dict[str, Any]) -> bool:
    """Whether anything was announced in the open transaction of a pooled connection."""
    return bool(info.get(_ANNOUNCED))


def forget_announced(info: dict[str, Any]) -> None:
    """Note that a transaction begins or was rolled back, so that it has no settings."""
    info.pop(_ANNOUNCED, None)


def doubt_announced(info: dict[str, Any]) -> None:
    """Note that a rollback to a savepoint may have undone what was announced after it."""
    values: dict[object, object] | None = info.get(_ANNOUNCED)
    if values:
        info[_ANNOUNCED] = dict.fromkeys(values, UNKNOWN)


def send_settings(connection: Connection, values: Mapping[str, str]) -> None:
    """Set these settings until the transaction ends. One statement; on SQLite one for all of them, as rows."""
    if connection.dialect.name in _CLEARED:
        _clear_at_commit(connection.engine)
        rows = [{"name": name, "value": value} for name, value in values.items()]
        connection.execute(_UPSERT, rows, execution_options=_OPTIONS)
        return
    names = list(values)
    statement = select(
        *(func.set_config(name, bindparam(f"v{place}", type_=Text()), _LOCAL) for place, name in enumerate(names))
    )
    parameters = {f"v{place}": values[name] for place, name in enumerate(names)}
    connection.execute(statement, parameters, execution_options=_OPTIONS)


def _clear_at_commit(engine: Engine) -> None:
    if _CLEARS not in vars(engine):
        setattr(engine, _CLEARS, True)
        event.listen(engine, "commit", _clear)


def _clear(connection: Connection) -> None:
    """Delete the settings of the transaction that commits."""
    if not connection.invalidated and connection.info.pop(_ANNOUNCED, None):
        connection.execute(_CLEARED[connection.dialect.name], execution_options=_OPTIONS)


_clear.dotmac_internal = True  # type: ignore[attr-defined]  # see `dotmac_database.departures`
