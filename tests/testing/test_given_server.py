"""A project whose environment names the PostgreSQL server: its databases are made there, and none stays there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
import pytest

from dotmac_database_pytest import server
from dotmac_database_pytest.settings import VARIABLE

from .conftest import Run

pytest_plugins = ("pytester",)

MODELS = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from dotmac_database import TenantMixin

    class Base(DeclarativeBase):
        pass

    class Note(TenantMixin, Base):
        __tablename__ = "given_notes"
        id: Mapped[int] = mapped_column(primary_key=True)
"""

TESTS = """
    from pathlib import Path

    import psycopg
    import pytest
    from dotmac_database import create_repository
    from project_models import Note
    from sqlalchemy import text

    def seen(name, role):
        with Path("seen.txt").open("a") as file:
            print(name, role, file=file)

    @pytest.mark.parametrize("turn", range(2))
    def test_rows_of_one_test_are_gone_in_the_next(dotmac_session, turn):
        notes = create_repository(dotmac_session, Note, "a")
        assert notes.count() == 0
        notes.create({})
        seen(*dotmac_session.execute(text("SELECT current_database(), current_user")).one())

    def test_a_database_of_its_own(dotmac_postgres):
        with psycopg.connect(dotmac_postgres) as connection:
            seen(*connection.execute("SELECT current_database(), current_user").fetchone())
"""

INI = """
    dotmac_metadata = project_models:Base
    dotmac_database = postgresql
"""


@pytest.fixture
def given(run: Run, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server, in the environment of the project's tests."""
    monkeypatch.setenv(VARIABLE, postgres_url)
    return postgres_url


def remaining(url: str, names: set[str]) -> list[tuple[str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [list(names)]).fetchall()


def test_tests_use_copies_on_the_given_server_in_its_role(run: Run, given: str, pytester: pytest.Pytester) -> None:
    run(TESTS, models=MODELS, ini=INI).assert_outcomes(passed=3)
    names, roles = zip(*(line.split() for line in Path("seen.txt").read_text().splitlines()), strict=True)
    with psycopg.connect(given) as connection:
        assert set(roles) == {connection.info.user}
        assert connection.info.dbname not in names
    assert len(set(names)) == 2  # one for the tests whose rows are rolled back
    assert remaining(given, {*names}) == []


def test_a_schema_that_fails_leaves_no_database(run: Run, given: str, pytester: pytest.Pytester) -> None:
    conftest = """
        from pathlib import Path

        def fails(connection):
            Path("seen.txt").write_text(connection.exec_driver_sql("SELECT current_database()").scalar_one())
            raise LookupError("the migration failed")

        @pytest.fixture(scope="session")
        def dotmac_create_schema():
            return fails
    """
    done = run("def test_it(dotmac_postgres): ...", models=MODELS, ini=INI, conftest=conftest)
    done.assert_outcomes(errors=1)
    assert "LookupError: the migration failed" in done.stdout.str()
    name = Path("seen.txt").read_text()
    assert name.endswith("_template")
    assert remaining(given, {name}) == []


def test_a_program_that_fails_says_why_and_leaves_no_folder() -> None:
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        folder = Path(made)
        folder.chmod(0o755)  # for the server's account
        (folder / "initdb").write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
        (folder / "initdb").chmod(0o755)
        patch.setattr(server, "programs", lambda: folder)
        patch.setattr(tempfile, "mkdtemp", lambda **_: str(folder / "new"))
        (folder / "new").mkdir()
        with pytest.raises(server.PostgresServerError, match="initdb failed:\nno space left"):
            server.PostgresServer()
        assert not (folder / "new").exists()
