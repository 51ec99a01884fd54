"""``dotmac-db tenants export``, ``import`` and ``delete``."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from dotmac_database import Database
from tests.cli.conftest import Run, run

from . import models
from .conftest import new_database

__all__ = ["run"]

APP = "tests.transfers.models:Base"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DOTMAC_APP", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def address(database: Database) -> str:
    return make_url(database.url).render_as_string(hide_password=False)


def test_a_tenant_moves(run: Run, copy: Database, tmp_path: Path) -> None:
    folder, target = str(tmp_path / "export"), ("--app", APP, "--url", address(copy))
    ended = run("tenants", "export", "ours", folder, "--gzip", *target, "--json")
    assert ended.code == 0, ended.err
    assert ended.document["rows"]["tags"] == 3
    assert set(ended.document["left_out"]) == {"countries", "pointers"}
    assert run("tenants", "export", "ours", folder, *target).code == 2
    with copy.engine.connect() as connection:
        before = models.every_row(connection)
    ended = run("tenants", "delete", "ours", *target)
    assert (ended.code, "--yes" in ended.err) == (2, True)
    ended = run("tenants", "delete", "ours", "--dry-run", *target, "--json")
    assert (ended.code, ended.document["deleted"], ended.document["rows"]["tags"]) == (0, False, 3)
    with copy.engine.connect() as connection:
        assert models.every_row(connection) == before
    ended = run("tenants", "delete", "ours", "--yes", *target)
    assert ended.code == 0, ended.err
    assert "rows deleted." in ended.out
    assert "lines_history" in ended.out
    ended = run("tenants", "import", "ours", folder, "--dry-run", *target, "--json")
    assert (ended.code, ended.document["imported"]) == (0, False)
    ended = run("tenants", "import", "theirs", folder, "--yes", *target)
    assert (ended.code, "another tenant" in ended.err) == (4, True)
    ended = run("tenants", "import", "ours", folder, "--yes", *target)
    assert ended.code == 0, ended.err
    assert "the same as exported" in ended.out
    with copy.engine.connect() as connection:
        assert models.every_row(connection) == before
        connection.exec_driver_sql("INSERT INTO pointers (id, tag_id) VALUES (1, 100)")
        connection.commit()
    assert run("tenants", "delete", "ours", "--dry-run", *target).code == 1
    ended = run("tenants", "delete", "ours", "--yes", *target)
    assert (ended.code, "1 row of pointers" in ended.err) == (4, True)


@pytest.mark.parametrize(
    ("name", "end"),
    [("our", "our has no rows in any table; did you mean 'ours'?"), ("zzz", "zzz has no rows in any table.")],
)
def test_a_mistyped_tenant_is_no_success(run: Run, source: Database, tmp_path: Path, name: str, end: str) -> None:
    folder, target = tmp_path / "export", ("--app", APP, "--url", address(source))
    ended = run("tenants", "export", name, str(folder), *target)
    assert (ended.code, ended.out, ended.err) == (4, "", f"{end}\n")
    assert not folder.exists()
    ended = run("tenants", "stats", name, *target)
    assert (ended.code, end in ended.err) == (1, True)
    assert run("tenants", "export", name, str(folder), "--allow-empty", *target).code == 0
    assert (folder / "manifest.json").exists()
    said = end.replace(" in any table", ": nothing to delete")
    for words in ((), ("--yes",), ("--dry-run",)):  # it is also how a deletion that is finished is repeated
        ended = run("tenants", "delete", name, *words, *target)
        assert (ended.code, ended.err) == (0, f"{said}\n"), words


def test_numbers_and_refusals_are_whole_sentences(run: Run, copy: Database, tmp_path: Path) -> None:
    folder, target = str(tmp_path / "export"), ("--app", APP, "--url", address(copy))
    assert run("tenants", "export", "ours", folder, *target).code == 0
    ended = run("tenants", "export", "ours", folder, *target)
    assert ended.err == f"{folder} has a finished export. Choose another folder, or delete this one.\n"
    assert "of ours would be deleted from" in run("tenants", "delete", "ours", "--dry-run", *target).err


def test_an_import_needs_tables(
    run: Run, exported: Path, dialect: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with new_database(dialect, request, tmp_path) as database:
        words = ("tenants", "import", "ours", str(exported), "--yes", "--app", APP, "--url", address(database))
        ended = run(*words)
        assert ended.code == (3 if dialect == "sqlite" else 2)
        assert "tables first, by a migration or create_all." in ended.err
