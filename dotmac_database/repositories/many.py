"""The steps that the writes of many rows have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy.sql import Executable

from ..departures import READ_BY_DRIVER, WRITE_INSIDE, mapper_departure, session_departure
from ..execution.objects import objects_of
from ..execution.routes import Circumstance, Reason, Route, Sender
from ..statements.bulk import BATCH
from ..statements.data import Values
from ..statements.reads import Bound
from ..statements.writes import Writer
from .changing import RowWriter
from .core import RepositoryCore, SyncDb

M = TypeVar("M")


class ManyRowsWriter(RowWriter[M, SyncDb]):
    """The steps that bulk writes and upserts have in common. All its methods are private."""

    @property
    def _takes_columns(self) -> bool:
        """Whether new rows can be validated column by column: no hook or constructor must be called for each row."""
        hook = getattr(self.values_for_create, "__func__", None)
        return hook is RepositoryCore.values_for_create and not self.traits.constructs

    def _many_route(self, refusal: Reason | None = None) -> Route:
        """The route of a write of many rows, which may need several statements."""
        sender = Sender.STATEMENT if refusal is None else Sender.UNIT_OF_WORK
        return self._write_route(sender, refusal or Circumstance.STATEMENT, is_single=False)

    def _returned(
        self,
        writer: Writer,
        statement: Executable,
        execution_options: Mapping[str, object],
        parameters: Mapping[str, Any] | list[Values] | None = None,
        *,
        by_table: bool = False,
    ) -> Iterable[M]:
        """The objects of the written rows. A second statement is sent if RETURNING gives only their keys."""
        session, traits = self._session, self.traits
        of = {"mapper": traits.mapper}
        result = session.execute(statement, parameters, execution_options=execution_options, bind_arguments=of)
        if by_table:
            return objects_of(session, traits, list(traits.columns), result.all())
        if traits.returned:
            return result.scalars()
        keys = [tuple(row) for row in result]
        reader = writer.reader if self._rules is None else self._unruled()
        return self._scalars(reader.by_keys(keys), {"populate_existing": True}) if keys else ()

    def _by_table(self) -> bool:
        """Whether a statement on the table does the same as one on the class, which needs more time for each row.

        The objects of the rows are then made as for statements that the driver sends.
        """
        return (
            self.traits.plain
            and session_departure(self._session, WRITE_INSIDE) is None
            and mapper_departure(self.traits.mapper, READ_BY_DRIVER) is None
        )

    def _compute(self, entities: Sequence[M]) -> None:
        """Read computed attributes in one statement per batch, since RETURNING does not confine them to the tenant."""
        if not self.traits.computes:
            return
        reader = self._unruled()
        keys = [reader.key(self.traits.key_of(entity)) for entity in entities]
        for start in range(0, len(keys), BATCH):
            bound = reader.loading(reader.by_keys(keys[start : start + BATCH]), ())
            self._scalars(Bound(reader.whole(bound.statement), bound.parameters), {"populate_existing": True})
