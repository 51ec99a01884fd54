"""Changes and deletes the rows that match filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import select

from ..errors import MisuseError, ValidationError
from ..execution.routes import Circumstance, Reason, Route, Sender, change_refusal
from ..execution.state import loaded_values, restore_values
from ..field_names import RowData
from ..policies import Right
from ..query import FiltersLike, filters_of
from ..statements.data import Values
from ..statements.filters import Analysis
from ..statements.inheritance import matching, spreads
from ..statements.judging import UNKNOWN
from ..statements.reads import Bound, for_update
from ..statements.writes import Writer
from .acting import acts_for_user
from .changing import RowWriter
from .core import SyncDb
from .deleting import follow_database
from .rights import exercises_deletion
from .ruling import restricted

M = TypeVar("M")


class FilteredMethods(RowWriter[M, SyncDb]):
    """Writes of all rows that match filters. Each call is atomic."""

    @acts_for_user
    def update_where(
        self,
        filters: FiltersLike,
        data: RowData[M],
        user_id: str | None = None,
        *,
        allow_all: bool = False,
        at_most: int | None = None,
    ) -> int:
        """Update all matching rows and return their number. One UPDATE.

        If an UPDATE can't write the values (listeners, validators, several tables), the rows are read with FOR UPDATE
        and flushed. Raises `ValidationError` if no filter can exclude a row, unless ``allow_all`` is True.

        With ``at_most`` the UPDATE is in a transaction or savepoint, which is rolled back if it has changed more rows.
        Then `ValidationError` is raised, and nothing is changed, also if others insert rows at the same time. In a
        block with ``savepoints=False`` only the rollback of the whole block can undo it, so the block is doomed.
        """
        _check_limit(at_most)
        writer = self._writer(user_id)
        analysis = writer.reader.analysed(filters_of(filters))
        self._refuse_all(analysis.unbounded, allow_all)
        values = writer.for_update(data)
        self._refuse_key(values)
        if not values:
            return 0
        values = writer.refuse_nulls(self.values_for_update(writer.stamped(values)), new=False)
        refusal = change_refusal(self._session, self.traits, [values])
        if self._rules is not None and refusal is None:
            judge = self._judge(Right.UPDATE, values)
            judgement = None if judge is None else judge.judged(lambda key: values.get(key, UNKNOWN))
            rules = self._model_rules
            if judgement is not None and judgement.is_refused and rules and rules.rule(Right.UPDATE) is not False:
                raise self._denied_values(Right.UPDATE)
            writer, is_open = restricted(writer, judgement)
            refusal = Circumstance.CONDITIONS if is_open else None
        with self._writing_at_most(refusal, at_most) as without_begin:
            if refusal is None:
                without_begin()
                return self._limited(self._counted(writer.update_where(analysis, values)), at_most)
            return self._change_each(writer, analysis, values, at_most)

    @acts_for_user
    @exercises_deletion
    def delete_where(
        self,
        filters: FiltersLike,
        soft_delete: bool = True,
        user_id: str | None = None,
        *,
        allow_all: bool = False,
        at_most: int | None = None,
    ) -> int:
        """Delete all matching rows and return their number. One statement, or several for a class in several tables.

        If the class has soft-delete columns, the rows are only marked as deleted, unless ``soft_delete`` is False: then
        rows that are marked already are deleted too. Raises `ValidationError` if no filter can exclude a row, unless
        ``allow_all`` is True. A deletion that is not soft applies the database's ``ON DELETE`` rules, not the ORM's
        cascades. ``at_most`` is as in `update_where`.
        """
        _check_limit(at_most)
        softly = soft_delete and self.traits.soft_deletes
        writer = self._writer(user_id, include_deleted=not softly, right=Right.DELETE)
        analysis = writer.reader.analysed(filters_of(filters))
        self._refuse_all(analysis.unbounded, allow_all)
        refusal = change_refusal(self._session, self.traits, ()) if softly else None
        with self._writing_at_most(refusal, at_most) as without_begin:
            if not softly:
                count = self._deleted_where(writer, analysis, without_begin, at_most)
                if count:
                    follow_database(self._session, self.traits, None)
                return count
            if refusal is None:
                without_begin()
                return self._limited(self._counted(writer.update_where(analysis, writer.deletion())), at_most)
            return self._change_each(writer, analysis, writer.deletion(), at_most)

    @contextmanager
    def _writing_at_most(self, refusal: Reason | None, at_most: int | None) -> Iterator[Callable[[], None]]:
        """As `_writing`. If the block refuses more rows than ``at_most``, the session's objects keep their values."""
        if at_most is None:
            with self._writing(self._rows_route(refusal)) as without_begin:
                yield without_begin
            return
        session = self._session
        held = loaded_values(session)
        try:
            with self._writing(self._rows_route(refusal, is_single=False)):
                try:
                    yield lambda: None  # the number of rows must be known before the commit
                except ValidationError:
                    # The objects have the values of the UPDATE, which is about to be rolled back.
                    for entity, _ in held:
                        if entity in session:
                            session.expire(entity)
                    raise
        except ValidationError:
            restore_values(session, held)
            raise

    def _limited(self, count: int, at_most: int | None) -> int:
        """The number of rows. Raises `ValidationError` if there are more than ``at_most``."""
        if at_most is not None and count > at_most:
            raise ValidationError(
                f"{self.traits.name}: more than {at_most} rows match, so nothing is changed.", field="at_most"
            )
        return count

    def _rows_route(self, refusal: Reason | None, *, is_single: bool = True) -> Route:
        """The route of an UPDATE or DELETE of all matching rows. With a ``refusal`` it is the route of a flush."""
        if refusal is not None:
            return self._write_route(Sender.UNIT_OF_WORK, refusal, is_single=False)
        return self._write_route(Sender.STATEMENT, Circumstance.STATEMENT, is_single=is_single)

    def _deleted_where(
        self, writer: Writer, analysis: Analysis, without_begin: Callable[[], None], at_most: int | None
    ) -> int:
        """Delete the matching rows for good, without soft deletion, and return their number."""
        if spreads(self.traits):
            return self._limited(self._deleted(writer.reader, matching(writer.reader, analysis)), at_most)
        if not self.traits.takes_statements:
            return self._delete_each(writer, analysis, at_most)
        without_begin()
        return self._limited(self._counted(writer.delete_where(analysis)), at_most)

    def _change_each(self, writer: Writer, analysis: Analysis, values: Values, at_most: int | None) -> int:
        """Update the matching rows as objects, by the unit of work, because an UPDATE can't write them."""
        entities = self._matching(writer, analysis, at_most)
        for entity in entities:
            self._set(entity, values)
        self._flush()
        if writer.reader.scope.right is Right.UPDATE:
            self._refuse_stored(entities, Right.UPDATE)
        return len(entities)

    def _delete_each(self, writer: Writer, analysis: Analysis, at_most: int | None) -> int:
        """Delete the matching rows as objects, by the unit of work, because a DELETE can't select the class's rows."""
        entities = self._matching(writer, analysis, at_most)
        for entity in entities:
            self._session.delete(entity)
        self._flush()
        return len(entities)

    def _matching(self, writer: Writer, analysis: Analysis, at_most: int | None) -> Sequence[M]:
        """The objects of the matching rows, which are locked. Raises `ValidationError` for more than ``at_most``."""
        reader = writer.reader
        statement = for_update(self.traits, select(self.model_class).where(*reader.where(analysis)))
        if at_most is not None:
            statement = statement.limit(at_most + 1)
        bound = reader.loading(Bound(statement, {**reader.scope.parameters, **analysis.parameters}), ())
        entities = self._scalars(Bound(bound.statement, bound.parameters), {"populate_existing": True})
        self._limited(len(entities), at_most)
        return entities

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


def _check_limit(at_most: int | None) -> None:
    if at_most is not None and at_most < 0:
        raise MisuseError("at_most must be a number of rows, or None.", field="at_most")
