"""Creates engines for a URL, and `Database`, which owns them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Engine, StaticPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from .dialects import postgresql_engine, sqlite_engine
from .dialects.features import has_transaction_settings, needs_event_loop
from .errors import ValidationError
from .execution.strict import STRICT_LOADING
from .uuids import NEW_ID, NewId

T = TypeVar("T")
E = TypeVar("E", bound=Engine | AsyncEngine)

_SYNC = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
_ASYNC = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+pysqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgresql+psycopg2": "postgresql+asyncpg",
}
# libpq's parameters that a URL may contain. asyncpg accepts them in its own DSN, but not as arguments.
_LIBPQ = (
    {"application_name", "options", "passfile", "target_session_attrs"}
    | {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version"}
)

_TIMEOUTS = {
    "statement_timeout": "statement_timeout",
    "idle_in_transaction_timeout": "idle_in_transaction_session_timeout",
}
"""The options that set a timeout on the server, each with the name of PostgreSQL's setting."""


def _milliseconds(seconds: float) -> int:
    """The time in milliseconds, PostgreSQL's unit of timeouts. It is 0 (no timeout) only if ``seconds`` is 0."""
    return max(round(seconds * 1000), 1 if seconds else 0)


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """The options of connections. Times are in seconds; None leaves a setting to the driver or the server.

    ``ssl`` is a libpq ``sslmode`` (``"require"``, ``"verify-full"``, …). Certificates are libpq's parameters in the URL
    (``?sslrootcert=…``), for both drivers. ``transaction_pooler`` is for a proxy such as PgBouncer in transaction mode,
    and keeps the driver from caching prepared statements.

    ``statement_timeout`` cancels a statement (`DatabaseTimeoutError`). ``idle_in_transaction_timeout`` closes the
    connection of a transaction in which the client sends nothing for so long. For both, 0 disables the server's own
    limit. Only PostgreSQL supports them, since SQLite runs in this process. A transaction pooler does not preserve
    them, so they raise `ValidationError` together with ``transaction_pooler``; a negative value raises it too.
    ``busy_timeout`` is only for SQLite.
    """

    connect_timeout: float | None = 10.0
    statement_timeout: float | None = None
    idle_in_transaction_timeout: float | None = None
    application_name: str | None = None
    ssl: str | None = None
    transaction_pooler: bool = False
    busy_timeout: float = 5.0

    def __post_init__(self) -> None:
        for name in _TIMEOUTS:
            seconds = getattr(self, name)
            if seconds is not None and self.transaction_pooler:
                raise ValidationError(
                    f"A transaction pooler keeps no {name} for a connection: set it for the role "
                    f"(ALTER ROLE … SET {_TIMEOUTS[name]}), or for a transaction with TransactionOptions.",
                    field=name,
                )
            if seconds is not None and seconds < 0:
                raise ValidationError(f"{name} must not be negative.", field=name)

    @property
    def settings(self) -> dict[str, str]:
        """The server's settings for each connection. The startup message has them, so that they cost no statement."""
        timeouts = {setting: getattr(self, name) for name, setting in _TIMEOUTS.items()}
        return {setting: str(_milliseconds(value)) for setting, value in timeouts.items() if value is not None}

    def arguments(self, url: URL) -> dict[str, Any]:
        """The arguments for the driver of ``url``."""
        match url.get_driver_name():
            case "asyncpg":
                return self._asyncpg()
            case "psycopg":
                return self._psycopg()
            case _:
                return {}

    def _asyncpg(self) -> dict[str, object]:
        settings = self.settings
        if self.application_name is not None:
            settings["application_name"] = self.application_name
        arguments: dict[str, object] = {"server_settings": settings} if settings else {}
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

    def _psycopg(self) -> dict[str, object]:
        arguments: dict[str, object] = {}
        if self.application_name is not None:
            arguments["application_name"] = self.application_name
        if self.settings:
            arguments["options"] = " ".join(f"-c {name}={value}" for name, value in self.settings.items())
        if self.connect_timeout is not None:
            arguments["connect_timeout"] = max(2, round(self.connect_timeout))  # libpq takes whole seconds, 2 or more
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
    if parsed.drivername == "postgres":
        parsed = parsed.set(drivername="postgresql")
    if parsed.get_backend_name() not in _SYNC:
        raise ValidationError(
            f"The toolkit knows PostgreSQL and SQLite, not {parsed.get_backend_name()!r}.", field="url"
        )
    return parsed


def sync_url(url: str | URL) -> URL:
    """``url`` with a sync driver: psycopg 3 or sqlite3."""
    parsed = _parsed(url)
    return _for_driver(parsed, _SYNC[parsed.get_backend_name()])


def async_url(url: str | URL) -> URL:
    """``url`` with an async driver: aiosqlite or asyncpg, unless the URL names another one, such as psycopg."""
    parsed = _parsed(url)
    return _for_driver(parsed, _ASYNC.get(parsed.drivername, parsed.drivername))


