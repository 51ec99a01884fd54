"""PostgreSQL with policies of rights: an owner of the tables, and the application's role, which owns nothing."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

from dotmac_database.engines import Database, create_database

from .row_models import Base, fill

APP = "dotmac_rights_app"


@pytest.fixture(scope="module")
def owner_engine(postgres_url: str) -> Iterator[Engine]:
    """The engine of a superuser, who owns the tables with their rows."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [APP]).fetchone()
        if exists is None:
            connection.execute(f"CREATE ROLE {APP} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS")
    engine = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection)
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP}")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def app(owner_engine: Engine, postgres_url: str) -> Iterator[Database]:
    """The database as the application's role sees it."""
    superuser = create_database(postgres_url)
    database = create_database(superuser.url.set(username=APP, password="dotmac"), pool_size=2, max_overflow=0)
    yield database
    database.dispose()
    superuser.dispose()
