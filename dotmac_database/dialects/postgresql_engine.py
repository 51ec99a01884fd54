"""Prepares PostgreSQL engines: closed connections are replaced without a ping, and floats are stored exactly."""

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

from .driver_internals import transport_of
from .stale_plans import watch_plans

_ERROR_RESPONSE = b"E"
_TLS_ALERT = b"\x15"


def prepare(engine: Engine) -> None:
    """Set an engine up.

    When a connection is taken from the pool, it is replaced if the server has closed it (a restart, an idle timeout).
    The state of the socket shows this within microseconds, whereas a ping takes a round trip. If a connection was lost
    without a message from the server, only the next statement notices that. Statements with stale plans are sent again,
    and floats are stored exactly in NUMERIC columns.
    """
    event.listen(engine, "checkout", _refuse_ended)
    watch_plans(engine)
    dialect: Any = engine.dialect
    numeric: Any = dialect.colspecs.get(sa.Numeric, sa.Numeric)
    dialect.colspecs = {**dialect.colspecs, sa.Numeric: _exact(numeric)}


@cache
def _exact(numeric: Any) -> type[Any]:
    """A subclass of the driver's NUMERIC type that stores a float with the digits of its ``repr``.

    asyncpg would store 0.1000000000000000055511151231257827 for 0.1, and psycopg would store at most 15 digits.
    """

    class ExactNumeric(numeric):  # type: ignore[misc]  # the class is known at run time
        def bind_processor(self, dialect: Any) -> Any:
            process: Any = super().bind_processor(dialect)

            def exact(value: Any) -> Any:
                value = Decimal(repr(value)) if type(value) is float else value
                return value if process is None else process(value)

            return process if self.asdecimal else exact

    return ExactNumeric


def _refuse_ended(_connection: object, record: Any, _fairy: object) -> None:
    if has_ended(record.driver_connection):
        raise DisconnectionError("The server has closed this connection.")


_listener: Any = _refuse_ended
_listener.dotmac_internal = True  # see `dotmac_database.departures`


def has_ended(driver: object) -> bool:
    """Whether the server has closed an idle connection of psycopg or asyncpg. Sends nothing."""
    if hasattr(driver, "pgconn"):
        return _psycopg_ended(driver)
    if hasattr(driver, "is_closed"):
        return _asyncpg_ended(driver)
    return False


def _psycopg_ended(driver: Any) -> bool:
    try:
        descriptor = driver.fileno()
        # The server sends an error before it closes a connection, so it can take several reads to reach the end of the
        # stream. If it has sent only a notice, nothing more is readable after that.
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
    # The event loop may not have read yet what the kernel has received.
    transport = transport_of(driver)
    connection_socket = None if transport is None else transport.get_extra_info("socket")
    if connection_socket is None or not _readable(connection_socket.fileno()):
        return False
    with socket.socket(fileno=os.dup(connection_socket.fileno())) as duplicate:
        try:
            # The server sends an error to an idle connection only right before it closes it.
            return duplicate.recv(1, socket.MSG_PEEK) in (b"", _ERROR_RESPONSE, _TLS_ALERT)
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


def cut(driver: object) -> bool:
    """Shut the socket of a connection down, without waiting for the server. Returns whether the connection was open.

    A connection of psycopg can be cut from any thread, a connection of asyncpg only in its event loop. Callers that
    wait for a response of the server get an error at once.
    """
    # asyncpg's own `terminate` does nothing while a `close` waits for the server (seen in 0.30).
    transport = transport_of(driver)
    if transport is not None:
        transport.abort()
        return True
    descriptor = getattr(driver, "fileno", None)
    if descriptor is None:
        return False
    with suppress(OSError, getattr(driver, "Error", OSError)), socket.socket(fileno=os.dup(descriptor())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
        return True
    return False
