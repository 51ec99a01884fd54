"""A database with row-level security, used by a role that its policies confine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import make_url

from dotmac_database import RowLevelSecurity, create_database

ROLE = "dotmac_confined_app"

SECRETS = {"unsigned": None, "signed": "a secret of more than sixteen bytes"}
"""The secret of row-level security whose settings are signed, and of that whose settings are not."""


@contextmanager
def confined_database(server: str, name: str, rls: RowLevelSecurity) -> Iterator[str]:
    """The URL (in the form of libpq) of a new database with the policies of ``rls``, for the confined role."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS".encode())
    url = make_url(server).set(database=name)
    owner = create_database(url)
    with owner.engine.begin() as connection:
        rls.metadata.create_all(connection)
        for table in rls.metadata.sorted_tables:
            connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table.name} TO {ROLE}")
        connection.exec_driver_sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")
        rls.apply(connection)
    owner.dispose()
    yield url.set(username=ROLE, password="dotmac").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
