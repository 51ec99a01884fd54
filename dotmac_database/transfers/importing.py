"""`import_tenant`: the rows of an export in another database, the same byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, true
from sqlalchemy import exc as sa

from ..dialects.stored_rows import Columns, Condition
from ..engines import Database
from ..errors import DuplicateEntityError, MisuseError, TenantIsolationError, ValidationError
from ..history.tables import history_of
from ..tenancy import RowLevelSecurity
from . import journal
from .checking import (
    check_conflicts,
    check_history,
    check_rows,
    check_schema,
    check_tenant,
    lines_of,
    ordered_columns,
    refused,
    verify_export,
)
from .holdings import Belonging, Holding
from .manifest import ExportedTable, Manifest, Part
from .progress import OnProgress, TransferProgress, in_words
from .target import Metadata, Target, open_target, translating


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import. ``rows`` by table; ``resumed``: parts of them came from an import that was interrupted.

    ``dry_run``: everything was checked, and nothing was written.
    """

    manifest: Manifest
    rows: dict[str, int]
    resumed: bool
    dry_run: bool


def import_tenant(
    database: Database | Engine,
    metadata: Metadata,
    tenant_id: object,
    folder: str | Path,
    *,
    rls: RowLevelSecurity | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> ImportReport:
    """Write the rows of an export into a database in which the tenant has none. Other tenants' rows may be there.

    Before the first row is written, all files are checked against the manifest, the columns and types of the tables
    against those of the export, and the rows against the tenant; and no other row may have the same key. ``dry_run``
    ends here. Then each file is written in one transaction, parents before children. At the end sequences are set
    beyond the imported keys, and all rows are read and compared with the checksums.

    An import that was killed is resumed by the same call: the table ``dotmac_transfers`` notes each file in the
    transaction of its rows. The triggers of a history record nothing and let the entries in, for which the role must
    own the tables that have a history. ``rls`` and ``on_progress`` are as in `export_tenant`, and it is sync as well.

    Raises `ValidationError` for damaged files, and if the written rows differ from the export; `MisuseError` for
    another schema, another kind of database, or a cycle of foreign keys that can't be written; `DuplicateEntityError`
    if the tenant has rows already, or a key exists; and `TenantIsolationError` for rows of another tenant.
    """
    path = Path(folder)
    manifest = Manifest.read(path)
    if not manifest.head.is_of(tenant_id):
        raise TenantIsolationError(f"{folder} has the export of another tenant.")
    target = open_target(database, metadata, tenant_id, rls)
    dialect = target.engine.dialect.name
    if dialect != manifest.head.dialect:
        raise MisuseError(f"The export is from {manifest.head.dialect}, and the database is {dialect}.")
    check_schema(target, manifest)
    verify_export(path, on_progress=on_progress)
    importer = _Importer(target, path, manifest, on_progress)
    with translating():
        with target.engine.connect() as connection:
            done = (
                journal.finished_parts(connection, manifest.head.export)
                if journal.has_journal(connection)
                else frozenset()
            )
        importer.check(done)
        if not dry_run:
            importer.write(done)
            with target.reading() as connection:
                check_rows(connection, target, manifest, on_progress)
            with target.engine.begin() as connection:
                journal.forget_export(connection, manifest.head.export)
    return ImportReport(manifest, {each.name: each.rows for each in manifest.tables}, bool(done), dry_run)


@dataclass(slots=True)
class _Importer:
    target: Target
    folder: Path
    manifest: Manifest
    on_progress: OnProgress | None
    rows: int = 0

    def check(self, done: frozenset[str]) -> None:
        """Check everything for which the database is needed. Nothing is written."""
        exported = self._exported()
        for cycle in self.target.order.unbreakable:
            if any(exported[table].rows for table in cycle if table in exported):
                names = ", ".join(sorted(each.fullname for each in cycle))
                raise MisuseError(
                    f"The foreign keys of {names} are a cycle in which no row can be the first: "
                    "none of them can be NULL, and not all are DEFERRABLE."
                )
        with self.target.engine.connect() as connection:
            self.target.prepare(connection)
            self._check_rows(connection, exported, done)
            for table, each in exported.items():
                if each.rows:
                    self._check_history(connection, table)
            connection.rollback()

    def _check_rows(self, connection: Connection, exported: dict[Table, ExportedTable], done: frozenset[str]) -> None:
        for holding in self.target.tables:
            table = exported.get(holding.table)
            parts = () if table is None else table.parts
            written = sum(part.rows for part in parts if part.file in done)
            count = self.target.count(connection, holding)
            if count and not done:
                raise DuplicateEntityError(
                    f"The tenant has {in_words(count)} in {holding.name} already. Nothing was written."
                )
            if count != written:
                raise ValidationError(
                    f"The tenant has {in_words(count)} in {holding.name}, and the interrupted import has written "
                    f"{written}: delete the tenant and import again."
                )
            if table is None:
                continue
            is_empty = not self.target.rows.exists(connection, holding.table, true())
            for part in parts:
                lines = lines_of(self.folder, part)
                check_tenant(connection, self.target, holding, table, lines)
                if not is_empty and part.file not in done:
                    check_conflicts(connection, self.target, holding, lines)

    def _check_history(self, connection: Connection, table: Table) -> None:
        try:
            check_history(connection, self.target, table)
        except sa.DBAPIError as error:
            raise MisuseError(
                f"{table.fullname} has a history, whose triggers must pause: import as the owner of the table."
            ) from error

    def write(self, done: frozenset[str]) -> None:
        """Write the parts that are not there yet, and then the columns of cycles."""
        journal.create_journal(self.target.engine)
        exported = self._exported()
        for table in self.target.order.tables:
            if table not in exported:
                continue
            group = next((each for each in self.target.order.atomic if table in each), frozenset((table,)))
            tables = [each for each in self.target.order.tables if each in group and each in exported]
            if table is tables[-1]:  # what the group references is there, and what references the group comes later
                self._write_group(tables, done)
        for table in self.target.order.tables:
            if table in exported and table in self.target.order.later:
                self._complete(exported[table], self.target.holdings.by_table[table], done)
        with self.target.writing() as connection:
            for table in exported:
                self.target.rows.advance_sequences(connection, table)

    def _exported(self) -> dict[Table, ExportedTable]:
        tables = {table.fullname: table for table in self.target.holdings.by_table}
        return {tables[each.name]: each for each in self.manifest.tables}

    def _write_group(self, tables: Sequence[Table], done: frozenset[str]) -> None:
        """Write tables: each part in a transaction of its own, or all in one, if only that can be."""
        is_group = any(set(tables) & each for each in self.target.order.atomic)
        exported = self._exported()
        if is_group:
            with self._transaction(tables) as connection:
                self.target.rows.defer_constraints(connection)
                for table in tables:
                    for part in exported[table].parts:
                        if part.file not in done:
                            self._write(connection, table, exported[table], (part,))
            self._report("import", tables[-1].fullname, sum(exported[table].rows for table in tables))
            return
        (table,) = tables
        parts = exported[table].parts
        steps = [parts] if table in self.target.order.whole and parts else [(part,) for part in parts]
        for step in steps:
            if step[0].file in done:
                self._report("import", table.fullname, sum(part.rows for part in step))
                continue
            with self._transaction(tables) as connection:
                self._write(connection, table, exported[table], step)
            self._report("import", table.fullname, sum(part.rows for part in step))

    @contextmanager
    def _transaction(self, tables: Sequence[Table]) -> Iterator[Connection]:
        """A transaction in which the triggers of histories pause."""
        with self.target.writing() as connection:
            resumes: list[Callable[[], None]] = []
            for table in tables:
                source = self.target.holdings.by_table[table].source
                source = table if source is None else source
                history = history_of(source)
                if history is not None:
                    resumes.append(self.target.rows.pause_history(connection, source, history))
            yield connection
            if resumes:
                self.target.rows.settle_constraints(connection)
            for resume in resumes:
                resume()

    def _write(self, connection: Connection, table: Table, exported: ExportedTable, parts: Sequence[Part]) -> None:
        holding = self.target.holdings.by_table[table]
        columns = ordered_columns(self.target, holding, exported)
        lines = [line for part in parts for line in lines_of(self.folder, part)]
        empty = self.target.order.later.get(table, frozenset())
        condition = self._condition(holding)
        count = self.target.rows.insert(connection, table, columns, lines, condition, empty)
        if count != len(lines):
            raise refused(holding)
        # At once, since the import can be interrupted: a history's triggers would use a key again that is there.
        self.target.rows.advance_sequences(connection, table, [each.name for each in holding.key])
        for part in parts:
            journal.note_part(connection, self.manifest.head.export, part.file, str(self.target.tenant))

    def _condition(self, holding: Holding) -> Callable[[Columns], Condition]:
        """The condition that a row which is not in the table yet is the tenant's."""
        if holding.belonging is Belonging.EXTENSION:
            return lambda _: true()  # the rows that say it come later; until then it is nobody's row
        return lambda columns: self.target.holdings.condition(holding.table, self.target.tenant, columns)

    def _complete(self, exported: ExportedTable, holding: Holding, done: frozenset[str]) -> None:
        """Set the columns that were NULL until all rows of a cycle were there."""
        names = self.target.order.later[holding.table]
        columns = [each for each in self.target.columns[holding.table] if each.name in names]
        for part in exported.parts:
            step = f"{part.file} again"
            if step in done:
                continue
            lines = lines_of(self.folder, part)
            lines = [line for line in lines if any(json.loads(line)[each.name] is not None for each in columns)]
            with self._transaction([holding.table]) as connection:
                if lines:
                    self.target.rows.update(connection, holding.table, self.target.key(holding), columns, lines)
                journal.note_part(connection, self.manifest.head.export, step, str(self.target.tenant))

    def _report(self, action: str, table: str, rows: int) -> None:
        self.rows += rows
        if self.on_progress is not None:
            self.on_progress(TransferProgress(action, table, self.rows, self.manifest.rows))
