"""The drivers that can send statements without SQLAlchemy's execution: asyncpg, psycopg, sqlite3 and aiosqlite.

The methods are called in a greenlet if the driver is async.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias

from sqlalchemy import Dialect
from sqlalchemy import exc as sa
from sqlalchemy.util import await_only

from .driver_internals import (
    absent_of_asyncpg,
    attributes_of,
    begin,
    begin_with,
    caches_statements,
    has_adapter,
    has_begun,
    prepared_statement,
)
from .settings import CLEAR_ROWS, SET_ROW

Rows: TypeAlias = Sequence[Sequence[object]]
Arguments: TypeAlias = Sequence[object] | Mapping[str, object]
Wait: TypeAlias = Callable[[Any], Any]
"""Waits for what the driver returns: `await_only` if it is async, else it returns its argument."""


class Pooled(Protocol):
    """A connection of SQLAlchemy's pool. SQLAlchemy's own type does not say which driver it has."""

    dbapi_connection: Any
    driver_connection: Any

    @property
    def info(self) -> dict[str, Any]:
        """What is remembered of the connection as long as it is open."""
        ...

    def close(self) -> None:
        """Return the connection to the pool."""

    def invalidate(self, e: BaseException | None = None) -> None:
        """Close the driver's connection because of ``e``."""


class Link(NamedTuple):
    """A connection of the pool, SQLAlchemy's adapter of the driver's connection (or that itself), and the latter."""

    pooled: Pooled
    adapted: Any
    driver: Any


def link_of(pooled: Pooled) -> Link:
    """The link of a pooled connection. It is valid until the connection is invalidated or returned to the pool."""
    return Link(pooled, pooled.dbapi_connection, pooled.driver_connection)


class Opening(NamedTuple):
    """The settings with which a transaction begins.

    ``is_secret``: the values must be sent as parameters, since other sessions may read the text of a statement, in
    PostgreSQL's view ``pg_stat_activity``.
    """

    settings: tuple[tuple[str, str], ...]
    is_secret: bool

    def sql(self, placeholders: Iterable[str]) -> str:
        """The statement that sets the settings until the transaction ends."""
        calls = [
            f"pg_catalog.set_config('{name}', {value}, true)"
            for (name, _), value in zip(self.settings, placeholders, strict=True)
        ]
        return f"SELECT {', '.join(calls)}"

    def values(self) -> list[str]:
        """The values of the settings."""
        return [value for _, value in self.settings]


class Driver(ABC):
    """What differs between the drivers.

    ``named``: the parameters of a statement are a dict, else a list. ``undoes_statement``: a statement that fails in a
    transaction is undone by itself, so that it needs no savepoint. ``sets_in_statement``: a statement that the database
    commits by itself can set settings, which end with it.
    """

    named = False
    undoes_statement = False
    sets_in_statement = True

    def is_absent(self) -> bool:
        """Whether a private name that is needed does not exist in the installed versions."""
        return False

    @abstractmethod
    def is_usable(self, link: Link) -> bool:
        """Whether the connection and its settings are as SQLAlchemy makes them, so that rows are what it would read."""

    @abstractmethod
    def in_transaction(self, link: Link) -> bool:
        """Whether the connection is in a transaction. Sends nothing."""

    @abstractmethod
    def commits_each(self, link: Link) -> bool:
        """Whether the connection is in AUTOCOMMIT, so that each statement is a transaction of its own."""

    def begin(self, link: Link) -> None:  # noqa: B027 - most drivers have nothing to do
        """Begin a transaction, unless the connection is in one, or the driver begins it with the next statement."""

    def open(self, link: Link, opening: Opening) -> tuple[str, Arguments]:
        """Begin a transaction with settings, and return the statement that sets them, with its arguments.

        If this fails, the connection must be closed.
        """
        self.begin(link)
        sql, arguments = _statement_of(opening, named=self.named)
        self.send(link, sql, arguments)
        return sql, arguments

    @abstractmethod
    def send(self, link: Link, sql: str, arguments: Arguments) -> tuple[Rows, object]:
        """Send a statement and return its rows, and a value that is equal as long as the types of its columns are.

        This value is None if it is unknown whether the types are the same.
        """

    def enter_autocommit(self, link: Link, *, is_write: bool) -> bool:  # noqa: ARG002 - see above
        """Let the database commit the next statement by itself; returns whether `leave_autocommit` must be called."""
        return False

    def set_for_write(self, link: Link, settings: Mapping[str, str]) -> None:  # noqa: B027 - as for `begin`
        """Set settings between `enter_autocommit` and the write, unless the statement does it (`sets_in_statement`)."""

    def unset_after_write(self, link: Link) -> None:  # noqa: B027 - as for `begin`
        """Undo `set_for_write` before `leave_autocommit`. A failed write has undone it already."""

    def leave_autocommit(self, link: Link, *, failed: bool = False) -> None:  # noqa: B027 - as for `begin`
        """Undo `enter_autocommit`, also after a statement that has ``failed``."""

    @abstractmethod
    def run(self, link: Link, script: str) -> None:
        """Send a statement without parameters, or several as one message if the database has a server."""

    @abstractmethod
    def oids(self, link: Link, sql: str, types: object, count: int) -> Sequence[int | None]:
        """The OIDs of the types of a statement's ``count`` columns; None: the database has no OIDs.

        ``types`` is the value that `send` has returned for the statement.
        """

    def error(self, dialect: Dialect, sql: str, cause: Exception, *, lost: bool) -> sa.StatementError:
        """SQLAlchemy's error for the driver's exception. ``lost``: the connection is lost."""
        raised = sa.DBAPIError.instance(
            sql, None, cause, dialect.loaded_dbapi.Error, connection_invalidated=lost, dialect=dialect
        )
        return raised if isinstance(raised, sa.StatementError) else sa.DBAPIError(sql, None, cause)


