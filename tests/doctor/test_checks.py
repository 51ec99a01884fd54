"""Each check finds the fault that is planted, nothing in the same schema without it, and nothing after its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import MetaData

from dotmac_database import Database, create_database
from dotmac_database.doctor import CHECKS, DoctorFinding, Limits, Report, Severity, examine

from .models import Base

STRICT = Limits(bloat_bytes=8192, dead_rows=1000, statistics_days=0, unused_bytes=1, frozen_age=2000, large_rows=0)
"""Limits that small tables exceed."""
ACCOUNTS = """INSERT INTO accounts (tenant_id, email, at, colour, is_deleted)
SELECT 'a', 'user' || n || '@example.com', now(), 'red', false FROM generate_series(1, 5000) n"""


@dataclass(frozen=True)
class Case:
    """A fault. ``plant`` are statements, each run by itself; ``object`` is that of the finding."""

    code: str
    plant: list[str]
    object: str
    dialects: tuple[str, ...] = ("postgresql",)
    severity: Severity = Severity.WARNING
    before: list[str] = field(default_factory=list)
    """Statements that belong to the healthy schema."""
    between: list[str] = field(default_factory=list)
    """What a person does before the remedy."""
    cures: bool = True
    """Whether the remedy is SQL."""

    def __str__(self) -> str:
        return f"{self.code}-{self.object}"


BOTH = ("postgresql", "sqlite")
WITHOUT_WAL = "PRAGMA journal_mode = DELETE"

CASES = [
    Case("no-primary-key", ["CREATE TABLE bare (id int, a int)"], "public.bare"),
    Case("no-primary-key", ["CREATE TABLE bare (id int, a int)"], "main.bare", ("sqlite",), cures=False),
    Case("timestamp-without-zone", ["ALTER TABLE accounts ADD naive timestamp"], "public.accounts.naive"),
    Case("timestamp-without-zone", ['ALTER TABLE "Note" ADD "order by" timestamp(3)'], "public.Note.order by"),
    Case(
        "constraint-not-valid",
        ["ALTER TABLE accounts ADD CONSTRAINT positive CHECK (id > 0) NOT VALID"],
        "public.accounts: constraint positive",
    ),
    Case(
        "constraint-not-valid",
        ['ALTER TABLE "Note" ADD CONSTRAINT "a key" FOREIGN KEY (account_id) REFERENCES accounts NOT VALID'],
        'public.Note: constraint "a key"',
    ),
    Case(
        "unique-among-deleted",
        ["ALTER TABLE accounts ADD CONSTRAINT plain UNIQUE (tenant_id, email)"],
        "public.accounts: plain",
    ),
    Case(
        "unique-among-deleted",
        ["CREATE UNIQUE INDEX plain ON accounts (tenant_id, email)"],
        "{schema}.accounts: plain",
        BOTH,
    ),
    Case(
        "enum-drift",
        ["ALTER TYPE colour RENAME VALUE 'it''s blue' TO 'blue'"],
        "public.accounts.colour",
        severity=Severity.ERROR,
        cures=False,
    ),
    Case(
        "enum-drift",
        [
            "ALTER TABLE accounts ALTER colour TYPE text",
            "DROP TYPE colour",
            "CREATE TYPE colour AS ENUM ('red')",
            "ALTER TABLE accounts ALTER colour TYPE colour USING colour::colour",
        ],
        "public.accounts.colour",
        severity=Severity.ERROR,
    ),
    Case(
        "enum-drift",
        [
            "ALTER TABLE accounts DROP CONSTRAINT mood",
            "ALTER TABLE accounts ADD CONSTRAINT mood CHECK (mood IN ('red', 'green'))",
        ],
        "public.accounts.mood",
        severity=Severity.ERROR,
    ),
    Case(
        "enum-drift",
        [
            'DROP TABLE "Note"',
            "DROP TABLE accounts",
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, mood TEXT, CONSTRAINT m CHECK (mood IN ('red', 'green')))",
        ],
        "main.accounts.mood",
        ("sqlite",),
        Severity.ERROR,
        cures=False,
    ),
    Case("foreign-key-without-index", ["DROP INDEX notes_by_account"], "{schema}.Note.tenant_id, account_id", BOTH),
    Case(
        "foreign-key-without-index",
        ["DROP INDEX notes_by_account", 'CREATE INDEX brin ON "Note" USING brin (tenant_id, account_id)'],
        "public.Note.tenant_id, account_id",
    ),
    Case(
        "foreign-key-without-index",
        ["CREATE TABLE parted (id int PRIMARY KEY, a int REFERENCES accounts) PARTITION BY RANGE (id)"],
        "public.parted.a",
    ),
    Case("tenant-not-leading", ["DROP INDEX notes_by_account"], "{schema}.Note.tenant_id", BOTH),
    Case(
        "duplicate-index",
        [
            "CREATE TABLE parted (id int PRIMARY KEY, a int) PARTITION BY RANGE (id)",
            "CREATE INDEX one ON parted (a)",
            "CREATE INDEX two ON parted (a)",
        ],
        "public.parted: two",
    ),
    Case(
        "tenant-not-leading",
        ["DROP INDEX ledgers_by_tenant", "CREATE INDEX partial ON ledgers (tenant_id) WHERE amount > 5"],
        "{schema}.ledgers.tenant_id",
        BOTH,
    ),
    Case(
        "invalid-index",
        [
            "INSERT INTO ledgers (tenant_id, amount) VALUES ('a', 1), ('a', 1)",
            "!CREATE UNIQUE INDEX CONCURRENTLY amounts ON ledgers (amount)",
        ],
        "public.ledgers: amounts",
        severity=Severity.ERROR,
        between=["DELETE FROM ledgers"],
    ),
    Case(
        "duplicate-index",
        ['CREATE INDEX again ON "Note" (tenant_id, account_id)'],
        "{schema}.Note: notes_by_account",
        BOTH,
    ),
    Case(
        "duplicate-index",
        ["CREATE INDEX again ON ledgers (lower(tenant_id)) WHERE amount > 0"],
        "{schema}.ledgers: once",
        BOTH,
        before=["CREATE INDEX once ON ledgers (lower(tenant_id)) WHERE amount > 0"],
    ),
    Case(
        "duplicate-index",
        ["CREATE INDEX again ON accounts (tenant_id, id)", "ALTER TABLE accounts ADD CONSTRAINT u2 UNIQUE (id)"],
        "public.accounts: again",
    ),
    Case(
        "unused-index", ["CREATE INDEX unused ON accounts (email)"], "public.accounts: unused", severity=Severity.NOTE
    ),
    Case(
        "sequence-near-end",
        ["SELECT setval('ledgers_id_seq', 1600000000)"],
        "public.ledgers_id_seq",
    ),
    Case(
        "sequence-near-end",
        ["CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)", "SELECT setval('t_id_seq', 2147483600)"],
        "public.t_id_seq",
        severity=Severity.ERROR,
    ),
    Case(
        "sequence-near-end",
        ["CREATE SEQUENCE free AS smallint", "SELECT setval('free', 30000)"],
        "public.free",
        severity=Severity.ERROR,
    ),
    Case(
        "bloat",
        ["DELETE FROM accounts WHERE id % 10 <> 0", "VACUUM (ANALYZE) accounts"],
        "public.accounts",
        before=[ACCOUNTS, "VACUUM (ANALYZE) accounts"],
    ),
    Case(
        "dead-rows",
        [
            "ALTER TABLE accounts SET (autovacuum_enabled = false)",
            "DELETE FROM accounts WHERE id % 2 = 0",
            "SELECT pg_stat_force_next_flush()",
        ],
        "public.accounts",
        before=[ACCOUNTS, "ANALYZE accounts"],
    ),
    Case(
        "wraparound",
        [
            """DO $$ BEGIN FOR n IN 1..4000 LOOP
              BEGIN INSERT INTO ledgers (tenant_id, amount) VALUES ('a', n); EXCEPTION WHEN others THEN RAISE; END;
            END LOOP; END $$""",
            'VACUUM (FREEZE) accounts, "Note", ledgers_history',
        ],
        "public.ledgers",
        severity=Severity.ERROR,
    ),
    Case(
        "history-triggers",
        ["DROP TRIGGER dotmac_history_update ON ledgers"],
        "public.ledgers",
        severity=Severity.ERROR,
    ),
    Case(
        "history-triggers",
        ["DROP TRIGGER ledgers_history_update"],
        "main.ledgers",
        ("sqlite",),
        severity=Severity.ERROR,
    ),
    Case("schema-drift", ["ALTER TABLE accounts DROP email"], "public.accounts.email", severity=Severity.ERROR),
    Case("schema-drift", ["DROP INDEX ledgers_by_tenant"], "{schema}.ledgers.ledgers_by_tenant", BOTH),
    Case("schema-drift", ['ALTER TABLE "Note" ALTER "order" TYPE text'], "public.Note.order", cures=False),
    Case("schema-drift", ['ALTER TABLE "Note" ALTER account_id SET NOT NULL'], "public.Note.account_id"),
    Case("schema-drift", ["CREATE TABLE extra (id int)"], "{schema}.extra", BOTH, severity=Severity.NOTE, cures=False),
    Case(
        "role-bypasses-policies",
        ["ALTER TABLE ledgers ENABLE ROW LEVEL SECURITY"],
        "public.ledgers",
        severity=Severity.ERROR,
    ),
    Case("foreign-keys-off", ["PRAGMA foreign_keys = OFF"], "connection", ("sqlite",), Severity.ERROR),
    Case("journal-not-wal", [WITHOUT_WAL], "database", ("sqlite",)),
    Case("no-busy-timeout", ["PRAGMA busy_timeout = 0"], "connection", ("sqlite",)),
    Case(
        "row-without-parent",
        [
            "PRAGMA foreign_keys = OFF",
            'INSERT INTO "Note" (tenant_id, account_id, "order") VALUES (\'a\', 7, 1)',
            "PRAGMA foreign_keys = ON",
        ],
        "main.Note",
        ("sqlite",),
        Severity.ERROR,
        cures=False,
    ),
    Case(
        "integrity",
        [
            "INSERT INTO ledgers (tenant_id, amount) VALUES ('a', 1)",
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', 'CHECK (0)') WHERE name = 'ledgers'",
            "PRAGMA schema_version = 999",
            "PRAGMA writable_schema = OFF",
        ],
        "database",
        ("sqlite",),
        Severity.ERROR,
        cures=False,
    ),
]


def run(database: Database, statements: list[str]) -> None:
    """Each statement by itself, as psql would send it, on the pool's only connection. One that begins with ! fails."""
    with database.engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        if hasattr(raw, "autocommit") and database.url.get_backend_name() == "postgresql":
            raw.autocommit = True
        try:
            for statement in statements:
                with closing(raw.cursor()) as cursor:
                    if statement.startswith("!"):
                        with pytest.raises(Exception, match=r"."):
                            cursor.execute(statement[1:])
                    else:
                        cursor.execute(statement)
        finally:
            if database.url.get_backend_name() == "postgresql":
                raw.autocommit = False


