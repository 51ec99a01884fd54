"""What keeps a PostgreSQL engine's users from a dead connection, without a round trip."""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy import types as sa
from sqlalchemy.exc import DisconnectionError

from .stale_plans import watch_plans

_ERROR_RESPONSE = b"E"
_TLS_ALERT = b"\x15"


def prepare(engine: Engine) -> None:
    """Replace a pooled connection that the server has closed (a restart, an idle timeout) when it is taken.

    The end of a connection waits in the socket: asking the kernel for it costs microseconds, where a ping costs a
    round trip. What has vanished without a word is found by the statement that needs it. Statements whose plans are out
    of date are sent again.
    """
    event.listen(engine, "checkout", _refuse_ended)
    watch_plans(engine)
    dialect: Any = engine.dialect
    numeric: Any = dialect.colspecs.get(sa.Numeric, sa.Numeric)
    dialect.colspecs = {**dialect.colspecs, sa.Numeric: _exact(numeric)}


@cache
def _exact(numeric: Any) -> type[Any]:
    """A driver's NUMERIC that stores a float as it is written.

    asyncpg would store 0.1000000000000000055511151231257827 for 0.1, psycopg no more than 15 digits.
    """

    class ExactNumeric(numeric):  # type: ignore[misc]  # the class is known at run time
        def bind_processor(self, dialect: Any) -> Any:
            process: Any = super().bind_processor(dialect)

            def exact(value: Any) -> Any:
                value = Decimal(repr(value)) if type(value) is float else value
                return value if process is None else process(value)

            return process if self.asdecimal else exact

    return ExactNumeric


def _refuse_ended(_connection: Any, record: Any, _fairy: Any) -> None:
    if has_ended(record.driver_connection):
        raise DisconnectionError("The server has closed this connection.")


_listener: Any = _refuse_ended
_listener.dotmac_internal = True  # see `dotmac_database.departures`


def has_ended(driver: Any) -> bool:
    """Whether the server has closed an idle connection of psycopg or asyncpg; sends nothing."""
    if hasattr(driver, "pgconn"):
        return _psycopg_ended(driver)
    if hasattr(driver, "is_closed"):
        return _asyncpg_ended(driver)
    return False


def _psycopg_ended(driver: Any) -> bool:
    try:
        descriptor = driver.fileno()
        # First the server's last words, then the end; a mere notice leaves nothing more to read.
        for _ in range(8):
            if not _readable(descriptor):
                return False
            driver.pgconn.consume_input()
    except driver.Error:
        return True
    return False


def _asyncpg_ended(driver: Any) -> bool:
    if driver.is_closed():
        return True
    # The event loop may not have had its turn yet to read what is there.
    transport: Any = getattr(driver, "_transport", None)
    connected = None if transport is None else transport.get_extra_info("socket")
    if connected is None or not _readable(connected.fileno()):
        return False
    with socket.socket(fileno=os.dup(connected.fileno())) as same:
        try:
            # To an idle connection the server sends an error only as its last word.
            return same.recv(1, socket.MSG_PEEK) in (b"", _ERROR_RESPONSE, _TLS_ALERT)
        except BlockingIOError:
            return False
        except OSError:
            return True


def _readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def cut(driver: Any) -> bool:
    """End a connection of psycopg from any thread, or one of asyncpg in its loop; whether there was one to end.

    Whoever waits for the server's answer gets an error at once.
    """
    # asyncpg's own `terminate` does nothing once a `close` waits for the server (seen in 0.30).
    transport = getattr(driver, "_transport", None)
    if transport is not None:
        transport.abort()
        return True
    descriptor = getattr(driver, "fileno", None)
    if descriptor is None:
        return False
    with suppress(OSError, getattr(driver, "Error", OSError)), socket.socket(fileno=os.dup(descriptor())) as same:
        same.shutdown(socket.SHUT_RDWR)
        return True
    return False
