"""The databases of a run, by the function that creates their tables.

Folders, modules and classes can override ``dotmac_metadata``, ``dotmac_rls`` and ``dotmac_create_schema``. So a run can
need several databases, and a test never gets that of other tables or policies, in whatever order the tests run.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, MetaData, make_url

from dotmac_database.dialects.features import has_policies
from dotmac_database.engines import make_engine
from dotmac_database.testing.rollback import create_schema

from .databases import PreparedUrl, Schema, Template
from .settings import fail

if TYPE_CHECKING:
    import pytest

    from dotmac_database import RowLevelSecurity


@dataclass(frozen=True)
class TablesAndPolicies:
    """The function that creates the tables of ``metadata`` and the policies of ``rls``.

    Two such functions are equal if they have the same metadata and the same policies, by identity.
    """

    metadata: MetaData | None
    rls: RowLevelSecurity | None

    def __call__(self, connection: Connection) -> None:
        """Create them in an empty database."""
        create_schema(connection, self.metadata, self.rls)


class Templates:
    """The templates on the server at ``url``, by the function that creates their tables. Call `close` at the end.

    ``own``: as for `Template`.
    """

    def __init__(self, url: str, *, own: bool) -> None:
        self._url = url
        self._own = own
        self._templates: dict[Schema, Template] = {}
        self._shared: dict[Schema, str] = {}
        self._stack = ExitStack()

    def of(self, schema: Schema) -> Template:
        """The template with the tables of ``schema``, which is made at its first use."""
        if schema not in self._templates:
            template = self._templates[schema] = Template(self._url, schema, own=self._own)
            self._stack.callback(template.close)
        return self._templates[schema]

    def shared_copy(self, schema: Schema) -> str:
        """The URL of the copy for all tests of the run whose changes are undone."""
        if schema not in self._shared:
            self._shared[schema] = self._stack.enter_context(self.of(schema).copy())
        return self._shared[schema]

    def close(self) -> None:
        """Drop all templates and their shared copies."""
        self._stack.close()


class Engines:
    """The sync engines of the run, and the files of the SQLite databases. Call `close` at the end."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._files: dict[Schema, str] = {}
        self._engines: dict[tuple[str, Schema], Engine] = {}
        self._owners: dict[str, Schema] = {}

    def file(self, schema: Schema) -> str:
        """The URL of the SQLite file for the tables of ``schema``."""
        if schema not in self._files:
            self._files[schema] = f"sqlite:///{self._factory.mktemp('dotmac')}/test.db"
        return self._files[schema]

    def of(self, url: str, schema: Schema, rls: RowLevelSecurity | None) -> Engine:
        """The engine for ``url``. At its first use ``schema`` creates the tables, unless the database has them.

        Fails the test if the database has no policies and ``rls`` is not None, or if the database of a URL has already
        got the tables of another ``schema``. (Each engine of a database in memory has a database of its own.)
        """
        require_policies(url, rls)
        engine = self._engines.get((url, schema))
        if engine is None:
            if not _is_in_memory(url) and self._owners.setdefault(url, schema) != schema:
                fail(
                    "One database can't have the tables of several dotmac_metadata, dotmac_rls or dotmac_create_schema "
                    "in one run: set dotmac_database = postgresql, which makes a database for each, or give these "
                    'fixtures the scope "session" and override them only once.'
                )
            engine = make_engine(url)
            if isinstance(url, PreparedUrl):
                self._leave_copies(schema)
            else:
                with engine.begin() as connection:
                    schema(connection)
            self._engines[url, schema] = engine
        return engine

    def _leave_copies(self, schema: Schema) -> None:
        """Close the connections to earlier copies, which are dropped already if each was the copy of one test."""
        for key in [each for each in self._engines if each[1] == schema and isinstance(each[0], PreparedUrl)]:
            self._engines.pop(key).dispose()

    def close(self) -> None:
        """Close all connections."""
        for engine in self._engines.values():
            engine.dispose()


def require_policies(url: str | URL, rls: RowLevelSecurity | None) -> None:
    """Fail the test if ``rls`` is not None, and the database of ``url`` has no policies."""
    name = make_url(url).get_backend_name()
    if rls is not None and not has_policies(name):
        fail(
            f"dotmac_rls needs dotmac_database = postgresql (or the URL of a PostgreSQL database): {name} has no "
            "policies, so that a test of them would prove nothing."
        )


def _is_in_memory(url: str) -> bool:
    parts = make_url(url)
    return not has_policies(parts.get_backend_name()) and parts.database in (None, "", ":memory:")
