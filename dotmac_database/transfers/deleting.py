"""`delete_tenant`: the right to be forgotten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, Table, and_, or_

from ..dialects.history_triggers import RETENTION
from ..dialects.settings import send_settings
from ..dialects.stored_rows import Condition, StoredColumn, quoted, raw, table_name
from ..engines import Database
from ..errors import ConstraintViolationError, ValidationError
from ..history.tables import history_of
from ..tenancy import RowLevelSecurity
from . import journal
from .holdings import Holding
from .progress import OnProgress, TransferProgress, in_words
from .remaining import Remaining, remaining_rows
from .target import Metadata, Target, open_target, translating


@dataclass(frozen=True, slots=True)
class DeletionReport:
    """What was deleted, and what remained and why. ``rows`` by table; with ``dry_run`` those that would be deleted.

    ``remaining`` are rows that can't be deleted, and tables of which nobody knows whether they have rows of the tenant.
    Backups and the database's log still have the rows until they expire.
    """

    rows: Mapping[str, int]
    remaining: tuple[Remaining, ...]
    dry_run: bool

    @property
    def blocked(self) -> bool:
        """Whether rows that are not the tenant's reference its rows, so that these can't be deleted."""
        return any(each.blocks for each in self.remaining)


def delete_tenant(
    database: Database | Engine,
    metadata: Metadata,
    tenant_id: object,
    *,
    rls: RowLevelSecurity | None = None,
    dry_run: bool = False,
    batch_rows: int = 5_000,
    on_progress: OnProgress | None = None,
) -> DeletionReport:
    """Delete all rows of a tenant: soft-deleted rows, history, outbox messages and idempotency keys included.

    Rows are deleted in transactions of at most ``batch_rows`` rows, children before parents, so that other tenants wait
    for nothing long. If it was interrupted, the same call deletes the rest. The tenant should write no more: rows that
    were written in the meantime are counted at the end, and reported as remaining. Entries that the triggers of a
    history write for the deletion are deleted as well. ``dry_run`` counts and writes nothing.

    ``rls`` and ``on_progress`` are as in `export_tenant`, and it is sync as well. Before anything is deleted, it raises
    `ConstraintViolationError` if rows that are not the tenant's reference its rows, and `PermissionDeniedError` if
    row-level security would hide rows.
    """
    if batch_rows < 1:
        raise ValidationError("batch_rows is at least 1.", field="batch_rows")
    target = open_target(database, metadata, tenant_id, rls)
    with translating():
        counts, remaining = _look(target)
        if dry_run:
            return DeletionReport(counts, remaining, dry_run=True)
        blocking = [each for each in remaining if each.blocks]
        if blocking:
            reasons = "; ".join(f"{in_words(each.rows or 0)} of {each.table}: {each.reason}" for each in blocking)
            raise ConstraintViolationError(f"The tenant can't be deleted. {reasons}. Nothing was deleted.")
        deleter = _Deleter(target, batch_rows, on_progress, sum(counts.values()))
        deleter.delete_all()
        left, remaining = _look(target)
    written = tuple(
        Remaining(name, rows, "the rows were written during the deletion: delete the tenant again")
        for name, rows in left.items()
        if rows
    )
    return DeletionReport(dict(deleter.deleted), (*written, *remaining), dry_run=False)


def _look(target: Target) -> tuple[dict[str, int], tuple[Remaining, ...]]:
    """The number of the tenant's rows by table, children first, and what a deletion leaves."""
    with target.engine.connect() as connection:
        target.prepare(connection)
        counts = {holding.name: target.count(connection, holding) for holding in reversed(target.tables)}
        return counts, tuple(remaining_rows(connection, target))


