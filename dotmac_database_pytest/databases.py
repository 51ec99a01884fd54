"""Databases of PostgreSQL for tests: a template for each worker of a run, and copies of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from uuid import uuid4

from sqlalchemy import Connection, Engine, make_url

from dotmac_database.engines import make_engine

ROLE = "dotmac_app"
"""The role of the tests in a server of the run: no superuser, and not the tables' owner, so that policies bind it."""

_RIGHTS = f"""
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %%I TO {ROLE}', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %%I TO {ROLE}', name);
        EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %%I TO {ROLE}', name);
    END LOOP;
END $$
"""
_CREATE_ROLE = f"""
DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$
"""

Schema = Callable[[Connection], None]
"""A function that creates the tables of an empty database."""


class PreparedUrl(str):
    """The URL of a database that has its tables."""

    __slots__ = ()


class Template:
    """A database on the server at ``url`` whose tables ``schema`` creates, and which `copy` copies.

    ``own``: the server belongs to the run, so that its copies are used in the `ROLE`; else in the role of ``url``. No
    database has the name of another run's or worker's. Call `close` at the end.
    """

    def __init__(self, url: str, schema: Schema, *, own: bool) -> None:
        self._url = make_url(url)
        self._own = own
        self._prefix = f"dotmac_{uuid4().hex[:12]}"
        self._numbers = count(1)
        self._engine = make_engine(self._url)
        self._name = f"{self._prefix}_template"
        self._execute(f"CREATE DATABASE {self._name}")
        engine = make_engine(self._url.set(database=self._name))
        try:
            self._prepare(engine, schema)
        except BaseException:
            engine.dispose()
            self.close()
            raise
        # A database can be copied only while nobody is connected to it.
        engine.dispose()

    def _prepare(self, engine: Engine, schema: Schema) -> None:
        with engine.begin() as connection:
            schema(connection)
            if self._own:
                connection.exec_driver_sql(_CREATE_ROLE)
                connection.exec_driver_sql(_RIGHTS)

    @contextmanager
    def copy(self) -> Iterator[str]:
        """The URL of a new copy (in libpq's form), which is dropped after the block, even if somebody is connected."""
        name = f"{self._prefix}_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._name}")
        url = self._url.set(database=name, drivername="postgresql")
        if self._own:
            url = url.set(username=ROLE)
        try:
            yield PreparedUrl(url.render_as_string(hide_password=False))
        finally:
            self._drop(name)

    def close(self) -> None:
        """Drop the template."""
        self._drop(self._name)
        self._engine.dispose()

    def _drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _execute(self, command: str) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(command)