def _for_driver(url: URL, name: str) -> URL:
    """``url`` with the driver ``name``. asyncpg's parameter ``ssl`` is ``sslmode`` for psycopg."""
    if name != "postgresql+psycopg":
        return url.set(drivername=name)
    query = {"sslmode" if each == "ssl" else each: value for each, value in url.query.items()}
    return url.set(drivername=name, query=query)


def _connect_arguments(
    url: URL, options: ConnectionOptions, connect_args: dict[str, Any]
) -> tuple[URL, dict[str, object]]:
    """The URL and the arguments for the driver. ``connect_args`` override the URL, and the URL overrides the options.

    The server's settings are merged one by one, since the driver takes all of them as a single argument.
    """
    arguments = options.arguments(url)
    if url.get_driver_name() == "asyncpg":
        if {"ssl", "sslmode"} & url.query.keys():
            arguments.pop("ssl", None)
        settings = arguments.get("server_settings", {})
        # The server applies ``server_settings`` after the ``options`` of the URL, which must take precedence. So a
        # setting that the URL has already is left out here.
        url_options = str(url.query.get("options", ""))
        settings = {
            name: value for name, value in settings.items() if name not in url.query and name not in url_options
        }
        url, from_url = _asyncpg_url(url)
        arguments["server_settings"] = {**settings, **connect_args.get("server_settings", {})}
        return url, {
            **arguments,
            **from_url,
            **{name: each for name, each in connect_args.items() if name != "server_settings"},
        }
    parts = [each["options"] for each in (arguments, dict(url.query), connect_args) if "options" in each]
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if len(parts) > 1 or "options" in arguments:
        connect_args = {**connect_args, "options": " ".join(map(str, parts))}
    return url, {**arguments, **connect_args}


def _asyncpg_url(url: URL) -> tuple[URL, dict[str, object]]:
    """``url`` without libpq's parameters, and the equivalent arguments of asyncpg."""
    words = {name: value for name, value in url.query.items() if name in _LIBPQ}
    arguments: dict[str, object] = {}
    if words:
        arguments["dsn"] = URL.create("postgresql", query=words).render_as_string(hide_password=False)
    if "connect_timeout" in url.query:
        seconds = url.query["connect_timeout"]
        try:
            arguments["timeout"] = float(str(seconds))
        except ValueError:
            raise ValidationError(f"connect_timeout is a number of seconds, not {seconds!r}.", field="url") from None
    return url.difference_update_query([*words, "connect_timeout"]), arguments


def _pool(url: URL, options: dict[str, Any]) -> dict[str, Any]:
    if sqlite_engine.is_in_memory(url):
        sized = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle")
        remaining = {name: value for name, value in options.items() if name not in sized}
        if url.get_driver_name() == "aiosqlite":
            # The pool need not reset the connection: the listener of `sqlite_engine.keep_connection` rolls back.
            return {"poolclass": StaticPool, "pool_reset_on_return": None, **remaining}
        threads = {"check_same_thread": False}
        return {"poolclass": StaticPool, **remaining, "connect_args": {**threads, **remaining.get("connect_args", {})}}
    return options


def _prepare(engine: Engine, options: ConnectionOptions, isolation_level: str | None) -> None:
    if sqlite_engine.is_sqlite(engine):
        sqlite_engine.prepare(engine, busy_timeout=options.busy_timeout, isolation_level=isolation_level)
    else:
        postgresql_engine.prepare(engine)


def make_engine(url: str | URL, options: ConnectionOptions | None = None, **engine: Any) -> Engine:
    """A sync engine, which does not connect yet. ``engine`` are the arguments of SQLAlchemy's ``create_engine``.

    On SQLite each connection has foreign keys, WAL, a busy timeout, correct transactions and savepoints, and the
    functions of PostgreSQL that the toolkit uses. On PostgreSQL a pooled connection that the server has closed is
    replaced when it is checked out; to notice this takes no round trip.
    """
    connection_options = options or ConnectionOptions()
    full_url, arguments = _connect_arguments(sync_url(url), connection_options, engine.pop("connect_args", {}))
    result = create_engine(full_url, **_pool(full_url, {**engine, "connect_args": arguments}))
    _prepare(result, connection_options, engine.get("isolation_level"))
    return result


def make_async_engine(url: str | URL, options: ConnectionOptions | None = None, **engine: Any) -> AsyncEngine:
    """As `make_engine`, but an async engine."""
    connection_options = options or ConnectionOptions()
    full_url, arguments = _connect_arguments(async_url(url), connection_options, engine.pop("connect_args", {}))
    result = create_async_engine(full_url, **_pool(full_url, {**engine, "connect_args": arguments}))
    _prepare(result.sync_engine, connection_options, engine.get("isolation_level"))
    return result


