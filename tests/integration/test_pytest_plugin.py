"""The pytest plugin in a project of its own: whatever a test commits is gone before the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
    """This run's, without what steers this run's pytest."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}


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
