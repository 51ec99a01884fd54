"""What is checked of an export's files, and against a database before the first row of it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, Index, Table, UniqueConstraint

from ..dialects.stored_rows import StoredColumn
from ..errors import DuplicateEntityError, MisuseError, TenantIsolationError, ValidationError
from ..history.tables import history_of
from .files import checksum, read_part
from .holdings import Holding
from .manifest import ExportedTable, Manifest, Part
from .progress import OnProgress, TransferProgress
from .target import Target


def verify_export(folder: str | Path, *, on_progress: OnProgress | None = None) -> Manifest:
    """Check all files of an export against its manifest: counts, checksums, and the form of each line. No database.

    Raises `ValidationError` that names the file if one is missing, damaged or changed.
    """
    path = Path(folder)
    manifest = Manifest.read(path)
    rows = 0
    for table in manifest.tables:
        if table.rows != sum(part.rows for part in table.parts):
            raise ValidationError(f"The manifest's number of rows of {table.name} is not that of its parts.")
        for part in table.parts:
            check_lines(table, part, lines_of(path, part))
            rows += part.rows
            if on_progress is not None:
                on_progress(TransferProgress("check", table.name, rows, manifest.rows))
    return manifest


def lines_of(folder: Path, part: Part) -> list[str]:
    """The lines of a part. Raises `ValidationError` if they are not those of the manifest."""
    content = read_part(folder, part.file, part.size)
    if len(content) != part.size or checksum(content) != part.sha256:
        raise ValidationError(f"The file {part.file} is not the one that was exported: its checksum differs.")
    lines = content.decode().split("\n")
    if lines.pop() or len(lines) != part.rows:
        raise ValidationError(f"The file {part.file} has {len(lines)} lines, and the manifest says {part.rows}.")
    return lines


def check_lines(table: ExportedTable, part: Part, lines: Sequence[str]) -> None:
    """Raise `ValidationError` if a line is no JSON object with the columns of the table."""
    names = [each.name for each in table.columns]
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or [*row] != names:
            raise ValidationError(f"Line {number} of {part.file} is no row with the columns of {table.name}.")


def check_schema(target: Target, manifest: Manifest) -> None:
    """Raise `MisuseError` with each difference between the tables of the export and those of the database."""
    holdings = {each.name: each for each in target.holdings.by_table.values()}
    differences: list[str] = []
    for exported in manifest.tables:
        holding = holdings.get(exported.name)
        if holding is None:
            differences.append(f"the models have no table {exported.name} with tenants' rows")
            continue
        columns = {each.name: each for each in target.columns[holding.table]}
        if not columns:
            differences.append(f"the database has no table {exported.name}")
            continue
        names = {each.name for each in exported.columns}
        for each in exported.columns:
            there = columns.get(each.name)
            if there is None:
                differences.append(f"the database has no column {exported.name}.{each.name}")
            elif there.type != each.type:
                differences.append(f"{exported.name}.{each.name} is {there.type}, and was {each.type}")
            elif there.generated != each.generated:
                differences.append(f"{exported.name}.{each.name} is generated in one of the databases only")
        differences += [f"the export has no column {exported.name}.{name}" for name in columns if name not in names]
    if differences:
        raise MisuseError(f"The export does not fit this database: {'; '.join(differences)}.")


def ordered_columns(target: Target, holding: Holding, exported: ExportedTable) -> list[StoredColumn]:
    """The columns of the database's table in the order of the export."""
    columns = {each.name: each for each in target.columns[holding.table]}
    return [columns[each.name] for each in exported.columns]


def check_tenant(
    connection: Connection, target: Target, holding: Holding, exported: ExportedTable, lines: Sequence[str]
) -> None:
    """Raise `TenantIsolationError` if a row has another tenant in its tenant column."""
    owner = holding.owner.column
    if owner is None:
        return  # the insert itself compares the rows that it references
    columns = ordered_columns(target, holding, exported)
    examples = {json.dumps(json.loads(line)[owner.name]): line for line in lines}
    for line in examples.values():
        condition = lambda shown: target.holdings.condition(holding.table, target.tenant, shown)  # noqa: E731
        if not target.rows.matches(connection, columns, line, condition):
            raise refused(holding)


def refused(holding: Holding) -> TenantIsolationError:
    """The error for a row in an export that is not the tenant's."""
    return TenantIsolationError(f"The export has a row of {holding.name} that belongs to another tenant.")


def check_conflicts(connection: Connection, target: Target, holding: Holding, lines: Sequence[str]) -> None:
    """Raise `DuplicateEntityError` if the database has a row with the key, or another unique value, of a line."""
    for names in unique_keys(holding):
        columns = {each.name: each for each in target.columns[holding.table]}
        if not all(name in columns for name in names):
            continue
        count = target.rows.count_existing(connection, holding.table, [columns[name] for name in names], lines)
        if count:
            raise DuplicateEntityError(
                f"{count} rows of another tenant in {holding.name} have the same {', '.join(names)} as rows of the "
                "export. Nothing was written.",
                fields=tuple(names),
            )


def unique_keys(holding: Holding) -> Iterator[list[str]]:
    """The columns of the primary key and of each unique constraint, except those that contain the tenant column."""
    table, tenant = holding.table, holding.owner.column
    keys = [list(table.primary_key.columns)]
    keys += [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    keys += [list(each.columns) for each in table.indexes if each.unique and _is_plain(each)]
    for columns in sorted(keys, key=lambda each: [column.name for column in each]):
        if columns and not any(each is tenant for each in columns):
            yield [each.name for each in columns]


def _is_plain(index: Index) -> bool:
    """Whether an index has all rows, and columns only."""
    options = (index.dialect_options[name].get("where") for name in ("postgresql", "sqlite"))
    return len(index.expressions) == len(index.columns) and all(each is None for each in options)


def check_history(connection: Connection, target: Target, table: Table) -> None:
    """Raise `MisuseError` if the role may not pause the triggers of the table's history."""
    history = history_of(table)
    if history is None:
        return
    target.rows.pause_history(connection, table, history)


def check_rows(connection: Connection, target: Target, manifest: Manifest, on_progress: OnProgress | None) -> None:
    """Raise `ValidationError` if the tenant's rows in the database are not those of the export, byte for byte."""
    holdings = {each.name: each for each in target.tables}
    rows = 0
    for exported in manifest.tables:
        holding = holdings[exported.name]
        columns = ordered_columns(target, holding, exported)
        lines = target.rows.lines(connection, holding.table, columns, target.condition(holding), target.key(holding))
        for part in exported.parts:
            content = b"".join(f"{line}\n".encode() for line in islice(lines, part.rows))
            if checksum(content) != part.sha256:
                raise ValidationError(f"The rows of {exported.name} in the database differ from those of {part.file}.")
            rows += part.rows
            if on_progress is not None:
                on_progress(TransferProgress("verify", exported.name, rows, manifest.rows))
        if next(lines, None) is not None:
            raise ValidationError(f"The tenant has rows of {exported.name} that the export doesn't have.")