class _Asyncpg(Driver):
    def is_absent(self) -> bool:
        return absent_of_asyncpg() is not None

    def is_usable(self, link: Link) -> bool:
        return caches_statements(link.driver, link.adapted)

    def commits_each(self, link: Link) -> bool:
        return bool(link.adapted.isolation_level == "autocommit")

    def in_transaction(self, link: Link) -> bool:
        return has_begun(link.adapted) or bool(link.driver.is_in_transaction())

    def begin(self, link: Link) -> None:
        if not has_begun(link.adapted):
            begin(link.adapted)

    def open(self, link: Link, opening: Opening) -> tuple[str, Arguments]:
        if opening.is_secret:
            return super().open(link, opening)
        begin_with(link.driver, link.adapted, _script_of(opening))
        return _statement_of(opening, named=self.named)

    def send(self, link: Link, sql: str, arguments: Arguments) -> tuple[Rows, object]:
        driver = link.driver
        rows = await_only(driver.fetch(sql, *arguments))
        return rows, prepared_statement(driver, sql)

    def run(self, link: Link, script: str) -> None:
        await_only(link.driver.execute(script))

    def oids(self, link: Link, sql: str, types: object, count: int) -> Sequence[int | None]:  # noqa: ARG002 - as above
        if types is not None:
            return [attribute.type.oid for attribute in attributes_of(types)]
        # The statement is too long for the driver's cache.
        return [attribute.type.oid for attribute in await_only(link.driver.prepare(sql)).get_attributes()]

    def error(self, dialect: Dialect, sql: str, cause: Exception, *, lost: bool) -> sa.StatementError:  # noqa: ARG002
        return sa.DBAPIError(sql, None, cause, connection_invalidated=lost)


@lru_cache(maxsize=1024)
def _statement_of(opening: Opening, *, named: bool) -> tuple[str, Arguments]:
    """The statement that sets the settings, with its arguments in the form of the driver."""
    values = opening.values()
    if named:
        names = [f"v{place}" for place in range(len(values))]
        return opening.sql(f"%({name})s" for name in names), dict(zip(names, values, strict=True))
    return opening.sql(f"${place + 1}" for place in range(len(values))), tuple(values)


@lru_cache(maxsize=1024)
def _script_of(opening: Opening) -> str:
    """The statement that sets the settings, without parameters.

    As hexadecimal digits, the values need no quoting, whatever the server's settings for literals are.
    """
    digits = (value.encode().hex() for value in opening.values())
    return opening.sql(f"pg_catalog.convert_from(pg_catalog.decode('{each}', 'hex'), 'UTF8')" for each in digits)


