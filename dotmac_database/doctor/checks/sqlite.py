"""Checks of an SQLite connection and its file."""

from __future__ import annotations

from collections.abc import Iterator

from ..examination import Examination
from ..findings import Severity
from ..registry import SQLITE, Symptom, Unchecked, check

_PRAGMA = "https://www.sqlite.org/pragma.html"


@check("foreign-keys-off", Severity.ERROR, on=SQLITE, source=f"{_PRAGMA}#pragma_foreign_keys")
def foreign_keys_off(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The connection does not enforce foreign keys."""
    if not _pragma(examination, "foreign_keys"):
        yield Symptom(
            "connection",
            "SQLite enforces no foreign key on this connection, so that rows without a parent can be written.",
            ["PRAGMA foreign_keys = ON"],
            "PRAGMA foreign_keys = ON on each new connection, as create_database does.",
        )


@check("journal-not-wal", Severity.WARNING, on=SQLITE, source="https://www.sqlite.org/wal.html")
def journal_not_wal(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The journal of the file is not the write-ahead log."""
    mode = str(_pragma(examination, "journal_mode"))
    if mode not in ("wal", "memory"):
        yield Symptom(
            "database",
            f"With the journal mode {mode}, a writer waits for all readers, and they for it.",
            ["PRAGMA journal_mode = WAL"],
        )


@check("no-busy-timeout", Severity.WARNING, on=SQLITE, source=f"{_PRAGMA}#pragma_busy_timeout")
def no_busy_timeout(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The connection does not wait for a lock of another one."""
    if not _pragma(examination, "busy_timeout"):
        yield Symptom(
            "connection",
            "A statement that meets a lock fails at once with 'database is locked'.",
            ["PRAGMA busy_timeout = 5000"],
            "PRAGMA busy_timeout = 5000 on each new connection, as create_database does.",
        )


@check("integrity", Severity.ERROR, on=SQLITE, source=f"{_PRAGMA}#pragma_integrity_check")
def integrity(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The file is damaged, or a row breaks a constraint."""
    for row in examination.connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if row[0] != "ok":
            yield Symptom(
                "database",
                f"SQLite's integrity check reports: {row[0]}.",
                remedy="REINDEX if it names an index; else restore a backup, or .recover by the sqlite3 program.",
            )


@check("row-without-parent", Severity.ERROR, on=SQLITE, source=f"{_PRAGMA}#pragma_foreign_key_check")
def row_without_parent(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """Rows whose foreign key references no row, written while foreign keys were off."""
    lost: dict[tuple[str, str], int] = {}
    for row in examination.connection.exec_driver_sql("PRAGMA foreign_key_check"):
        lost[row[0], row[2]] = lost.get((row[0], row[2]), 0) + 1
    for (table, parent), rows in lost.items():
        yield Symptom(
            f"main.{table}",
            f"{rows} rows reference a row of {parent} that does not exist.",
            remedy=f"Look at them by PRAGMA foreign_key_check({table}); insert their parents, or delete them.",
        )


def _pragma(examination: Examination, name: str) -> object:
    return examination.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
