"""The pytest plugin in a project of its own: whatever a test commits is gone before the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

import dotmac_database
from tests.matrices import sampled

MODELS = """
    from sqlalchemy import ForeignKey
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    class Base(DeclarativeBase):
        pass

    class Box(Base):
        __tablename__ = "a_boxes"
        id: Mapped[int] = mapped_column(primary_key=True)
        shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))

    class Shelf(Base):
        __tablename__ = "shelves"
        id: Mapped[int] = mapped_column(primary_key=True)
"""

TESTS = """
    import pytest
    from dotmac_database import DuplicateEntityError, create_async_repository, create_repository
    from models import Box, Shelf

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

CONFTEST = """
    import pytest

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


def project(folder: Path, url: str | None, *, named: bool) -> subprocess.CompletedProcess[str]:
    """Run the tests of a project whose ``conftest.py`` says where its database is."""
    conftest = textwrap.dedent(CONFTEST)
    if url is not None:
        conftest += f"\n@pytest.fixture(scope='session')\ndef dotmac_database_url():\n    return {url!r}\n"
    if named:
        conftest += "\nfrom models import Base\n@pytest.fixture(scope='session')\ndef dotmac_metadata():\n"
        conftest += "    return Base.metadata\n"
    (folder / "conftest.py").write_text(conftest)
    (folder / "models.py").write_text(textwrap.dedent(MODELS))
    (folder / "test_boxes.py").write_text(textwrap.dedent(TESTS))
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, str(folder)], cwd=folder, capture_output=True, text=True, check=False, env=clean_environment()
    )


def clean_environment() -> dict[str, str]:
    """This run's, without what steers this run's pytest, and with the toolkit of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return {**kept, "PYTHONPATH": str(Path(dotmac_database.__file__).parents[1])}


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    assert "fails once" in done.stdout


def test_on_the_projects_database(tmp_path: Path, database_url: str) -> None:
    check(project(tmp_path, database_url, named=False))


@pytest.mark.parametrize(("url", "named"), [(None, False), ("sqlite://", True)])
def test_in_memory_and_with_nothing_said(tmp_path: Path, url: str | None, named: bool) -> None:
    check(project(tmp_path, url, named=named))


LEAKS = """
    from dotmac_database import TenantMixin
    from sqlalchemy import text
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
    import pytest

    class Base(DeclarativeBase): pass

    class Secret(TenantMixin, Base):
        __tablename__ = "secrets"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    @pytest.fixture(scope="session")
    def dotmac_metadata():
        return Base.metadata

    def test_guarded(dotmac_leaks):
        assert dotmac_leaks() == []

    class TestUnguarded:
        @pytest.fixture
        def dotmac_guarded_sessions(self, dotmac_engine):
            return sessionmaker(dotmac_engine)

        def test_named(self, dotmac_leaks):
            assert [leak.attack for leak in dotmac_leaks()] == ["not guarded"]
"""


def test_the_leak_kit_is_a_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_leaks.py").write_text(textwrap.dedent(LEAKS))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


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

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

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


@pytest.mark.parametrize("role", sampled(["application", "superuser", "sqlite"], 2))
def test_with_row_level_security(tmp_path: Path, role: str, request: pytest.FixtureRequest) -> None:
    """The policies hold for a role that they bind; a superuser is reported, and so is the owner."""
    url, leaks = f"sqlite:///{tmp_path}/x.db", []
    if role != "sqlite":
        url = request.getfixturevalue("postgres_url")
        leaks = ["role postgres" if role == "superuser" else "role fixture_app"]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS rls_folders, rls_secrets")
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'fixture_app'").fetchone() is None:
                connection.execute("CREATE ROLE fixture_app LOGIN")
            connection.execute("GRANT ALL ON SCHEMA public TO fixture_app")
        url = url if role == "superuser" else url.replace("postgres@", "fixture_app@")
    given = f"URL, LEAKS, BINDS = {url!r}, {leaks!r}, {role == 'application'!r}\n"
    (tmp_path / "test_policies.py").write_text(given + textwrap.dedent(POLICIES))
    done = run_pytest(tmp_path)
    if role != "sqlite":
        with psycopg.connect(request.getfixturevalue("postgres_url"), autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS rls_folders, rls_secrets")
            connection.execute("DROP OWNED BY fixture_app; DROP ROLE fixture_app")
    assert ("7 passed" if role == "superuser" else "6 passed, 1 skipped") in done.stdout, done.stdout + done.stderr


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    return subprocess.run(
        [*command, str(folder)], cwd=folder, capture_output=True, text=True, check=False, env=clean_environment()
    )