@pytest.fixture
def target(database_url: str) -> Iterator[Database]:
    """A database with the healthy tables, whose connection commits each statement."""
    database = create_database(database_url, pool_size=1, max_overflow=0)
    fresh(database)
    yield database
    database.dispose()


def fresh(database: Database, metadata: MetaData = Base.metadata) -> None:
    """Make the tables anew."""
    if database.url.get_backend_name() == "postgresql":
        with database.engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    else:
        assert database.url.database is not None
        for suffix in ("", "-wal", "-shm"):
            with open(database.url.database + suffix, "w"):
                pass
    metadata.create_all(database.engine)


def examined(database: Database, code: str, **options: Any) -> Report:
    return examine(database, Base.metadata, only=[code], **{"limits": STRICT, **options})


def pairs() -> list[Any]:
    return [
        pytest.param(dialect, case, id=f"{dialect}-{case}")
        for dialect in BOTH
        for case in CASES
        if dialect in case.dialects
    ]


@pytest.mark.parametrize(("dialect", "case"), pairs(), indirect=["dialect"], scope="module")
def test_a_planted_fault_is_found_and_cured(dialect: str, target: Database, case: Case) -> None:
    named = case.object.format(schema="public" if dialect == "postgresql" else "main")
    run(target, case.before)
    healthy = examined(target, case.code)
    assert of(healthy, named) == [], "before the fault"
    assert case.code in healthy.ran
    run(target, case.plant)
    report = examined(target, case.code)
    findings = of(report, named)
    assert findings, report
    assert {each.code for each in findings} == {case.code}
    assert case.severity in {each.severity for each in findings}
    assert all(each.risk and each.remedy for each in findings)
    if case.cures:
        run(target, case.between)
        for finding in findings:
            assert finding.sql
            run(target, list(finding.sql))
        assert of(examined(target, case.code), named) == [], "after the remedy"


def of(report: Report, named: str) -> list[DoctorFinding]:
    return [each for each in report if each.object == named]


ELSEWHERE = {
    "row-level-security",
    "loose-key",
    "missing-index",
    "long-transaction",
    "idle-in-transaction",
    "timeout-missing",
    "too-many-connections",
}
"""The checks whose faults `test_examining` plants, because they need another session, role or option."""


def test_each_check_has_a_case() -> None:
    assert {each.code for each in CASES} == {each.code for each in CHECKS} - ELSEWHERE
