"""What a command works on: the models and the database that ``--app`` and ``--url`` name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

import typer
from sqlalchemy import MetaData

from ..dialects.sqlite_engine import missing_file
from ..engines import Database, create_database
from ..errors import DatabaseError, DatabaseUnavailableError, MisuseError
from ..models import traits_of
from ..models.registered import mapped_classes, mapped_tables
from ..policies import Policy
from ..row_policies import RowLevelSecurity
from ..statements.suggestions import shown, suggestion

AppOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--app",
        envvar="DOTMAC_APP",
        metavar="MODULE:NAME",
        help="An app or its plugin, a Database, a RowLevelSecurity, a MetaData, a declarative base, or SQLModel.",
        show_default=False,
    ),
]
UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The database, in place of the app's. If the app names none: the environment's DATABASE_URL.",
        show_default=False,
    ),
]

_ENVIRONMENT = "DATABASE_URL"
_APPLICATION = "dotmac-db"
"""The name of the connections in PostgreSQL's views."""


@runtime_checkable
class Plugin(Protocol):
    """A `DatabasePlugin`, as the command line knows it."""

    @property
    def database(self) -> Database:
        """The app's database."""
        ...

    @property
    def rls(self) -> RowLevelSecurity | None:
        """The row-level security that the app's sessions use."""
        ...

    @property
    def policies(self) -> Sequence[Policy[Any]]:
        """The policies of the app's requests."""
        ...


@dataclass(frozen=True, eq=False)
class Target:
    """The models and the database of a command.

    ``name`` is what ``--app`` names; None: nothing. ``rls`` is the app's own; None: it has none. ``plugin`` is the
    app's plugin, if that is what ``--app`` names, or if it names an app that has it. ``own_database`` is the app's own,
    with its time limits and pools; None: ``--app`` names none. No command connects by it. ``fastapi`` is the FastAPI
    app itself, if ``--app`` names one.
    """

    name: str | None
    named_metadata: MetaData | None = None
    named_database: Database | None = None
    rls: RowLevelSecurity | None = None
    plugin: Plugin | None = None
    own_database: Database | None = None
    fastapi: object = None

    @property
    def policies(self) -> Sequence[Policy[Any]]:
        """The policies of the plugin's requests."""
        return () if self.plugin is None else self.plugin.policies

    @property
    def database(self) -> Database:
        """The database, without the app's time limits. Raises `MisuseError` if none is named.

        Raises `DatabaseUnavailableError` if it is a file of SQLite that does not exist: no command creates one.
        """
        if self.named_database is None:
            raise MisuseError(
                f"No database is named: use --url, or the environment's {_ENVIRONMENT}, or an --app with a database.",
                field="--url",
            )
        missing = missing_file(self.named_database.url)
        if missing is not None:
            raise DatabaseUnavailableError(
                f"There is no file {missing}. Create it with its tables first, by a migration or create_all."
            )
        return self.named_database

    @property
    def address(self) -> str:
        """The database's URL without its password."""
        return self.database.url.render_as_string()

    @cached_property
    def metadata(self) -> tuple[MetaData, ...]:
        """The metadata of the models: the one that ``--app`` names, or else those of all mapped classes.

        Raises `MisuseError` if there are no tables.
        """
        if self.name is None:
            raise MisuseError("No models are named: use --app package.module:name.", field="--app")
        every = (
            [self.named_metadata] if self.named_metadata is not None else [each.metadata for each in mapped_tables()]
        )
        if self.rls is not None:
            every.append(self.rls.metadata)
        result = tuple(each for each in dict.fromkeys(every) if each.tables)
        if not result:
            raise MisuseError(f"--app {self.name}: it has no tables; are the models imported there?", field="--app")
        return result

    @cached_property
    def models(self) -> tuple[type, ...]:
        """The mapped classes whose tables are in `metadata`, by name."""
        metadata = self.metadata
        return tuple(
            each for each in mapped_classes() if any(table.metadata in metadata for table in traits_of(each).tables)
        )

    def model(self, name: str) -> type:
        """The model with this name, which may contain its module. Raises `MisuseError` if there is none, or several."""
        matching = [each for each in self.models if name in (each.__name__, f"{each.__module__}.{each.__name__}")]
        if len(matching) == 1:
            return matching[0]
        if matching:
            names = ", ".join(f"{each.__module__}.{each.__name__}" for each in matching)
            raise MisuseError(f"Several models have the name {name}: {names}. Name one with its module.", field="model")
        known = [each.__name__ for each in self.models]
        raise MisuseError(f"There is no model {shown(name)!r}{suggestion(name, known)}", field="model")


