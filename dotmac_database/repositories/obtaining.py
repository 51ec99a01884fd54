"""Reads the row with some values, or creates it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from ..dialects.isolation import sees_snapshot
from ..errors import DuplicateEntityError, TransactionError, ValidationError
from ..execution.work import end_snapshots, has_sent_nothing, with_savepoints
from ..field_names import FieldName, RowData
from ..statements.data import Values
from ..statements.upserts import conflict_columns, meets_living_only
from ..statements.writes import Writer
from .acting import acts_for_user
from .core import SyncDb
from .writing import WriteMethods

M = TypeVar("M")


class ObtainMethods(WriteMethods[M, SyncDb]):
    """Reads a row, or creates it if it does not exist."""

    @acts_for_user
    def get_or_create(
        self, data: RowData[M], match_fields: Iterable[FieldName], user_id: str | None = None
    ) -> tuple[M, bool]:
        """The row whose ``match_fields`` have the values of ``data``, or a new one by `create`; and whether it is new.

        The fields must be those of a unique constraint or index; the tenant column may be omitted. If many callers ask
        at once, there is one row, and one of them gets True. An existing row is not changed. One SELECT if the row
        exists; else also what `create` sends, and one more SELECT if another caller was faster. The hook
        ``values_for_create``, constructor and validators are called before the SELECT too, so that it looks for what
        would be written.

        Raises `DuplicateEntityError` if a soft-deleted row has the values (with a `LivingUnique` it does not matter),
        or a row of another tenant, which is neither read nor changed; and if the new row violates another unique
        constraint. Raises `ValidationError` if the fields are not unique, or not set in ``data``.

        A failed INSERT is rolled back to its savepoint, also in a block with ``savepoints=False``, which is not doomed
        by it. A transaction that is REPEATABLE READ or SERIALIZABLE can't see a row that another one has committed
        since it began. Then a transient `TransactionError` is raised, so that `TransactionManager` runs it again. On
        SQLite this holds for a transaction that has read before this call, and has written nothing: it can't write
        after another one has.
        """
        traits, writer = self.traits, self._creator(user_id)
        conflict = conflict_columns(writer, match_fields, "match_fields")
        keys = [traits.mapper.get_property_by_column(column).key for column in conflict]
        match = self._match(writer, data, keys)
        is_first = has_sent_nothing(self._session)
        entity = self._matched(match)
        if entity is not None:
            return entity, False
        if is_first:
            end_snapshots(self._session)
        try:
            with with_savepoints(self._session):
                return self.create(data, user_id), True
        except DuplicateEntityError as error:
            entity = self._matched(match)
            if entity is None:
                if not meets_living_only(writer, conflict):
                    self._refuse_deleted(error, match)
                if traits.tenant is None or traits.columns[traits.tenant] in conflict:
                    self._refuse_invisible(error, match)
                raise
        return entity, False

    def _match(self, writer: Writer, data: object, keys: Sequence[str]) -> Values:
        """The values of the columns by which the row is looked for, as `create` would write them."""
        traits = self.traits
        values = self.values_for_create(writer.for_create(data).values)
        values = {key: value for key, value in values.items() if key in traits.columns}
        if traits.constructs and traits.constructor_needs <= traits.columns.keys():
            values = self._constructed(values)
        # With ALL_TENANTS, the row of another tenant than that of the data must not be returned.
        names = dict.fromkeys([*keys, traits.tenant] if traits.tenant is not None else keys)
        for key in names:
            value = values.get(key)
            if value is None or writer.is_expression(key, value):
                raise ValidationError(f"{traits.name}.{key} must be set in the data, to look for the row.", field=key)
        return {key: values[key] for key in names}

    def _matched(self, match: Values, *, include_deleted: bool = False) -> M | None:
        reader = self._reader(include_deleted)
        entities: list[M] = [row[0] for row in self._fetched(reader.loading(reader.by_values(match), ()))]
        self._note_written(*entities)
        return next(iter(entities), None)

    def _refuse_deleted(self, error: DuplicateEntityError, match: Values) -> None:
        """Raise the error that says that the existing row is soft-deleted, if it is. One statement."""
        traits = self.traits
        if not traits.soft_deletes or self._matched(match, include_deleted=True) is None:
            return
        fields = tuple(key for key in match if key not in traits.private and key != traits.tenant)
        named = f": {', '.join(fields)}" if fields else ""
        message = f"{traits.name} exists already, but is soft-deleted{named}. Restore the row, or delete it for good."
        raise DuplicateEntityError(message, fields=fields, constraint=error.constraint) from error

    def _refuse_invisible(self, error: DuplicateEntityError, match: Values) -> None:
        """Raise a transient error if the existing row is one that the transaction can't see. One statement at most.

        The existing row is the tenant's own, and no other condition hides it.
        """
        is_hidden = self._conditioned or self.traits.mapper.inherits is not None
        if is_hidden or not set(error.fields) <= match.keys() or not self._session.in_transaction():
            return
        if sees_snapshot(self._session.connection({"mapper": self.traits.mapper})):
            message = f"Another transaction has created the {self.traits.name}, and this one can't see it."
            raise TransactionError(message, transient=True) from error
