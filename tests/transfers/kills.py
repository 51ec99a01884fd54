"""``kill -9`` of an export and of an import, again and again, and what they need of time and memory.

``python -m tests.transfers.kills [ROWS [KILLS]]`` prints the figures. Ten tables of a tenant, with a reference to
itself and a cycle, are exported from one database of PostgreSQL and imported into another one. Each process is killed
at random moments, and started again. In the end both databases must have the same rows.
"""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import Column, ForeignKey, Identity, Index, Integer, LargeBinary, MetaData, Numeric, String, Table, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from dotmac_database import UTCDateTime, create_database
from dotmac_database.transfers import Manifest, delete_tenant, export_tenant, import_tenant
from tests.postgres import OwnServer

ROOT = Path(__file__).parent.parent.parent
TABLES = 10
METADATA = MetaData()


def table(number: int) -> Table:
    """Each table references the one before it; the first one itself, and the last two each other."""
    references = []
    if number:
        references.append(Column("parent_id", ForeignKey(f"big_{number - 1}.id"), nullable=False))
    else:
        references.append(Column("self_id", ForeignKey("big_0.id")))
    if number == TABLES - 2:
        references.append(Column("child_id", ForeignKey(f"big_{number + 1}.id", use_alter=True, name="fk_cycle")))
    made = Table(
        f"big_{number}",
        METADATA,
        Column("id", Integer, Identity(always=False), primary_key=True),
        Column("tenant_id", String(20), nullable=False),
        *references,
        Column("amount", Numeric(12, 4)),
        Column("words", String(100)),
        Column("at", UTCDateTime()),
        Column("document", JSONB()),
        Column("token", Uuid()),
        Column("bytes", LargeBinary()),
    )
    Index(f"ix_big_{number}", made.c.tenant_id, made.c.id)
    for key in references:  # without an index, each deleted row would cost a scan of the table that references it
        Index(f"ix_big_{number}_{key.name}", key)
    return made


BIG = [table(number) for number in range(TABLES)]


def create(url: str, rows: int = 0) -> None:
    """Create the tables, and fill them: ``rows`` of one tenant in all of them, and a tenth of them of another."""
    database = create_database(url)
    METADATA.create_all(database.engine)
    each = rows // TABLES
    with database.engine.begin() as connection:
        for number in range(TABLES) if rows else ():
            reference = "i" if number else "CASE WHEN mod(i, 1000) = 500 THEN i + 1 END"
            extra, value = (", child_id", ", NULL::int") if number == TABLES - 2 else ("", "")
            connection.exec_driver_sql(
                f"INSERT INTO big_{number} (id, tenant_id, {'parent_id' if number else 'self_id'}, amount, words, at, "
                f"document, token, bytes{extra}) SELECT i, CASE WHEN i > {each} THEN 'other' ELSE 'ours' END, "
                f"{reference}, "
                "i / 7.0, 'Wörter und Zahlen ' || i, '2026-01-01'::timestamptz + i * interval '1.234567 s', "
                "jsonb_build_object('a', i, 'b', array[i, i + 1]), md5(i::text)::uuid, "
                f"decode(md5(i::text), 'hex'){value} "
                f"FROM generate_series(1, {each + each // 10 + 1}) AS i"
            )
        if rows:
            connection.exec_driver_sql(f"UPDATE big_{TABLES - 2} SET child_id = id WHERE mod(id, 500) = 0")
    database.dispose()


def child(action: str, url: str, folder: str) -> None:
    """The process that is killed. It prints its seconds and the most memory that it has had, in KB."""
    database = create_database(url)
    start = time.perf_counter()
    if action == "export":
        export_tenant(database, METADATA, "ours", folder)
    elif action == "import":
        import_tenant(database, METADATA, "ours", folder)
    else:
        delete_tenant(database, METADATA, "ours")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{time.perf_counter() - start:.1f} {peak}")  # noqa: T201


def start(action: str, url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.transfers.kills", "child", action, url, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run(action: str, url: str, folder: Path) -> tuple[float, int]:
    """Run a process to its end. Returns its seconds, and its memory in KB."""
    process = start(action, url, folder)
    output, _ = process.communicate()
    assert process.returncode == 0, action
    seconds, peak = output.split()
    return float(seconds), int(peak)


def run_with_kills(action: str, url: str, folder: Path, kills: int, seconds: float, seed: int) -> int:
    """Kill a process at random moments and start it again, then run it to its end. Returns the number of kills."""
    moments = random.Random(seed)
    killed = 0
    for _ in range(kills):
        process = start(action, url, folder)
        try:
            process.wait(1 + moments.random() * seconds * 0.6)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        if process.returncode == 0:
            return killed
    run(action, url, folder)
    return killed


def content(folder: Path) -> list[tuple[str, str]]:
    """The checksums of an export."""
    return [(part.file, part.sha256) for each in Manifest.read(folder).tables for part in each.parts]


def main(rows: int, kills: int, seed: int) -> None:
    server = OwnServer().start()
    database = create_database(server.url("postgresql+psycopg"))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in ("source", "small", "plain", "killed"):
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    database.dispose()
    urls = {name: server.url("postgresql+psycopg", name) for name in ("source", "small", "plain", "killed")}
    try:
        create(urls["source"], rows)
        create(urls["small"], rows // 10)
        create(urls["plain"])
        create(urls["killed"])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            print(f"seed {seed}")  # noqa: T201
            seconds, peak = run("export", urls["small"], folder / "small")
            print(f"export of a tenth: {seconds:.1f} s, {peak} KB")  # noqa: T201
            seconds, peak = run("export", urls["source"], folder / "plain")
            manifest = Manifest.read(folder / "plain")
            print(f"export: {seconds:.1f} s, {peak} KB, {manifest.rows} rows, {manifest.size} bytes")  # noqa: T201
            count = run_with_kills("export", urls["source"], folder / "killed", kills, seconds, seed)
            assert content(folder / "killed") == content(folder / "plain")
            print(f"export after {count} kills: {Manifest.read(folder / 'killed').head.runs} runs, the same rows")  # noqa: T201
            imported, peak = run("import", urls["plain"], folder / "plain")
            print(f"import: {imported:.1f} s, {peak} KB")  # noqa: T201
            count = run_with_kills("import", urls["killed"], folder / "killed", kills, imported, seed + 1)
            run("export", urls["killed"], folder / "again")
            assert content(folder / "again") == content(folder / "plain")
            print(f"import after {count} kills: the same rows")  # noqa: T201
            seconds, peak = run("delete", urls["killed"], folder)
            print(f"delete: {seconds:.1f} s, {peak} KB")  # noqa: T201
            run("export", urls["killed"], folder / "nothing")
            assert not content(folder / "nothing")
    finally:
        server.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        numbers = [int(each) for each in sys.argv[1:]] + [1_000_000, 3, 1][len(sys.argv) - 1 :]
        main(*numbers)
