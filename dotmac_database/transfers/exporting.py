"""`export_tenant`: all of a tenant's rows as files, which are the state of one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, Engine

from ..engines import Database
from ..errors import TenantIsolationError, ValidationError
from ..tenancy import RowLevelSecurity
from ..types import utc_now
from .files import checksum, current_content, pack, part_name, sync_folder, write_whole
from .holdings import Holding
from .manifest import (
    FORMAT,
    HEAD,
    MANIFEST,
    ExportedTable,
    Head,
    Manifest,
    Part,
    exported,
    now_as_text,
    read_head,
    tenant_as_text,
    write_head,
)
from .progress import OnProgress, TransferProgress
from .target import Metadata, Target, open_target, translating

PART_BYTES = 4 * 1024 * 1024
"""A part ends when its lines have this size, so that big rows don't fill the memory."""


def export_tenant(
    database: Database | Engine,
    metadata: Metadata,
    tenant_id: object,
    folder: str | Path,
    *,
    rls: RowLevelSecurity | None = None,
    compress: bool = False,
    part_rows: int = 5_000,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """Write all rows of a tenant into a folder: a folder of NDJSON files for each table, and ``manifest.json``.

    ``metadata`` are the models' metadata, one or several. ``rls`` is needed if its policies have a secret.
    ``compress``: the files are gzipped. A file has at most ``part_rows`` rows and some 4 MB, and one is in memory at a
    time. ``on_progress`` is called after each file. The values are in the form in which the database stores them.
    Soft-deleted rows, history, outbox messages and idempotency keys are included, and columns that no model has.

    All rows are read in one transaction, with one statement for each table, so they are the state of one moment. An
    export that was killed is resumed by the same call: it reads all rows again, in a new transaction, since rows can
    have changed in the meantime. A file whose rows are still the same stays; another one is written anew. So a
    finished export is the state of one moment too, the one of its last run. The manifest is written last, and a
    finished export is never written again.

    It is sync; from asyncio call it in a thread. Raises `ValidationError` if the folder has a finished export, one of
    another tenant or with other options, or other files; `PermissionDeniedError` if row-level security would hide rows;
    and `MisuseError` for metadata without tenants' tables. The database is only read.
    """
    if part_rows < 1:
        raise ValidationError("part_rows is at least 1.", field="part_rows")
    target = open_target(database, metadata, tenant_id, rls)
    path = Path(folder)
    head = _begin(path, target, compressed=compress, part_rows=part_rows)
    exporter = _Exporter(target, path, head, on_progress)
    with translating(), target.reading() as connection:
        snapshot_at = now_as_text(utc_now())
        tables = tuple(exporter.tables(connection))
        server = target.rows.server(connection)
    exporter.remove_others(tables)
    manifest = Manifest(
        head=head,
        toolkit=version("dotmac-database-toolkit"),
        server=server,
        snapshot=_snapshot(target, head),
        snapshot_at=snapshot_at,
        finished_at=now_as_text(utc_now()),
        tables=tables,
        left_out=_left_out(target),
    )
    manifest.write(path)
    sync_folder(path)
    return manifest


def _left_out(target: Target) -> dict[str, str]:
    """The tables that are not exported, by name, with the reasons."""
    shared = {table.fullname: why for table, why in target.holdings.shared.items()}
    return dict(sorted({**shared, **target.absent}.items()))


def _begin(folder: Path, target: Target, *, compressed: bool, part_rows: int) -> Head:
    """Begin an export in the folder, or resume the one that is there."""
    head = read_head(folder)
    dialect = target.engine.dialect.name
    if head is None:
        if folder.exists() and (not folder.is_dir() or any(each.name != f"{HEAD}.tmp" for each in folder.iterdir())):
            raise ValidationError(f"{folder} has other files: an export needs a folder of its own.", field="folder")
        tenant, kind = tenant_as_text(target.tenant)
        started = now_as_text(utc_now())
        head = Head(FORMAT, str(uuid4()), tenant, kind, dialect, compressed, part_rows, started, runs=0)
    elif not head.is_of(target.tenant):
        raise TenantIsolationError(f"{folder} has the export of another tenant.")
    elif (folder / MANIFEST).exists():
        raise ValidationError(
            f"{folder} has a finished export. Choose another folder, or delete this one.", field="folder"
        )
    elif (head.dialect, head.compressed, head.part_rows, head.format) != (dialect, compressed, part_rows, FORMAT):
        raise ValidationError(
            f"{folder} has an export with other options: resume it with the same ones.", field="folder"
        )
    head = replace(head, runs=head.runs + 1)
    write_head(folder, head)
    return head


def _snapshot(target: Target, head: Head) -> str:
    if head.runs == 1:
        return target.rows.snapshot
    return (
        f"{target.rows.snapshot} The export took {head.runs} runs; the last one has read all rows again, and compared "
        "the files of the earlier runs with them."
    )


@dataclass(slots=True)
class _Exporter:
    target: Target
    folder: Path
    head: Head
    on_progress: OnProgress | None
    rows: int = 0

    def tables(self, connection: Connection) -> Iterator[ExportedTable]:
        for position, holding in enumerate(self.target.tables, start=1):
            parts = tuple(self._parts(connection, holding, position))
            columns = tuple(exported(each) for each in self.target.columns[holding.table])
            rows = sum(each.rows for each in parts)
            for part in parts[:1]:
                sync_folder((self.folder / part.file).parent)
            yield ExportedTable(holding.name, holding.belonging.value, columns, rows, parts)

    def _parts(self, connection: Connection, holding: Holding, position: int) -> Iterator[Part]:
        columns, key = self.target.columns[holding.table], self.target.key(holding)
        condition = self.target.condition(holding)
        lines = self.target.rows.lines(connection, holding.table, columns, condition, key)
        for number, (count, content) in enumerate(in_parts(lines, self.head.part_rows), start=1):
            name = part_name(position, holding.name, number, compressed=self.head.compressed)
            if current_content(self.folder / name, len(content)) != content:
                write_whole(self.folder / name, pack(content, compressed=self.head.compressed))
            self.rows += count
            if self.on_progress is not None:
                self.on_progress(TransferProgress("export", holding.name, self.rows, None))
            yield Part(name, count, len(content), checksum(content))

    def remove_others(self, tables: tuple[ExportedTable, ...]) -> None:
        """Remove the files of earlier runs whose rows are there no more."""
        names = {self.folder / part.file for table in tables for part in table.parts}
        for pattern in ("*/*.ndjson", "*/*.ndjson.gz", "*/*.tmp", "*.tmp"):
            for file in self.folder.glob(pattern):
                if file not in names:
                    file.unlink()


def in_parts(lines: Iterator[str], part_rows: int) -> Iterator[tuple[int, bytes]]:
    """The lines in parts, each with its number of lines. The same lines give the same parts."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line.encode())
        size += len(part[-1]) + 1
        if len(part) >= part_rows or size >= PART_BYTES:
            yield len(part), b"\n".join((*part, b""))
            part, size = [], 0
    if part:
        yield len(part), b"\n".join((*part, b""))