class _Waiting(Driver):
    """A driver with a sync and an async form of the same methods."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait


class _Psycopg(_Waiting):
    named = True

    def is_usable(self, link: Link) -> bool:
        driver = link.driver
        return has_adapter(link.adapted) and driver.row_factory.__name__ == "tuple_row"

    def commits_each(self, link: Link) -> bool:
        return bool(link.driver.autocommit)

    def in_transaction(self, link: Link) -> bool:
        return bool(link.driver.pgconn.transaction_status)

    def send(self, link: Link, sql: str, arguments: Arguments) -> tuple[Rows, object]:
        cursor = self._wait(link.driver.execute(sql, arguments))
        result = cursor.pgresult
        return self._wait(cursor.fetchall()), tuple([result.ftype(place) for place in range(result.nfields)])

    def enter_autocommit(self, link: Link, *, is_write: bool) -> bool:  # noqa: ARG002 - as above
        if link.driver.autocommit:
            return False
        self._wait(link.driver.set_autocommit(True))
        return True

    def leave_autocommit(self, link: Link, *, failed: bool = False) -> None:  # noqa: ARG002 - as above
        if not link.driver.closed:
            self._wait(link.driver.set_autocommit(False))

    def run(self, link: Link, script: str) -> None:
        self._wait(link.driver.execute(script, prepare=False))

    def oids(self, link: Link, sql: str, types: Any, count: int) -> Sequence[int | None]:  # noqa: ARG002
        oids: Sequence[int] = types
        return oids


class _Sqlite(_Waiting):
    undoes_statement = True
    sets_in_statement = False

    def is_usable(self, link: Link) -> bool:
        return has_adapter(link.adapted) and link.driver.row_factory is None

    def commits_each(self, link: Link) -> bool:
        # With another isolation_level, sqlite3 itself begins a transaction before it changes rows.
        return link.driver.isolation_level is None and not self.in_transaction(link)

    def in_transaction(self, link: Link) -> bool:
        return bool(link.driver.in_transaction)

    def send(self, link: Link, sql: str, arguments: Arguments) -> tuple[Rows, object]:
        return link.driver.execute(sql, arguments).fetchall(), True

    def enter_autocommit(self, link: Link, *, is_write: bool) -> bool:
        # A failed statement can leave changes, if a trigger fails by RAISE(FAIL). So a write needs a transaction.
        if is_write and link.driver.isolation_level is None:
            self._wait(link.driver.execute("BEGIN"))
        return is_write

    def set_for_write(self, link: Link, settings: Mapping[str, str]) -> None:
        for row in settings.items():
            self._wait(link.driver.execute(SET_ROW, row))

    def unset_after_write(self, link: Link) -> None:
        self._wait(link.driver.execute(CLEAR_ROWS))

    def leave_autocommit(self, link: Link, *, failed: bool = False) -> None:
        if self.in_transaction(link):
            self._wait(link.driver.rollback() if failed else link.driver.commit())

    def run(self, link: Link, script: str) -> None:
        self._wait(link.driver.execute(script))

    def oids(self, link: Link, sql: str, types: object, count: int) -> Sequence[int | None]:  # noqa: ARG002
        return [None] * count


class _Aiosqlite(_Sqlite):
    def send(self, link: Link, sql: str, arguments: Arguments) -> tuple[Rows, object]:
        return await_only(link.driver.execute_fetchall(sql, arguments)), True


def _at_once(result: object) -> object:
    return result


_DRIVERS: Mapping[tuple[str, bool], Driver] = {
    ("asyncpg", True): _Asyncpg(),
    ("psycopg", True): _Psycopg(await_only),
    ("psycopg", False): _Psycopg(_at_once),
    ("pysqlite", False): _Sqlite(_at_once),
    ("aiosqlite", True): _Aiosqlite(await_only),
}


def driver_of(dialect: Dialect) -> Driver | None:
    """The driver of a dialect. None: only SQLAlchemy can send its statements."""
    return _DRIVERS.get((dialect.driver, dialect.is_async))
