"""`RowLevelSecurity.verify`: silent on a sound database, and it names each hole that is planted.

The holes are planted in a transaction that is rolled back, by a superuser who then becomes the application's role:
SET SESSION AUTHORIZATION gives the rights that a log-in would.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import URL, Column, Connection, ForeignKey, String, Table, create_engine, insert, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from dotmac_database import DatabaseError, Finding, RowLevelSecurity, TenantMixin, guard_tenants, unscoped
from dotmac_database.tenancy.rls.verification import expectations
from tests.conftest import counted

from .holes import APP, EXACT, GROUP, OWNER, PEEK, PLANTS, POLICIES, REPORT, SCHEMA, SETTINGS, Plant, instead


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
CREATE POLICY less ON labels AS RESTRICTIVE USING (id < 1000000);
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
ALTER TABLE events_1 OWNER TO {OWNER};
GRANT SELECT ON nobodys_rows TO {OWNER};
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


TRIED = {
    "off": "read updated deleted inserted",
    "open policy": "read updated deleted inserted",
    "any tenant at all": "read",
    "no tenant, or the right one": "read updated deleted inserted",
    "one more tenant": "read updated deleted",
    "all words are there": "read updated deleted inserted",
    "another function of the name": "read updated deleted",
    "open for UPDATE": "updated",
    "open for UPDATE without WITH CHECK": "updated",
    "open for DELETE": "deleted",
    "open for INSERT": "inserted",
    "open to a group": "read updated deleted inserted",
    "joined child open": "read updated deleted inserted",
    "open between many and many": "read",
    "off between many and many": "read updated deleted inserted",
    "partition without": "read",
    "partition with an open policy": "read",
    "partition of a partition": "updated",
    "child by inheritance": "read",
    "a table that the metadata lacks": "read",
    "such a one with an open policy": "read updated deleted inserted",
    "off on a name with quotes": "read updated deleted inserted",
}


def _tried(findings: Sequence[Finding], name: str) -> set[str]:
    pattern = re.compile(r"tried as this role: a row of another tenant can be (\w+)")
    return {found[1] for each in findings if name in each.object and (found := pattern.match(each.risk))}


@pytest.mark.parametrize("name", TRIED)
def test_attempts_find_what_leaks(engine: Engine, name: str) -> None:
    plant = PLANTS[name]
    with _planted(engine, plant.sql) as connection:
        before = _contents(connection)
        findings = RLS.verify(connection)
        thing = "notes" if plant.object.startswith("policy") else plant.object.partition(",")[0]
        assert _tried(findings, thing) == set(TRIED[name].split()), findings
        assert _contents(connection) == before


def _contents(connection: Connection) -> Any:
    """The rows, locks aside, and the settings that a verification changes for a while."""
    names = (
        "search_path",
        "lock_timeout",
        "statement_timeout",
        "row_security",
        "dotmac.tenant_id",
        "dotmac.all_tenants",
    )
    settings = [_run(connection, f"SELECT current_setting('{name}', true)") for name in names]
    _become(connection, "postgres")
    rows = [
        _run(connection, f"SELECT xmin, xmax::text::int * 0, * FROM {name}") for name in ("notes", "labels", "dogs")
    ]
    sequences = _run(connection, "SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")
    temporary = _run(connection, "SELECT count(*) FROM pg_class WHERE relpersistence = 't'")
    _become(connection, APP)
    return settings, rows, sequences, temporary


def test_what_was_accepted_is_left_out(engine: Engine) -> None:
    rule = "CREATE RULE copying AS ON UPDATE TO notes DO ALSO INSERT INTO copies VALUES (NEW.title)"
    with _planted(engine, f"{PLANTS['trigger that copies'].sql}; {rule}") as connection:
        found = [each.object for each in RLS.verify(connection, attempts=False)]
        assert found == ["trigger copies on public.notes", "rule copying on public.notes"]
        assert [each.object for each in RLS.verify(connection, accepted=found[:1])] == found[1:]


def test_nothing_remains(engine: Engine) -> None:
    with _planted(engine, "SET LOCAL dotmac.tenant_id = 'a'; SET LOCAL statement_timeout = '7s'") as connection:
        before = _contents(connection)
        assert RLS.verify(connection) == []
        assert _contents(connection) == before


def test_a_trigger_that_stamps_the_tenant_is_sound(engine: Engine) -> None:
    stamp = (
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.tenant_id := current_setting('dotmac.tenant_id', true); RETURN NEW; END $$;"
        "CREATE TRIGGER stamps BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION stamp()"
    )
    with _planted(engine, stamp) as connection:
        assert RLS.verify(connection) == []


SOUND_PLANTS = {
    "no TEMP": "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
    "read only": "SET TRANSACTION READ ONLY",
    "member without power": f"ALTER ROLE {GROUP} BYPASSRLS; GRANT {GROUP} TO {APP} WITH INHERIT FALSE, SET FALSE",
    "member of an ordinary group": f"GRANT {GROUP} TO {APP}; GRANT SELECT ON notes TO {GROUP}",
    "superuser's policy role": f"GRANT SELECT ON notes TO {REPORT}",
    "reading only": f"REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM {APP}",
    "no rights at all": f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {APP}",
    "rights on some columns": f"REVOKE ALL ON notes FROM {APP};"
    f"GRANT SELECT (title), INSERT (id, title) ON notes TO {APP}",
    "empty setting": f"ALTER ROLE {APP} SET dotmac.tenant_id = ''",
    "another path": f'SET LOCAL search_path = "{SCHEMA}", public, pg_temp',
    "REFERENCES without CREATE": f"GRANT REFERENCES ON notes TO {APP}",
    "INSTEAD NOTHING": "CREATE RULE no AS ON INSERT TO labels DO INSTEAD NOTHING",
    "trigger that is off": f"{PLANTS['trigger that copies'].sql}; ALTER TABLE notes DISABLE TRIGGER copies",
    "trigger of PostgreSQL's": "CREATE TRIGGER t BEFORE UPDATE ON notes FOR EACH ROW"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "unforced, of somebody else": "CREATE TABLE mine (id int)",
    "function of the forced owner": f"CREATE FUNCTION f() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';"
    f"ALTER FUNCTION f OWNER TO {OWNER}",
    "function that reads the setting": "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS"
    " $$ SELECT current_setting('dotmac.tenant_id', true) $$",
    "large table": "INSERT INTO animals (id, kind, tenant_id)"
    " SELECT n, repeat('x', 900), 'c' FROM generate_series(1000, 12000) AS n",
    "domain as the tenant's type": "CREATE DOMAIN tenant AS text NOT NULL; CREATE TABLE d (tenant_id tenant, n tenant);"
    "GRANT ALL ON d TO PUBLIC; REVOKE TRUNCATE, TRIGGER ON d FROM PUBLIC; ALTER TABLE d FORCE ROW LEVEL SECURITY;"
    "ALTER TABLE d ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON d USING (tenant_id ="
    " NULLIF(current_setting('dotmac.tenant_id', true), '') OR current_setting('dotmac.all_tenants', true) = 'on')",
}


@pytest.mark.parametrize("name", SOUND_PLANTS)
def test_what_is_sound_is_no_finding(engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("no TEMP", "read only"):
        monkeypatch.setattr(expectations, "_PRINTED", {})
    with _planted(engine, SOUND_PLANTS[name].replace("{database}", str(engine.url.database))) as connection:
        assert RLS.verify(connection) == []


HINDERED = [
    *((name, "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC") for name in POLICIES),
    ("open policy", "SET TRANSACTION READ ONLY"),
    ("one end of two between many and many", "SET TRANSACTION READ ONLY"),
]


@pytest.mark.parametrize(("name", "hindrance"), HINDERED)
def test_policies_are_compared_where_no_temporary_table_can_be(
    engine: Engine, name: str, hindrance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expectations, "_PRINTED", {})
    plant = PLANTS[name]
    with _planted(engine, f"{plant.sql}; {hindrance}".replace("{database}", str(engine.url.database))) as connection:
        findings = RLS.verify(connection, attempts=False)
        assert _names(findings, plant), findings
        assert expectations._PRINTED == {}


def test_a_large_table_with_a_hole_is_found(engine: Engine) -> None:
    # Not the notes: rows that were rolled back keep their pages, and other tests count on a small table.
    large = f"{SOUND_PLANTS['large table']}; CREATE POLICY beside ON animals USING (true)"
    with _planted(engine, large) as connection:
        assert _tried(RLS.verify(connection), "animals") == {"read", "updated", "deleted", "inserted"}


def test_without_all_tenants_the_policies_that_allow_for_them_are_findings(engine: Engine) -> None:
    strict = RowLevelSecurity(Base.metadata, all_tenants=False)
    with _planted(engine, "") as connection:
        findings = strict.verify(connection)
        assert {each.object for each in findings} >= {
            "public.notes, policy dotmac_tenant",
            "public.dogs, policy dotmac_tenant",
        }
        assert all("policy" in each.object for each in findings)
        _become(connection, "postgres")
        for statement in strict.create_statements():
            _run(connection, statement)
        _run(connection, "DROP POLICY mine ON unlisted; DROP POLICY mine ON events_2")
        _become(connection, APP)
        assert strict.verify(connection) == []


def test_a_superuser_who_set_a_role_is_found(engine: Engine) -> None:
    with engine.connect() as connection:
        _run(connection, f"SET ROLE {APP}")
        findings = RLS.verify(connection)
        connection.rollback()
    assert [(each.object, each.risk) for each in findings] == [("role postgres", "a superuser passes every policy")]


SIGNED = RowLevelSecurity(Base.metadata, secret="a secret of the tests")
FORGED = {
    "": ("", ""),
    "a function that believes all": (
        """CREATE OR REPLACE FUNCTION dotmac.tenant_id() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
        AS $$ SELECT current_setting('dotmac.tenant_id', true) $$""",
        "function dotmac.tenant_id()",
    ),
    "a policy that asks the setting itself": (instead(EXACT), "public.notes, policy dotmac_tenant"),
    "an open policy": ("CREATE POLICY open ON dogs USING (true)", "public.dogs, policy open"),
    "one more function": (
        f"SET LOCAL SESSION AUTHORIZATION postgres; {PEEK}; SET LOCAL SESSION AUTHORIZATION {OWNER}",
        "FUNCTION public.peek()",
    ),
}


@pytest.mark.parametrize("temporary", [True, False])
@pytest.mark.parametrize("name", FORGED)
def test_signed_policies_are_compared(
    engine: Engine, name: str, temporary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expectations, "_PRINTED", {})
    sql, thing = FORGED[name]
    with engine.connect() as connection:
        connection.begin()
        _run(connection, f"GRANT CREATE ON DATABASE {engine.url.database} TO {OWNER}")
        if not temporary:
            _run(connection, f"REVOKE TEMPORARY ON DATABASE {engine.url.database} FROM PUBLIC")
        _run(connection, "DROP POLICY mine ON unlisted; DROP POLICY mine ON events_2")
        _become(connection, OWNER)
        SIGNED.apply(connection)
        _run(connection, sql)
        _become(connection, APP)
        findings = SIGNED.verify(connection, attempts=temporary)
        connection.rollback()
    if name:
        assert thing in {each.object for each in findings}, findings
    else:
        assert findings == []


@pytest.fixture
def app_url(engine: Engine) -> URL:
    return engine.url.set(username=APP)


STEERED = {name: PLANTS[name] for name in SETTINGS if "all_tenants" in PLANTS[name].risk or "tenant_id" in name}


@pytest.mark.parametrize("name", STEERED)
def test_settings_of_a_new_session_steer_the_policies(engine: Engine, app_url: URL, name: str) -> None:
    """The same plants as above, committed, so that a new session begins with them."""
    plant = STEERED[name]
    sql = plant.sql.replace("{database}", str(engine.url.database))
    app = create_engine(app_url)
    with engine.begin() as connection:
        _run(connection, sql)
    try:
        with app.connect() as connection:
            assert "b secret" in str(_run(connection, "SELECT title FROM notes"))
            findings = RLS.verify(connection, attempts=False)
            assert [plant.object in each.object for each in findings] == [True]
    finally:
        app.dispose()
        with engine.begin() as connection:
            _run(connection, findings[0].remedy)
    with app.connect() as connection:
        assert RLS.verify(connection, attempts=False) == []
    app.dispose()


def test_settings_of_the_connections_options_are_found(app_url: URL) -> None:
    app = create_engine(app_url, connect_args={"options": "-c dotmac.all_tenants=on"})
    with app.connect() as connection:
        assert "b secret" in str(_run(connection, "SELECT title FROM notes"))
        assert [each.object for each in RLS.verify(connection)] == ["setting dotmac.all_tenants"]
    app.dispose()


def test_a_setting_that_was_left_on_the_connection_is_found(app_url: URL) -> None:
    app = create_engine(app_url, pool_size=1)
    with app.connect() as connection:
        connection.exec_driver_sql("SET dotmac.tenant_id = 'b'")
        connection.commit()
    with app.connect() as connection:
        findings = RLS.verify(connection)
        assert [(each.object, each.remedy) for each in findings] == [
            ("setting dotmac.tenant_id", "RESET dotmac.tenant_id")
        ]
    with app.connect() as connection:
        connection.exec_driver_sql("SET LOCAL dotmac.tenant_id = 'b'")
        assert RLS.verify(connection) == []  # a value of the open transaction's own
        connection.exec_driver_sql("RESET dotmac.tenant_id")
        connection.commit()
    app.dispose()


def test_a_connection_that_commits_each_statement_is_refused(app_url: URL) -> None:
    app = create_engine(app_url, isolation_level="AUTOCOMMIT")
    with app.connect() as connection, pytest.raises(DatabaseError, match="commits each statement"):
        RLS.verify(connection)
    app.dispose()


def test_how_many_statements_are_sent(app_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectations, "_PRINTED", {})
    app = create_engine(app_url)
    calls, policies = 1, len(RLS.tables()) + 2
    usual = 19 + calls
    with app.connect() as connection:
        for expected in (usual + 7 * policies, usual):
            connection.rollback()
            with counted(app) as sent:
                RLS.verify(connection, attempts=False)
            assert len(sent) == expected + 1  # BEGIN
        connection.rollback()
        with counted(app) as sent:
            RLS.verify(connection)
    app.dispose()
    attempts = [each for each in sent if re.match(r"SELECT EXISTS \(SELECT FROM|UPDATE|DELETE|INSERT", each)]
    assert len(sent) == usual + 7 + 4 * len(attempts) + 1
    assert 8 * policies < len(attempts) <= 12 * policies


@pytest.mark.parametrize("name", ["", "open policy", "open for UPDATE", "open for INSERT"])
def test_within_a_guarded_session(engine: Engine, name: str) -> None:
    """The guard names the session's tenant anew after each savepoint: the attempts' tenant is named after that."""
    with _planted(engine, PLANTS[name].sql if name else "") as connection:
        session = guard_tenants(sessionmaker(connection), rls=RLS)()
        with unscoped(session, reason="verification"):
            findings = RLS.verify(session.connection())
            assert _tried(findings, "notes") == (set(TRIED[name].split()) if name else set())
            assert bool(findings) is bool(name)
        session.close()


def test_a_table_that_another_has_locked_is_left_out(engine: Engine, app_url: URL) -> None:
    app = create_engine(app_url)
    with engine.begin() as connection:
        _run(connection, "LOCK TABLE labels IN EXCLUSIVE MODE")
        with app.connect() as waiting:
            assert RLS.verify(waiting) == []
    app.dispose()


ASYNC = ("open policy", "view of a view of a view", "trigger that copies", "open on a name with quotes")


@pytest.mark.parametrize("name", ["", *ASYNC])
def test_the_async_face(engine: Engine, name: str) -> None:
    async def findings() -> list[Finding]:
        made = create_async_engine(engine.url.set(drivername="postgresql+asyncpg"))
        async with made.connect() as connection:
            await connection.execute(text("SELECT 1"))
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(f"{PLANTS[name].sql if name else ''}; SET LOCAL SESSION AUTHORIZATION {APP}")
            found = await connection.run_sync(RLS.verify)
            await connection.rollback()
        await made.dispose()
        return found

    found = asyncio.run(findings())
    assert _names(found, PLANTS[name]) if name else found == []
