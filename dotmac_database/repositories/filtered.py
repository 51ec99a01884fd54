"""Changes and deletes the rows that match filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import select

from ..errors import MisuseError, ValidationError
from ..execution.routes import Circumstance, Reason, Route, Sender, change_refusal
from ..query import FiltersLike, filters_of
from ..statements.data import Values
from ..statements.filters import Analysis
from ..statements.inheritance import matching, spreads
from ..statements.reads import Bound, for_update
from ..statements.writes import Writer
from .changing import RowWriter
from .core import SyncDb
from .deleting import follow_database

M = TypeVar("M")


class FilteredMethods(RowWriter[M, SyncDb]):
    """Writes of all rows that match filters. Each call is atomic."""

    def update_where(
        self, filters: FiltersLike, data: Any, user_id: str | None = None, *, allow_all: bool = False
    ) -> int:
        """Update all matching rows and return their number. One UPDATE.

        If an UPDATE can't write the values (listeners, validators, several tables), the rows are read with FOR UPDATE
        and flushed. Raises `ValidationError` if no filter can exclude a row, unless ``allow_all`` is True.
        """
        writer = self._writer(user_id)
        analysis = writer.reader.analysed(filters_of(filters))
        self._refuse_all(analysis.unbounded, allow_all)
        values = writer.for_update(data)
        self._refuse_key(values)
        if not values:
            return 0
        values = writer.refuse_nulls(self.values_for_update(writer.stamped(values)), new=False)
        refusal = change_refusal(self._session, self.traits, [values])
        with self._writing(self._rows_route(refusal)) as without_begin:
            if refusal is None:
                without_begin()
                return self._counted(writer.update_where(analysis, values))
            return self._change_each(writer, analysis, values)

    def delete_where(
        self,
        filters: FiltersLike,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        allow_all: bool = False,
    ) -> int:
        """Delete all matching rows and return their number. One statement, or several for a class in several tables.

        If the class has soft-delete columns, the rows are only marked as deleted, unless ``soft_delete`` is False: then
        rows that are marked already are deleted too. Raises `ValidationError` if no filter can exclude a row, unless
        ``allow_all`` is True. A deletion that is not soft applies the database's ``ON DELETE`` rules, not the ORM's
        cascades.
        """
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly)
        analysis = writer.reader.analysed(filters_of(filters))
        self._refuse_all(analysis.unbounded, allow_all)
        refusal = change_refusal(self._session, self.traits, ()) if softly else None
        with self._writing(self._rows_route(refusal)) as without_begin:
            if not softly:
                count = self._deleted_where(writer, analysis, without_begin)
                if count:
                    follow_database(self._session, self.traits, None)
                return count
            if refusal is None:
                without_begin()
                return self._counted(writer.update_where(analysis, writer.deletion()))
            return self._change_each(writer, analysis, writer.deletion())

    def _rows_route(self, refusal: Reason | None) -> Route:
        """The route of an UPDATE or DELETE of all matching rows. With a ``refusal`` it is the route of a flush."""
        if refusal is not None:
            return self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=False)
        return self._write_route(Sender.STATEMENT, Circumstance.STATEMENT)

    def _deleted_where(self, writer: Writer, analysis: Analysis, without_begin: Callable[[], None]) -> int:
        """Delete the matching rows for good, without soft deletion, and return their number."""
        if spreads(self.traits):
            return self._deleted(writer.reader, matching(writer.reader, analysis))
        if not self.traits.takes_statements:
            return self._delete_each(writer, analysis)
        without_begin()
        return self._counted(writer.delete_where(analysis))

    def _change_each(self, writer: Writer, analysis: Analysis, values: Values) -> int:
        """Update the matching rows as objects, by the unit of work, because an UPDATE can't write them."""
        entities = self._matching(writer, analysis)
        for entity in entities:
            self._set(entity, values)
        self._flush()
        return len(entities)

    def _delete_each(self, writer: Writer, analysis: Analysis) -> int:
        """Delete the matching rows as objects, by the unit of work, because a DELETE can't select the class's rows."""
        entities = self._matching(writer, analysis)
        for entity in entities:
            self._session.delete(entity)
        self._flush()
        return len(entities)

    def _matching(self, writer: Writer, analysis: Analysis) -> Sequence[M]:
        """The objects of the matching rows, which are locked."""
        reader = writer.reader
        statement = for_update(self.traits, select(self.model_class).where(*reader.where(analysis)))
        bound = reader.loading(Bound(statement, {**reader.scope.parameters, **analysis.parameters}), ())
        return self._scalars(Bound(bound.statement, bound.parameters), {"populate_existing": True})

    def _refuse_key(self, values: Values) -> None:
        for name in self.traits.primary_key:
            if name in values:
                raise ValidationError(f"{self.traits.name}.{name}: a primary key can't be changed.", field=name)

    def _refuse_all(self, unbounded: bool, allow_all: bool) -> None:
        if unbounded and not allow_all:
            raise MisuseError(
                f"{self.traits.name}: the filters match every row; pass allow_all=True if that is meant.",
                field="filters",
            )
