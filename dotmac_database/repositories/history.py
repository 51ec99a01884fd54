"""Reads the history of rows, and deletes old entries."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, exists, func, select

from ..dialects.history_triggers import RETENTION
from ..dialects.own_statements import OWN
from ..dialects.settings import send_settings
from ..errors import PermissionDeniedError, ValidationError
from ..execution.routes import Circumstance, Sender
from ..history.entries import HistoryEntry
from ..history.tables import tenant_of
from ..policies import Right
from ..statements.history import HistoryReader, delete_old, history_table
from ..statements.reads import Bound, Reader
from ..tenancy.context import ALL_TENANTS
from .changing import RowWriter
from .core import SyncDb
from .past import as_of

M = TypeVar("M")


class HistoryMethods(RowWriter[M, SyncDb]):
    """The history of a class with `HistoryMixin`."""

    def history(self, entity_id: Any) -> builtins.list[HistoryEntry]:
        """The changes of the row with this primary key, the oldest first. A composite key is a tuple. One statement.

        The history of a deleted row can be read too. The list is empty if there never was such a row, if it is another
        tenant's, or if its entries were deleted by `forget_history`.

        With a policy or `conditions`, the row as it is now decides: its whole history can be read if the row can be,
        since the row was created. The history of a row that is gone is then for those alone who may read every row.
        Columns that a policy hides are left out, and so is an update that changed nothing else. Raises `MisuseError` if
        the class has no history.
        """
        reader = self._reader(include_deleted=True)
        key = reader.key(entity_id)
        entries: HistoryReader = self.traits.cached(
            ("history", self._dialect.name), lambda: HistoryReader(self.traits, self._session.get_bind().dialect)
        )
        statement = entries.entries_of(key, self._history_tenant(), self._readable_history(reader, key))
        bound = reader.confined(Bound(statement, reader.scope.parameters))
        options = {OWN: True}
        rows = self._read(lambda execution_options: self._execute(bound, {**execution_options, **options}).all())
        return entries.entries(rows, self.hidden_columns())

    def as_of(self, moment: datetime) -> Self:
        """A repository that reads the rows as they were at a moment: theirs and those of their relationships. No I/O.

        A naive time is in UTC. Filters, sorts, counts and includes see that moment too, and so do the tenant, soft
        deletion, `conditions` and policies, whose actor is the present one. Its entities are strict (`strict`), and
        belong to a session of their own. Each read takes one statement, as usual. Raises `ValidationError` for a
        moment in the future. Later, `MisuseError` is raised for writes and locks, and for reads of tables without a
        history.
        """
        return as_of(self, moment)

    def forget_history(self, *, before: datetime, batch: int = 1000) -> int:
        """Delete the entries of all rows that are older than ``before`` (timezone-aware), and return their number.

        It deletes at most ``batch`` entries in one statement and, with ``auto_commit``, in one transaction, so that
        other writes are not held up. It can be interrupted and run again. Afterwards `as_of` can't show moments earlier
        than ``before``; it can't notice that itself. Only the repository's tenant's entries are deleted.
        Raises `ValidationError` for a naive time or a batch smaller than 1, and `PermissionDeniedError` if a policy
        does not allow the actor to read and delete every row.
        """
        if before.tzinfo is None:
            raise ValidationError("forget_history() takes a time with a time zone.", field="before")
        if batch < 1:
            raise ValidationError("A batch has at least one entry.", field="batch")
        self._reader(include_deleted=True)  # binds an unbound guarded session to the tenant
        rules = self._model_rules
        if rules is not None and not all(rules.rule(each) is True for each in (Right.READ, Right.DELETE)):
            raise PermissionDeniedError(f"The policy of {self.traits.name} does not allow to delete its history.")
        history = history_table(self.traits)
        owner, tenant = tenant_of(self.traits.tables[0]), self._history_tenant()
        of_tenant = None if owner is None or tenant is None else history.c[owner.name] == tenant
        statement = delete_old(history, of_tenant, before, batch)
        total = 0
        while True:
            deleted = self._delete_entries(statement)
            total += deleted
            if deleted < batch:
                return total

    def _delete_entries(self, statement: Any) -> int:
        session = self._session
        with self._writing(self._write_route(Sender.STATEMENT, Circumstance.STATEMENT, is_single=False)):
            connection = session.connection({"mapper": self.traits.mapper})
            send_settings(connection, {RETENTION: "on"})
            deleted = session.execute(statement, execution_options={OWN: True, "synchronize_session": False})
            send_settings(connection, {RETENTION: ""})
            return int(deleted.rowcount)  # type: ignore[attr-defined]  # the result of a DELETE has it

    def _history_tenant(self) -> Any:
        return None if self.tenant_id is ALL_TENANTS else self.tenant_id

    def _readable_history(self, reader: Reader, key: Sequence[object]) -> builtins.list[ColumnElement[bool]]:
        """The conditions under which entries may be read, besides the tenant's."""
        rules = self._model_rules
        if not self._has_conditions and (rules is None or rules.rule(Right.READ) is True):
            return []
        table, history = self.traits.tables[0], history_table(self.traits)
        of_row = [column == value for column, value in zip(table.primary_key, key, strict=True)]
        readable = exists(select(1).select_from(self.model_class).where(*of_row, *reader.scope.root(self.traits)))
        # An earlier row with the same key may have been one that can't be read.
        earlier = history.alias()
        deletions = [earlier.c[each.name] == history.c[each.name] for each in table.primary_key]
        ended = select(func.max(earlier.c.history_id)).where(*deletions, earlier.c.operation == "delete")
        return [readable, history.c.history_id > func.coalesce(ended.scalar_subquery(), 0)]
