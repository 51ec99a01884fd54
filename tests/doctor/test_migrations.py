"""The rules for migrations: each finds its statement, a better one is no finding, and the remedy's SQL is better."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from alembic.config import Config
from sqlalchemy import create_engine, text

from dotmac_database import Database, MisuseError, create_database
from dotmac_database.doctor import RULES, Limits, Report, Severity, examine_migrations, examine_statements
from dotmac_database.doctor.migrations.types import printed_type, rewrites

LARGE = Limits(large_rows=100)
"""Limits by which the table `large` is large, and `little` is not."""

TABLES = """
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE little (id int PRIMARY KEY, name text);
CREATE TABLE large (id int PRIMARY KEY, name varchar(20), free text, code bpchar(3), price numeric(8, 2), "a Name" int,
  at timestamptz, parent_id int, checked int, CONSTRAINT checked_is_there CHECK (checked IS NOT NULL));
INSERT INTO little SELECT n, 'x' FROM generate_series(1, 5) n;
INSERT INTO large (id, checked) SELECT n, n FROM generate_series(1, 200) n;
CREATE INDEX large_by_name ON large (name);
CREATE FUNCTION my_volatile() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION my_stable() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE SCHEMA other; CREATE TABLE other.things (id int PRIMARY KEY, name text);
CREATE TABLE parted (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (1000);
INSERT INTO parted SELECT n FROM generate_series(1, 200) n;
INSERT INTO other.things SELECT n FROM generate_series(1, 200) n;
ANALYZE
"""


@dataclass(frozen=True)
class Case:
    """A script, and the finding's code (None: there is none) and object."""

    sql: str
    code: str | None = None
    object: str = "public.large"
    cures: bool = True
    """Whether the remedy is SQL."""

    def __str__(self) -> str:
        return self.sql


CASES = [
    Case("CREATE INDEX i ON large (free)", "migration-index-blocks-writes", "public.large.i"),
    Case("CREATE UNIQUE INDEX i ON other.things (name)", "migration-index-blocks-writes", "other.things.i"),
    Case("CREATE INDEX CONCURRENTLY i ON large (free)"),
    Case("CREATE INDEX i ON parted (name)", "migration-index-blocks-writes", "public.parted.i", cures=False),
    Case("CREATE INDEX i ON ONLY parted (name)"),
    Case("CREATE TABLE large_two (a int); CREATE INDEX i ON large_two (a); ALTER TABLE large_two ADD UNIQUE (a)"),
    Case("DROP INDEX large_by_name", "migration-index-blocks-writes", "public.large.large_by_name"),
    Case("DROP INDEX CONCURRENTLY large_by_name"),
    Case("REINDEX TABLE large", "migration-index-blocks-writes"),
    Case("REINDEX TABLE CONCURRENTLY large"),
    Case(
        "BEGIN; CREATE INDEX CONCURRENTLY i ON large (free); COMMIT",
        "migration-concurrently-in-transaction",
        "public.large.i",
        cures=False,
    ),
    Case(
        "BEGIN; DROP INDEX CONCURRENTLY large_by_name; COMMIT",
        "migration-concurrently-in-transaction",
        "public.large.large_by_name",
        cures=False,
    ),
    Case("BEGIN; COMMIT; CREATE INDEX CONCURRENTLY i ON large (free); BEGIN; COMMIT"),
    Case("ALTER TABLE large ALTER name TYPE text"),
    Case("ALTER TABLE large ALTER name TYPE varchar(30)"),
    Case("ALTER TABLE large ALTER name TYPE varchar(10)", "migration-rewrites-table", "public.large.name", cures=False),
    Case("ALTER TABLE large ALTER id TYPE bigint", "migration-rewrites-table", "public.large.id", cures=False),
    Case("ALTER TABLE large ALTER price TYPE numeric(10, 2)"),
    Case("ALTER TABLE large ALTER price TYPE numeric(10, 4)", "migration-rewrites-table", "public.large.price", False),
    Case(
        "ALTER TABLE large ALTER free TYPE text USING upper(free)",
        "migration-rewrites-table",
        "public.large.free",
        False,
    ),
    Case("ALTER TABLE large ADD b int DEFAULT my_volatile()", "migration-rewrites-table", "public.large.b"),
    Case("ALTER TABLE large ADD b float DEFAULT 1 + random() NOT NULL", "migration-rewrites-table", "public.large.b"),
    Case("ALTER TABLE large ADD b int DEFAULT my_stable() NOT NULL, ADD c timestamptz DEFAULT now()"),
    Case("ALTER TABLE large ADD b serial", "migration-rewrites-table", "public.large.b", cures=False),
    Case(
        "ALTER TABLE large ADD b int GENERATED ALWAYS AS (id + 1) STORED",
        "migration-rewrites-table",
        "public.large.b",
        False,
    ),
    Case("ALTER TABLE large ADD b int NOT NULL", "migration-not-null-without-default", "public.large.b"),
    Case("ALTER TABLE large ADD b int NOT NULL DEFAULT 3"),
    Case("ALTER TABLE large ADD b int"),
    Case("VACUUM FULL large", "migration-rewrites-table", cures=False),
    Case("VACUUM large"),
    Case("CLUSTER large USING large_pkey", "migration-rewrites-table", cures=False),
    Case("ALTER TABLE large SET TABLESPACE fast", "migration-rewrites-table", cures=False),
    Case("ALTER TABLE large ALTER free SET NOT NULL", "migration-set-not-null-scans", "public.large.free"),
    Case('ALTER TABLE large ALTER "a Name" SET NOT NULL', "migration-set-not-null-scans", "public.large.a Name"),
    Case("ALTER TABLE large ALTER checked SET NOT NULL"),
    Case("ALTER TABLE large ALTER id SET NOT NULL"),
    Case(
        "ALTER TABLE large ADD CONSTRAINT fk FOREIGN KEY (parent_id) REFERENCES parents",
        "migration-constraint-scans",
        "public.large.fk",
    ),
    Case("ALTER TABLE large ADD CONSTRAINT c CHECK (id > 0)", "migration-constraint-scans", "public.large.c"),
    Case("ALTER TABLE large ADD CONSTRAINT c CHECK (id > 0) NOT VALID"),
    Case(
        "BEGIN; ALTER TABLE large ADD CONSTRAINT c CHECK (id > 0) NOT VALID; ALTER TABLE large VALIDATE CONSTRAINT c",
        "migration-constraint-scans",
        "public.large.c",
        cures=False,
    ),
    Case("ALTER TABLE large ADD p int REFERENCES parents", "migration-constraint-scans", "public.large.p", cures=False),
    Case("ALTER TABLE large ADD CONSTRAINT u UNIQUE (free, at)", "migration-constraint-builds-index", "public.large.u"),
    Case("CREATE UNIQUE INDEX CONCURRENTLY u ON large (free); ALTER TABLE large ADD UNIQUE USING INDEX u"),
    Case(
        "ALTER TABLE large ADD CONSTRAINT e EXCLUDE USING btree (free WITH =)",
        "migration-constraint-builds-index",
        "public.large.e",
        cures=False,
    ),
    Case("ALTER TABLE large ADD u int UNIQUE", "migration-constraint-builds-index", "public.large.u", cures=False),
    Case("ALTER TABLE large DROP COLUMN free", "migration-drops", "public.large.free", cures=False),
    Case("DROP TABLE large", "migration-drops", cures=False),
    Case("CREATE TABLE brief (a int); DROP TABLE brief"),
    Case("ALTER TABLE large RENAME free TO loose", "migration-renames", "public.large.free", cures=False),
    Case("ALTER TABLE large RENAME TO larger", "migration-renames", cures=False),
    Case("ALTER TABLE large RENAME CONSTRAINT checked_is_there TO other"),
    Case("ALTER TABLE unknown ADD a int NOT NULL"),
    Case("UPDATE large SET free = 'CREATE INDEX i ON large (free)'"),
    Case("ALTER TABLE large ADD b int /* no timeout */", "migration-no-lock-timeout"),
    Case("SET lock_timeout = 0; ALTER TABLE large ADD b int", "migration-no-lock-timeout"),
    Case(
        "BEGIN; SET LOCAL lock_timeout = '3s'; COMMIT; BEGIN; ALTER TABLE large ADD b int; COMMIT",
        "migration-no-lock-timeout",
    ),
    Case("SET LOCAL lock_timeout = '3s'; ALTER TABLE large ADD b int"),
]
WITHOUT_TIMEOUT = "migration-no-lock-timeout"


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[Database]:
    database = create_database(postgres_url)
    with database.engine.begin() as connection:
        connection.execute(text(TABLES))
    yield database
    database.dispose()


def judged(database: Database, sql: str, code: str | None, limits: Limits = LARGE) -> Report:
    skip = [] if code == WITHOUT_TIMEOUT or "LOCAL" in sql else [WITHOUT_TIMEOUT]
    with database.engine.connect() as connection:
        return examine_statements(connection, sql, skip=skip, limits=limits)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_rule_finds_its_statement_and_accepts_its_remedy(database: Database, case: Case) -> None:
    report = judged(database, case.sql, case.code)
    assert [(each.code, each.object) for each in report] == ([] if case.code is None else [(case.code, case.object)])
    for finding in report:
        assert finding.severity is not Severity.NOTE
        assert "about 200 rows" in finding.risk
        assert finding.remedy
        assert bool(finding.sql) is case.cures
        better = "; ".join(finding.sql)
        if case.code == WITHOUT_TIMEOUT:
            better = f"{better}; ALTER TABLE large ADD b int"
        if case.cures:
            assert judged(database, better, case.code).findings == ()


def test_each_rule_has_a_case() -> None:
    assert {each.code for each in RULES} == {each.code for each in CASES if each.code}


@pytest.mark.parametrize("sql", ["CREATE INDEX i ON little (name)", "ALTER TABLE little ADD UNIQUE (name)"])
def test_what_is_slow_on_a_large_table_only_is_a_note_on_a_small_one(database: Database, sql: str) -> None:
    report = judged(database, sql, WITHOUT_TIMEOUT)
    assert len(report) == 2
    assert not report.failed
    assert "about 5 rows" in report.findings[0].risk


def test_the_remedies_run(database: Database) -> None:
    """The better statements are valid, and leave what the worse ones would have left."""
    engine = create_engine(database.engine.url, isolation_level="AUTOCOMMIT")
    for case in CASES:
        if case.code is None or not case.cures:
            continue
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE large, little, parents, parted; DROP SCHEMA other CASCADE")
            connection.exec_driver_sql("DROP FUNCTION my_volatile, my_stable")
            connection.exec_driver_sql(TABLES)
            for finding in judged(database, case.sql, case.code):
                connection.exec_driver_sql('DELETE FROM large WHERE free IS NULL OR "a Name" IS NULL')
                for statement in finding.sql:
                    connection.exec_driver_sql(statement)
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE large, little, parents, parted; DROP SCHEMA other CASCADE")
        connection.exec_driver_sql("DROP FUNCTION my_volatile, my_stable")
        connection.exec_driver_sql(TABLES)
    engine.dispose()


TYPES = ["varchar(20)", "varchar(30)", "varchar", "text", "bpchar(3)", "bpchar(5)", "numeric(8,2)", "numeric(10,2)"]
TYPES += ["numeric(8,3)", "numeric", "integer", "bigint", "timestamptz(0)", "timestamptz", "timestamp", "timestamp(3)"]


def test_postgresql_agrees_on_the_types_that_rewrite_a_table(database: Database) -> None:
    """Each change of one type to another, against what PostgreSQL does: whether the table gets a new file."""
    with database.engine.connect() as connection:
        for old in TYPES:
            for new in TYPES:
                connection.exec_driver_sql(f"CREATE TEMP TABLE typed (a {old})")
                printed = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'typed'::regclass"
                file = "SELECT pg_relation_filenode('typed')"
                before = connection.exec_driver_sql(file).scalar_one()
                kinds = [connection.exec_driver_sql(f"{printed} AND attname = 'a'").scalar_one()]
                savepoint = connection.begin_nested()
                try:
                    connection.exec_driver_sql(f"ALTER TABLE typed ALTER a TYPE {new}")
                except Exception:  # noqa: BLE001 - no cast: the migration fails anyway
                    savepoint.rollback()
                else:
                    kinds.append(connection.exec_driver_sql(f"{printed} AND attname = 'a'").scalar_one())
                    rewritten = connection.exec_driver_sql(file).scalar_one() != before
                    # A rule may be stricter than PostgreSQL where that depends on a setting, but never laxer.
                    judged_so = rewrites(printed_type(kinds[0]), printed_type(kinds[1]))
                    assert judged_so or not rewritten, kinds
                    if {"timestamp without time zone", "timestamp with time zone"} & {*kinds} == set():
                        assert judged_so is rewritten, kinds
                connection.exec_driver_sql("DROP TABLE typed")
        connection.rollback()


ENV = """
from alembic import context

assert context.is_offline_mode(), "the doctor renders only"
context.configure(url="postgresql://", literal_binds=True, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
"""
REVISIONS = {
    "one": "op.create_table('owners', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.String(20)))",
    "two": "op.create_index('owners_by_name', 'owners', ['name'])",
    "three": """with op.get_context().autocommit_block():
        op.create_index('owners_by_name2', 'owners', ['name'], postgresql_concurrently=True)
    op.add_column('owners', sa.Column('age', sa.Integer, nullable=False))""",
    "four": "op.get_bind().execute(sa.text('SELECT 1')).scalar_one()",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("alembic")
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(ENV)
    before = None
    for name, body in REVISIONS.items():
        (folder / "versions" / f"{name}.py").write_text(
            dedent(f"""
            import sqlalchemy as sa
            from alembic import op
            revision, down_revision = {name!r}, {before!r}

            def upgrade():
                {body.replace(chr(10), chr(10) + " " * 12)}
            """)
        )
        before = name
    return configured(folder)


def configured(folder: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    return config


@pytest.fixture
def owners(database: Database) -> Iterator[None]:
    """The database at the revision `one`."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE owners (id serial PRIMARY KEY, name varchar(20))")
        connection.exec_driver_sql(
            "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('one')"
        )
    yield
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE owners, alembic_version")


@pytest.mark.usefixtures("owners")
def test_the_migrations_that_the_database_lacks_are_judged(database: Database, config: Config) -> None:
    report = examine_migrations(database, config, "three")
    assert [(each.code, each.object, each.severity.value) for each in report] == [
        ("migration-not-null-without-default", "three: public.owners.age", "error"),
        ("migration-index-blocks-writes", "two: public.owners.owners_by_name", "note"),
        ("migration-no-lock-timeout", "two: public.owners", "note"),
    ]
    assert report.skipped == ()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'two'")
    codes = [each.code for each in examine_migrations(database, config, "three", skip=["migration-no-lock-timeout"])]
    assert codes == ["migration-not-null-without-default"]


def test_tables_that_the_migrations_create_are_empty(database: Database, config: Config) -> None:
    report = examine_migrations(database, config, "three")
    assert report.findings == ()


def test_a_migration_that_needs_the_database_is_named(database: Database, config: Config) -> None:
    report = examine_migrations(database, config)
    assert [each.code for each in report.skipped] == ["migration"]
    assert "can't be rendered offline" in report.skipped[0].reason


def test_an_unknown_revision_or_code_is_refused(database: Database, config: Config) -> None:
    with pytest.raises(MisuseError, match=r"Alembic refuses revision 'nothing'"):
        examine_migrations(database, config, "nothing")
    with pytest.raises(MisuseError, match=r"only: there is no check 'indexes'. There are: migration-index"):
        examine_migrations(database, config, only=["indexes"])
    with database.engine.connect() as connection, pytest.raises(MisuseError, match=r"can't be parsed"):
        examine_statements(connection, "CREATE INDEXX")


@pytest.mark.parametrize("missing", ["postgast", "alembic.runtime.migration"])
def test_a_missing_extra_is_named(
    database: Database, config: Config, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MisuseError, match=r"pip install 'dotmac-database-toolkit\[doctor\]'"):
        examine_migrations(database, config)


def test_sqlite_has_no_such_locks(tmp_path: Path, config: Config) -> None:
    database = create_database(f"sqlite:///{tmp_path}/a.db")
    report = examine_migrations(database, config, "three")
    assert report.findings == ()
    assert [each.reason for each in report.skipped] == ["the rules are those of PostgreSQL's locks."]
    database.dispose()
