"""`RowLevelSecurity.verify`: silent on a sound database, and it names each hole that is planted.

The holes are planted in a transaction that is rolled back, by a superuser who then becomes the application's role:
SET SESSION AUTHORIZATION gives the rights that a log-in would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Column, Connection, ForeignKey, String, Table, create_engine, insert
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import Finding, RowLevelSecurity, TenantMixin

from .holes import APP, GROUP, OWNER, PLANTS, REPORT, SCHEMA, Plant


class Base(DeclarativeBase):
    """Tables of every shape that is sound."""


class Note(TenantMixin, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    labels: Mapped[list[Label]] = relationship(secondary=lambda: note_labels)


class Label(TenantMixin, Base):
    __tablename__ = "labels"

    tenant_id: Mapped[str] = mapped_column(String(10))
    id: Mapped[int] = mapped_column(primary_key=True)


note_labels = Table(
    "note_labels",
    Base.metadata,
    Column("note_id", ForeignKey("notes.id"), primary_key=True),
    Column("label_id", ForeignKey("labels.id"), primary_key=True),
)


class Animal(TenantMixin, Base):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Dog(Animal):
    __tablename__ = "dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    tricks: Mapped[str]


class Device(TenantMixin, Base):
    __tablename__ = "devices"

    tenant_id: Mapped[UUID]
    id: Mapped[int] = mapped_column(primary_key=True)


class Odd(Base):
    """Quotes, per cent, colons and capitals in every name, an integer tenant."""

    __tablename__ = 'The "Odd" 50% :t'
    __table_args__ = {"schema": SCHEMA}  # noqa: RUF012
    __tenant_column__ = "Org"

    org: Mapped[int] = mapped_column("Org", nullable=False)
    id: Mapped[int] = mapped_column('The "id" 5% :i', primary_key=True)


class OddChild(Odd):
    """Refers across schemas' names, from a table of the same kind of name."""

    __tablename__ = 'odd"Child'
    __table_args__ = {"schema": SCHEMA}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey(Odd.id), primary_key=True)


class Event(TenantMixin, Base):
    __tablename__ = "events"
    __table_args__ = {"postgresql_partition_by": "LIST (id)"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


class Country(Base):
    """No tenant's."""

    __tablename__ = "countries"

    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str | None] = mapped_column("Org")


RLS = RowLevelSecurity(Base.metadata)

SOUND = f"""
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_2 PARTITION OF events FOR VALUES IN (2);
CREATE TABLE events_rest PARTITION OF events DEFAULT PARTITION BY LIST (id);
CREATE TABLE events_3 PARTITION OF events_rest DEFAULT;
ALTER TABLE events_2 ENABLE ROW LEVEL SECURITY;
ALTER TABLE events_2 FORCE ROW LEVEL SECURITY;
GRANT SELECT ON events_2 TO {APP};
CREATE POLICY mine ON events_2 USING (
  ((tenant_id = NULLIF(current_setting('dotmac.tenant_id', true), ''))
    OR current_setting('dotmac.all_tenants', true) = 'on'));
CREATE POLICY less ON notes AS RESTRICTIVE USING (id < 1000000);
CREATE POLICY reports ON notes FOR SELECT TO {REPORT} USING (true);
CREATE VIEW sound_view WITH (security_invoker = true) AS SELECT * FROM notes;
CREATE VIEW all_countries AS SELECT * FROM countries;
CREATE VIEW nobodys AS SELECT * FROM notes;
CREATE VIEW invoked WITH (security_invoker = true) AS SELECT * FROM nobodys;
CREATE MATERIALIZED VIEW nobodys_rows AS SELECT * FROM notes;
CREATE TABLE nobodys_copy AS SELECT * FROM notes;
CREATE TABLE unlisted (id int, tenant_id text);
ALTER TABLE unlisted ENABLE ROW LEVEL SECURITY;
ALTER TABLE unlisted FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON unlisted USING (
  (tenant_id = NULLIF(current_setting('dotmac.tenant_id', true), '')
    OR current_setting('dotmac.all_tenants', true) = 'on'));
CREATE FUNCTION touched(what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN what || ' '; END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  -- An INSERT or UPDATE
  IF TG_OP = 'UPDATE' THEN NEW.title := trim(touched(NEW.title)); END IF;
  PERFORM 1 FROM labels FOR UPDATE;
  UPDATE labels SET id = id WHERE false;
  RETURN NEW;
END $$;
CREATE TRIGGER touches AFTER UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION guarded() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*)::int FROM notes';
CREATE FUNCTION private_secret() RETURNS text SECURITY DEFINER LANGUAGE sql
  AS $$ SELECT string_agg(title, '') FROM notes $$;
REVOKE EXECUTE ON FUNCTION private_secret FROM PUBLIC;
CREATE RULE nothing AS ON DELETE TO labels WHERE OLD.id = 0 DO INSTEAD NOTHING;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes, labels, note_labels, animals, dogs, devices, events, countries, unlisted,
  sound_view, all_countries, invoked TO {APP};
GRANT USAGE ON SCHEMA "{SCHEMA}" TO {APP};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{SCHEMA}" TO {APP};
ALTER FUNCTION guarded OWNER TO {OWNER};
"""


