"""Engines for a URL, and the object that owns them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, Engine, StaticPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from .dialects.sqlite_engine import prepare
from .errors import ValidationError

_SYNC = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
_ASYNC = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+pysqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
}


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """How connections are made; times are in seconds, and None leaves a setting to the driver or the server.

    ``ssl`` is a libpq ``sslmode`` (``"require"``, ``"verify-full"``, …). ``transaction_pooler`` keeps no prepared
    statements, for a proxy such as PgBouncer in transaction mode. ``busy_timeout`` is SQLite's.
    """

    connect_timeout: float | None = 10.0
    statement_timeout: float | None = None
    application_name: str | None = None
    ssl: str | None = None
    transaction_pooler: bool = False
    busy_timeout: float = 5.0

    def arguments(self, url: URL) -> dict[str, Any]:
        """What the driver of ``url`` is to be called with."""
        match url.get_driver_name():
            case "asyncpg":
                return self._asyncpg()
            case "psycopg":
                return self._psycopg()
            case _:
                return {}

    def _asyncpg(self) -> dict[str, Any]:
        settings: dict[str, str] = {}
        if self.application_name is not None:
            settings["application_name"] = self.application_name
        if self.statement_timeout is not None:
            settings["statement_timeout"] = str(round(self.statement_timeout * 1000))
        arguments: dict[str, Any] = {"server_settings": settings} if settings else {}
        if self.connect_timeout is not None:
            arguments["timeout"] = self.connect_timeout
        if self.ssl is not None:
            arguments["ssl"] = self.ssl
        if self.transaction_pooler:
            # https://docs.sqlalchemy.org/en/21/dialects/postgresql.html#prepared-statement-name-with-pgbouncer
            arguments["statement_cache_size"] = 0
            arguments["prepared_statement_cache_size"] = 0
            arguments["prepared_statement_name_func"] = lambda: f"__dotmac_{uuid4().hex}__"
        return arguments

    def _psycopg(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self.application_name is not None:
            arguments["application_name"] = self.application_name
        if self.statement_timeout is not None:
            arguments["options"] = f"-c statement_timeout={round(self.statement_timeout * 1000)}"
        if self.connect_timeout is not None:
            arguments["connect_timeout"] = max(2, round(self.connect_timeout))
        if self.ssl is not None:
            arguments["sslmode"] = self.ssl
        if self.transaction_pooler:
            arguments["prepare_threshold"] = None
        return arguments


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValidationError("The database's URL can't be read.", field="url") from None
    if parsed.get_backend_name() not in _SYNC:
        raise ValidationError(
            f"The toolkit knows PostgreSQL and SQLite, not {parsed.get_backend_name()!r}.", field="url"
        )
    return parsed


def sync_url(url: str | URL) -> URL:
    """``url`` with a sync driver: psycopg 3 or sqlite3."""
    parsed = _parsed(url)
    return parsed.set(drivername=_SYNC[parsed.get_backend_name()])


def async_url(url: str | URL) -> URL:
    """``url`` with an async driver: asyncpg unless it names psycopg, or aiosqlite."""
    parsed = _parsed(url)
    return parsed.set(drivername=_ASYNC.get(parsed.drivername, parsed.drivername))


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:") or "mode=memory" in (url.database or "")
    )


def _pool(url: URL, options: dict[str, Any]) -> dict[str, Any]:
    if _in_memory(url):
        sized = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle")
        kept = {name: value for name, value in options.items() if name not in sized}
        threads = {} if url.get_driver_name() == "aiosqlite" else {"check_same_thread": False}
        return {"poolclass": StaticPool, **kept, "connect_args": {**threads, **kept.get("connect_args", {})}}
    return options


def make_engine(url: str | URL, options: ConnectionOptions | None = None, **engine: Any) -> Engine:
    """A sync engine; ``engine`` takes SQLAlchemy's own options. Nothing is connected yet.

    SQLite gets foreign keys, WAL, a busy timeout, true transactions and savepoints, and PostgreSQL's values.
    """
    made, asked = sync_url(url), options or ConnectionOptions()
    arguments = {**asked.arguments(made), **engine.pop("connect_args", {})}
    result = create_engine(made, **_pool(made, {**engine, "connect_args": arguments}))
    if made.get_backend_name() == "sqlite":
        prepare(result, busy_timeout=asked.busy_timeout)
    return result


def make_async_engine(url: str | URL, options: ConnectionOptions | None = None, **engine: Any) -> AsyncEngine:
    """As `make_engine`, async."""
    made, asked = async_url(url), options or ConnectionOptions()
    arguments = {**asked.arguments(made), **engine.pop("connect_args", {})}
    result = create_async_engine(made, **_pool(made, {**engine, "connect_args": arguments}))
    if made.get_backend_name() == "sqlite":
        prepare(result.sync_engine, busy_timeout=asked.busy_timeout)
    return result


@dataclass(eq=False)
class Database:
    """One database: its engines and session factories, made when first asked for. Nothing is global.

    Sessions do not expire on commit, so that what a repository gave stays readable.
    """

    url: URL
    options: ConnectionOptions = field(default_factory=ConnectionOptions)
    engine_options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def engine(self) -> Engine:
        """The sync engine."""
        return make_engine(self.url, self.options, **self.engine_options)

    @cached_property
    def async_engine(self) -> AsyncEngine:
        """The async engine; an SQLite database in memory is another one than the sync engine's."""
        return make_async_engine(self.url, self.options, **self.engine_options)

    @cached_property
    def sessions(self) -> sessionmaker[Session]:
        """The factory of sync sessions."""
        return sessionmaker(self.engine, expire_on_commit=False)

    @cached_property
    def async_sessions(self) -> async_sessionmaker[AsyncSession]:
        """The factory of async sessions."""
        return async_sessionmaker(self.async_engine, expire_on_commit=False)

    def dispose(self) -> None:
        """Close the sync engine's connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    async def dispose_async(self) -> None:
        """Close both engines' connections."""
        self.dispose()
        if "async_engine" in self.__dict__:
            await self.async_engine.dispose()


_CONNECTION = frozenset(ConnectionOptions.__dataclass_fields__)


def create_database(url: str | URL, **options: Any) -> Database:
    """A `Database` for ``url``; connects to nothing yet.

    ``options`` are those of `ConnectionOptions` and of SQLAlchemy's ``create_engine`` (``pool_size``, ``max_overflow``,
    ``pool_timeout``, ``pool_recycle``, ``echo``, …). Raises `ValidationError` for another database than
    PostgreSQL or SQLite.
    """
    own = {name: value for name, value in options.items() if name in _CONNECTION}
    rest = {name: value for name, value in options.items() if name not in _CONNECTION}
    return Database(_parsed(url), ConnectionOptions(**own), rest)