@dataclass(eq=False)
class Database:
    """One database, with its engines and session factories, which are created at their first use. Nothing is global.

    Sessions do not expire objects on commit, so that a repository's results stay readable. ``strict_loading``: all
    repositories on the sessions are strict; see `BaseRepository.strict`. ``new_id`` makes the UUID keys of new rows;
    None: they are of version 7 (see `create_database`). ``instrumentation`` is what `instrument` has attached; None:
    nothing. ``is_observed``: the telemetry needs to know which request runs.
    """

    url: URL
    options: ConnectionOptions = field(default_factory=ConnectionOptions)
    engine_options: dict[str, Any] = field(default_factory=dict)
    strict_loading: bool = False
    new_id: NewId | None = None
    instrumentation: object = field(default=None, init=False, repr=False)
    is_observed: bool = field(default=False, init=False, repr=False)
    _lock: RLock = field(default_factory=RLock, init=False, repr=False)
    _on_engine: list[Callable[[Engine], object]] = field(default_factory=list, init=False, repr=False)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self.__dict__:
                self.__dict__[name] = make()
            engine: T = self.__dict__[name]
            return engine

    @property
    def engine(self) -> Engine:
        """The sync engine."""
        return self._once("engine", lambda: self._announced(make_engine(self.url, self.options, **self.engine_options)))

    @property
    def async_engine(self) -> AsyncEngine:
        """The async engine. An SQLite database in memory is not shared with the sync engine."""
        return self._once(
            "async_engine", lambda: self._announced(make_async_engine(self.url, self.options, **self.engine_options))
        )

    @property
    def engines(self) -> list[Engine | AsyncEngine]:
        """The engines that were created so far, the async one first."""
        return [self.__dict__[name] for name in ("async_engine", "engine") if name in self.__dict__]

    def on_engine(self, callback: Callable[[Engine], object]) -> Callable[[], None]:
        """Call ``callback`` with each engine: now with those that were created, later with the others.

        An async engine is given as its sync engine. Returns a function that keeps it from being called any more.
        """
        with self._lock:
            self._on_engine.append(callback)
            for engine in self.engines:
                callback(engine.sync_engine if isinstance(engine, AsyncEngine) else engine)
        return lambda: self._on_engine.remove(callback)

    def _announced(self, engine: E) -> E:
        for callback in self._on_engine:
            callback(engine.sync_engine if isinstance(engine, AsyncEngine) else engine)
        return engine

    @property
    def sessions(self) -> sessionmaker[Session]:
        """The factory of sync sessions. They are not guarded: they see all tenants' rows (see `guard_tenants`)."""
        return self._once("sessions", lambda: sessionmaker(self.engine, expire_on_commit=False, info=self.session_info))

    @property
    def async_sessions(self) -> async_sessionmaker[AsyncSession]:
        """The factory of async sessions. They are not guarded, as those of `sessions`."""
        return self._once(
            "async_sessions",
            lambda: async_sessionmaker(self.async_engine, expire_on_commit=False, info=self.session_info),
        )

    @property
    def session_info(self) -> dict[str, object]:
        """The ``info`` for sessions of your own factories: the database's ``strict_loading`` and ``new_id``."""
        info: dict[str, object] = {STRICT_LOADING: True} if self.strict_loading else {}
        return info if self.new_id is None else {**info, NEW_ID: self.new_id}

    @property
    def limits_time(self) -> bool:
        """Whether the server can limit the time of the statements of one transaction."""
        return has_transaction_settings(self.url.get_backend_name())

    @property
    def needs_event_loop(self) -> bool:
        """Whether the async engine's connections are unusable in other event loops than the one that opened them."""
        return needs_event_loop(self.url.get_backend_name())

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


def create_database(
    url: str | URL, *, strict_loading: bool = False, new_id: NewId | None = None, **options: Any
) -> Database:
    """A `Database` for ``url``, which does not connect yet.

    ``options`` are those of `ConnectionOptions` and of SQLAlchemy's ``create_engine`` (``pool_size``, ``max_overflow``,
    ``pool_timeout``, ``pool_recycle``, ``echo``, …). With ``strict_loading``, all repositories on the sessions of the
    database are strict: their entities raise `LazyLoadError` instead of sending a lazy load.

    ``new_id`` is called for each new row whose UUID primary key has neither a value nor a default, and returns the key
    (``uuid.uuid4``, for example). None: the keys are UUIDs of version 7, which begin with the time, so that new rows
    stand together in the index, and whoever sees a key knows when its row was created. For one class only, give its
    column a default instead.

    Raises `ValidationError` for a database other than PostgreSQL or SQLite.
    """
    own = {name: value for name, value in options.items() if name in _CONNECTION}
    rest = {name: value for name, value in options.items() if name not in _CONNECTION}
    return Database(_parsed(url), ConnectionOptions(**own), rest, strict_loading, new_id)