@pytest.fixture(scope="module")
def engine(postgres_url: str) -> Iterator[Engine]:
    """The superuser's connections to a sound database."""
    roles = f"{APP}, {OWNER}, {GROUP}, {REPORT}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {APP} LOGIN; CREATE ROLE {OWNER}; CREATE ROLE {GROUP}; CREATE ROLE {REPORT}")
        connection.execute(f'CREATE SCHEMA "{SCHEMA}" AUTHORIZATION {OWNER}; GRANT ALL ON SCHEMA public TO {OWNER}')
    made = create_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"))
    try:
        with made.begin() as connection:
            _become(connection, OWNER)
            Base.metadata.create_all(connection)
            for statement in RLS.create_statements():
                _run(connection, statement)
            _become(connection, "postgres")
            _run(connection, SOUND)
            _fill(connection)
        yield made
    finally:
        made.dispose()
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {roles} CASCADE")
            connection.execute(f"DROP ROLE {roles}")


def _fill(connection: Connection) -> None:
    for tenant, number in (("a", 1), ("b", 2)):
        connection.execute(insert(Note), {"id": number, "tenant_id": tenant, "title": f"{tenant} secret"})
        connection.execute(insert(Label), {"id": number, "tenant_id": tenant})
        connection.execute(insert(note_labels), {"note_id": number, "label_id": number})
        connection.execute(insert(Animal.__table__), {"id": number, "tenant_id": tenant, "kind": "dog"})
        connection.execute(insert(Dog.__table__), {"id": number, "tricks": f"{tenant} secret"})
        connection.execute(insert(Device), {"id": number, "tenant_id": UUID(int=number)})
        connection.execute(insert(Odd.__table__), {"Org": number, 'The "id" 5% :i': number})
        connection.execute(insert(Event), {"id": number, "tenant_id": tenant, "what": f"{tenant} secret"})
    _run(connection, "REFRESH MATERIALIZED VIEW nobodys_rows; INSERT INTO nobodys_copy SELECT * FROM notes")


def _run(connection: Connection, sql: str) -> Any:
    """Send SQL as it stands, colons, per cent and all."""
    cursor = connection.connection.cursor()
    cursor.execute(sql)
    return cursor.fetchall() if cursor.description else cursor.rowcount


def _become(connection: Connection, role: str) -> None:
    _run(connection, f"SET LOCAL SESSION AUTHORIZATION {role}")


@contextmanager
def _planted(engine: Engine, sql: str) -> Iterator[Connection]:
    """The application's role in a database with a hole."""
    with engine.connect() as connection:
        connection.begin()
        if sql:
            _run(connection, sql)
        _become(connection, APP)
        yield connection
        connection.rollback()


def test_a_sound_database_has_no_findings(engine: Engine) -> None:
    with _planted(engine, "") as connection:
        assert RLS.verify(connection) == []
        assert RLS.verify(connection, attempts=False) == []


def _names(found: Sequence[Finding], plant: Plant) -> list[Finding]:
    return [each for each in found if plant.object in each.object and plant.risk in each.risk]


def _leaks(connection: Connection, plant: Plant) -> bool:
    """Whether the application's role reads or changes a row of b's, by the plant, as tenant a."""
    savepoint = connection.begin_nested()
    _run(connection, "SET LOCAL dotmac.tenant_id = 'a'")
    for statement in plant.leak:
        gained = _run(connection, statement)
    savepoint.rollback()
    return "b" in str(gained) if isinstance(gained, list) else gained > 0


@pytest.mark.parametrize("name", PLANTS)
def test_each_planted_hole_is_found(engine: Engine, name: str) -> None:
    plant = PLANTS[name]
    with _planted(engine, plant.sql.replace("{database}", str(engine.url.database))) as connection:
        findings = RLS.verify(connection, attempts=False)
        assert _names(findings, plant), findings
        assert all(each.remedy for each in findings)
        if plant.leak:
            assert _leaks(connection, plant)
        if plant.runs:
            _become(connection, "postgres")
            for finding in findings:
                _run(connection, finding.remedy)
            _become(connection, APP)
            assert RLS.verify(connection, attempts=False) == []
