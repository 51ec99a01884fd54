"""A process that is killed at a chosen point, and started again. Nothing here depends on time."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from dotmac_database import Database, ValidationError, create_database
from dotmac_database.transfers import Manifest, delete_tenant, export_tenant, import_tenant, verify_export

from . import models


def killed_in(database: Database, work: Callable[[Database], object], number: int, *, at: str) -> bool:
    """Do the work in a process that kills itself. Returns whether it did, or has done its work before.

    ``at``: before it gives a file its name (``rename``), before it commits a transaction (``commit``), or after it has
    used a connection (``checkin``). ``number``: at which of these.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which this process does not need
        pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return os.WIFSIGNALED(status)
    try:
        seen = 0

        def count(*_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        own = create_database(database.url)
        if at == "rename":
            replace = Path.replace

            def counted(self: Path, target: Any) -> Path:
                count()
                return replace(self, target)

            Path.replace = counted  # type: ignore[method-assign]  # this process ends soon
        else:
            event.listen(own.engine, at, count)
        work(own)
    except BaseException:  # noqa: BLE001 - this process must not go on with the tests
        os._exit(1)
    os._exit(0)


def content(folder: Path) -> list[tuple[str, str]]:
    return [(part.file, part.sha256) for each in Manifest.read(folder).tables for part in each.parts]


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.matrix), 40])
def test_an_export_that_was_killed_is_resumed(source: Database, tmp_path: Path, number: int) -> None:
    plain, folder = tmp_path / "plain", tmp_path / "killed"
    export_tenant(source, models.METADATA, "ours", plain, part_rows=2)
    for each in (number, min(number, 3)):
        assert killed_in(
            source, lambda own: export_tenant(own, models.METADATA, "ours", folder, part_rows=2), each, at="rename"
        )
        with pytest.raises(ValidationError, match="not finished" if number > 1 else "no export"):
            verify_export(folder)
    manifest = export_tenant(source, models.METADATA, "ours", folder, part_rows=2)
    assert manifest.head.runs == (3 if number > 1 else 1)
    assert content(folder) == content(plain)
    assert ("earlier runs" in manifest.snapshot) is (number > 1)
    assert not list(folder.rglob("*.tmp"))
    verify_export(folder)


def test_a_resumed_export_is_the_state_of_its_last_run(copy: Database, tmp_path: Path) -> None:
    """Rows that were changed, deleted and added between two runs, also in the files that were there."""
    folder = tmp_path / "killed"
    assert killed_in(
        copy, lambda own: export_tenant(own, models.METADATA, "ours", folder, part_rows=1), 60, at="rename"
    )
    written = {each: each.stat().st_mtime_ns for each in folder.rglob("*.ndjson")}
    with copy.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE accounts SET title = 'changed' WHERE id = 'ours'")
        connection.exec_driver_sql("DELETE FROM a_fees WHERE id = 100")
        connection.exec_driver_sql("INSERT INTO categories (id, tenant_id) VALUES (50, 'ours')")
    export_tenant(copy, models.METADATA, "ours", folder, part_rows=1)
    export_tenant(copy, models.METADATA, "ours", tmp_path / "plain", part_rows=1)
    verify_export(folder)  # the files are those of the manifest
    assert content(folder) == content(tmp_path / "plain")
    same = [each for each, at in written.items() if each.exists() and each.stat().st_mtime_ns == at]
    assert len(same) > len(written) // 2  # what is the same was not written again
    files_there = {str(each.relative_to(folder)) for each in folder.rglob("*.ndjson")}
    assert files_there == {file for file, _ in content(folder)}


@pytest.mark.parametrize(("number", "at"), [(2, "commit"), pytest.param(30, "checkin", marks=pytest.mark.matrix)])
def test_an_import_that_was_killed_is_resumed(
    source: Database, empty: Database, tmp_path: Path, number: int, at: str
) -> None:
    folder = tmp_path / "export"
    export_tenant(source, models.METADATA, "ours", folder, part_rows=2)
    for each in (number, 5):
        assert killed_in(empty, lambda own: import_tenant(own, models.METADATA, "ours", folder), each, at=at)
    report = import_tenant(empty, models.METADATA, "ours", folder)
    assert report.resumed or number == 2
    export_tenant(empty, models.METADATA, "ours", tmp_path / "again", part_rows=2)
    assert content(tmp_path / "again") == content(folder)
    with empty.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM dotmac_transfers").scalar_one() == 0


def test_rows_that_came_while_an_import_was_interrupted_are_refused(
    source: Database, empty: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    export_tenant(source, models.METADATA, "ours", folder, part_rows=2)
    assert killed_in(empty, lambda own: import_tenant(own, models.METADATA, "ours", folder), 40, at="commit")
    with empty.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO tags (tenant_id, word) VALUES ('ours', 'new')")
    with pytest.raises(ValidationError, match="tags, and the interrupted import has written"):
        import_tenant(empty, models.METADATA, "ours", folder)
    delete_tenant(empty, models.METADATA, "ours")
    assert not import_tenant(empty, models.METADATA, "ours", folder).resumed


@pytest.mark.parametrize("number", [25])
def test_a_deletion_that_was_killed_is_finished_by_the_next(copy: Database, number: int) -> None:
    assert killed_in(copy, lambda own: delete_tenant(own, models.METADATA, "ours", batch_rows=1), number, at="commit")
    delete_tenant(copy, models.METADATA, "ours", batch_rows=2)
    report = delete_tenant(copy, models.METADATA, "ours", dry_run=True)
    assert not any(report.rows.values())


def test_other_options_do_not_resume(source: Database, tmp_path: Path) -> None:
    assert killed_in(source, lambda own: export_tenant(own, models.METADATA, "ours", tmp_path / "a"), 9, at="rename")
    with pytest.raises(ValidationError, match="other options"):
        export_tenant(source, models.METADATA, "ours", tmp_path / "a", part_rows=3)