@dataclass(slots=True)
class _Deleter:
    target: Target
    batch_rows: int
    on_progress: OnProgress | None
    total: int
    deleted: dict[str, int] = field(default_factory=dict)

    def delete_all(self) -> None:
        """Delete all rows, the entries of histories last, since the triggers write some for the others."""
        holdings = list(reversed(self.target.tables))
        self.deleted = dict.fromkeys((each.name for each in holdings), 0)
        sources = [each for each in holdings if each.source is None]
        for holding in sources:
            if holding.table in self.target.order.later:
                self._unlink(holding)
        finished: set[Table] = set()
        for holding in sources:
            if holding.table not in finished:
                group = next((each for each in self.target.order.together if holding.table in each), {holding.table})
                finished |= group
                self._delete_group([each for each in sources if each.table in group])
        for holding in holdings:
            if holding.source is not None:
                self._delete_group([holding])
        with self.target.engine.begin() as connection:
            if journal.has_journal(connection):
                journal.forget_tenant(connection, str(self.target.tenant))

    def _delete_group(self, holdings: Sequence[Holding]) -> None:
        """Delete the rows of a table in batches, or those of a cycle in one transaction."""
        groups = (*self.target.order.together, *self.target.order.unbreakable)
        if any(holding.table in each for each in groups for holding in holdings):
            with self.target.writing() as connection:
                self.target.rows.defer_constraints(connection)
                for holding in holdings:
                    while self._delete_batch(connection, holding, self.batch_rows):
                        self._report(holding)
            return
        (holding,) = holdings
        limit = None if holding.table in self.target.order.whole else self.batch_rows
        count = 1
        while count:
            with self.target.writing() as connection:
                count = self._delete_batch(connection, holding, limit)
            self._report(holding)

    def _delete_batch(self, connection: Connection, holding: Holding, limit: int | None) -> int:
        """Delete up to ``limit`` rows, and what can't be found any more without them. Returns their number."""
        key = self.target.key(holding)
        condition = self.target.condition(holding)
        lines = list(self.target.rows.lines(connection, holding.table, key, condition, key, limit))
        if not lines:
            return 0
        keys = {each.name: each for each in key}
        rows = self.target.rows
        if holding.source is not None:
            return self._delete_entries(connection, holding.table, keys, lines)
        companions = self._companions(holding)
        count = (
            rows.delete(connection, holding.table, keys, lines)
            if holding.key
            else self._delete_keyless(connection, holding)
        )
        self.deleted[holding.name] += count
        for table, columns in companions:
            named = {name: keys[own] for name, own in columns.items()}
            if self.target.holdings.by_table[table].source is not None:
                self._delete_entries(connection, table, named, lines)
            else:
                self.deleted[table.fullname] += rows.delete(connection, table, named, lines)
        return count

    def _delete_keyless(self, connection: Connection, holding: Holding) -> int:
        """Delete all rows of a table without a primary key. NULLs can't be compared, so no batch can name its rows."""
        return self.target.rows.delete_where(connection, holding.table, self.target.condition(holding))

    def _delete_entries(
        self, connection: Connection, table: Table, key: Mapping[str, StoredColumn], lines: Sequence[str]
    ) -> int:
        send_settings(connection, {RETENTION: "on"})
        count = self.target.rows.delete(connection, table, key, lines)
        send_settings(connection, {RETENTION: ""})
        self.deleted[table.fullname] += count
        return count

    def _companions(self, holding: Holding) -> list[tuple[Table, dict[str, str]]]:
        """The tables whose rows nobody finds without a row of this table, with their columns and those of this table.

        They are the parent's table whose rows only their extensions name a tenant, and a history without a tenant.
        """
        companions: list[tuple[Table, dict[str, str]]] = []
        keys = {each.name for each in holding.key}
        for table, other in self.target.holdings.by_table.items():
            for reference, _ in other.owner.extensions:
                if reference.table is holding.table:
                    columns = {here.name: there.name for here, there in reference.pairs}
                    if set(columns.values()) <= keys:
                        companions.append((table, columns))
        history = history_of(holding.table)
        if history is not None and self.target.columns.get(history):
            entries = self.target.holdings.by_table[history]
            if entries.owner.column is None:
                companions.append((history, {name: name for name in keys}))
        return companions

    def _unlink(self, holding: Holding) -> None:
        """Set the columns to NULL by which the rows of a cycle reference each other."""
        names = self.target.order.later[holding.table]
        columns = [each for each in self.target.columns[holding.table] if each.name in names]
        key = self.target.key(holding)
        linked: list[Condition] = [
            raw(f"{table_name(holding.table)}.{quoted(each.name)}").is_not(None) for each in columns
        ]
        condition = and_(self.target.condition(holding), or_(*linked))
        nothing = dict.fromkeys((each.name for each in columns), None)
        while True:
            with self.target.writing() as connection:
                lines = list(self.target.rows.lines(connection, holding.table, key, condition, key, self.batch_rows))
                unlinked = [json.dumps({**json.loads(line), **nothing}) for line in lines]
                if not lines:
                    return
                self.target.rows.update(connection, holding.table, key, columns, unlinked)

    def _report(self, holding: Holding) -> None:
        if self.on_progress is not None:
            rows = sum(self.deleted.values())
            self.on_progress(TransferProgress("delete", holding.name, rows, max(rows, self.total)))