@contextmanager
def open_target(app: str | None, url: str | None = None) -> Iterator[Target]:
    """The target of a command. Its connections are closed at the end.

    ``url`` takes the place of the database that ``app`` names; if neither names one, the environment's DATABASE_URL
    does. Raises `MisuseError` if ``app`` can't be imported, or is nothing that has models or a database.
    """
    target = _from_app(app) if app is not None else Target(None)
    environment = os.environ.get(_ENVIRONMENT)
    address = url or (environment if target.named_database is None else None)
    if address:
        target = replace(target, named_database=create_database(address, application_name=_APPLICATION))
    try:
        yield target
    except ModuleNotFoundError as error:
        raise _missing_driver(error) from error
    finally:
        if target.named_database is not None:
            target.named_database.dispose()


def _from_app(app: str) -> Target:
    value = imported(app)
    match value:
        case RowLevelSecurity():
            return Target(app, named_metadata=value.metadata, rls=value)
        case Database():
            return Target(app, named_database=_unlimited(value), own_database=value)
        case MetaData():
            return Target(app, named_metadata=value)
        case Plugin():
            return _of_plugin(app, value)
    metadata = getattr(value, "metadata", None)
    if isinstance(metadata, MetaData):
        return Target(app, named_metadata=metadata)
    if is_app(value):
        return replace(_of_plugin(app, _only_plugin(app, value)), fastapi=value)
    raise MisuseError(
        f"--app {app}: it is {_described(value)}. It must be a FastAPI app, a DatabasePlugin, a Database, a "
        "RowLevelSecurity, a MetaData, a declarative base, or SQLModel.",
        field="--app",
    )


def _of_plugin(app: str, plugin: Plugin) -> Target:
    return Target(app, None, _unlimited(plugin.database), plugin.rls, plugin, plugin.database)


def is_app(value: object) -> bool:
    """Whether a value is a FastAPI app, which this package does not import."""
    return callable(getattr(value, "add_exception_handler", None)) and hasattr(value, "router")


def _only_plugin(app: str, value: object) -> Plugin:
    """The only plugin of a FastAPI app, whose module is imported if the app uses it."""
    module = sys.modules.get("dotmac_database_fastapi")
    plugins: list[Plugin] = [] if module is None else module.plugins_of(value)
    if len(plugins) == 1:
        return plugins[0]
    if plugins:
        names = ", ".join(map(repr, plugins))
        raise MisuseError(f"--app {app}: the app has several plugins, {names}. Pass one of them.", field="--app")
    raise MisuseError(f"--app {app}: no plugin is found in the app's lifespan. Pass the plugin itself.", field="--app")


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of the class {type(value).__name__}"


def _unlimited(database: Database) -> Database:
    """A database with the same options, but without time limits for statements and transactions."""
    options = replace(
        database.options, statement_timeout=None, idle_in_transaction_timeout=None, application_name=_APPLICATION
    )
    return Database(database.url, options, database.engine_options)


def imported(app: str, *, option: str = "--app") -> object:
    """The object that ``package.module:name`` names. The current folder is searched first, as uvicorn does.

    Raises `MisuseError`, which names the ``option``, if there is none.
    """
    module_name, _, path = app.partition(":")
    if not module_name or not path:
        raise MisuseError(
            f"{option} {app!r}: it must be package.module:name, for example shop.app:plugin.", field=option
        )
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        value: object = import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            reason = f"there is no module {error.name!r} (the current folder is {folder})"
        else:
            reason = f"importing {module_name} failed: {type(error).__name__}: {error}"
        raise MisuseError(f"{option} {app}: {reason}", field=option) from error
    for name in path.split("."):
        if not hasattr(value, name):
            known = [each for each in vars(value) if not each.startswith("_")] if hasattr(value, "__dict__") else []
            end = suggestion(name, known, listed=False)
            raise MisuseError(f"{option} {app}: {module_name} has no {shown(name)!r}{end}", field=option)
        value = getattr(value, name)
    return value


_EXTRAS = {"psycopg": "postgresql", "asyncpg": "postgresql", "aiosqlite": "sqlite"}


def _missing_driver(error: ModuleNotFoundError) -> Exception:
    extra = _EXTRAS.get(error.name or "")
    if extra is None:
        return error
    return DatabaseError(f"It needs {error.name}: pip install 'dotmac-database-toolkit[{extra}]'")
