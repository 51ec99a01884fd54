"""Reads the history of rows, and deletes old entries."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, exists, select

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

M = TypeVar("M")


class HistoryMethods(RowWriter[M, SyncDb]):
    """The history of a class with `HistoryMixin`."""

    def history(self, entity_id: Any) -> builtins.list[HistoryEntry]:
        """The changes of the row with this primary key, the oldest first. A composite key is a tuple. One statement.

        The history of a deleted row can be read too. The list is empty if there never was such a row, if it is another
        tenant's, or if its entries were deleted by `forget_history`. In a repository with `conditions`, or with a
        policy, it is also empty if the row, as it is now, does not meet them; so the history of a deleted row can be
        read only by an actor who may read every row. Columns that are hidden from the actor are left out. Raises
        `MisuseError` if the class has no history.
        """
        reader = self._reader(include_deleted=True)
        key = reader.key(entity_id)
        entries: HistoryReader = self.traits.cached(
            ("history", self._dialect.name), lambda: HistoryReader(self.traits, self._session.get_bind().dialect)
        )
        statement = entries.entries_of(key, self._history_tenant(), self._readable_history(reader, key))
        bound = Bound(statement, reader.scope.parameters)
        options = {OWN: True}
        hidden = self.hidden_columns()
        rows = self._read(lambda execution_options: self._execute(bound, {**execution_options, **options}).all())
        return [entries.entry(row, hidden) for row in rows]

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
        """The condition that the row may be read, as it is now; empty if every row of the tenant may be read."""
        rules = self._model_rules
        if not self._has_conditions and (rules is None or rules.rule(Right.READ) is True):
            return []
        table = self.traits.tables[0]
        of_row = [column == value for column, value in zip(table.primary_key, key, strict=True)]
        return [exists(select(1).select_from(self.model_class).where(*of_row, *reader.scope.root(self.traits)))]
