"""Reads the rows that follow a cursor, or any other position in an order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, TypeVar

from ..errors import InvalidCursorError
from ..query import QueryOptions
from ..statements.ordering import Order, OrderedTerm
from ..statements.reads import Reader, Seek
from .core import SyncDb
from .relating import RelationshipLoader
from .running import Rows

M = TypeVar("M")


class CursorMarks(TypedDict):
    """What a cursor belongs to: the order, and for a signed cursor also the filters and the tenant."""

    binding: bytes
    scope: bytes


class KeysetReader(RelationshipLoader[M, SyncDb]):
    """Keyset reads, and the cursors for them. All its methods are private."""

    def _following(self, reader: Reader, query: QueryOptions, order: Order, limit: int, seek: Seek | None) -> Rows:
        """The next ``limit`` rows after ``seek``, in one statement.

        If the first field of the order has NULLs, and they begin within these rows, a second statement reads them.
        """
        rows: Rows = []
        for part in reader.ranges(order, seek):
            if len(rows) < limit:
                bound = reader.page(query.filters, order, limit - len(rows), part)
                rows += self._loading(reader, bound, query.relationships)
        return rows

    def _binding(self, order: Order) -> bytes:
        terms = ",".join(
            f"{each.field}{'-' if each.descending else '+'}{int(each.nulls_first)}"
            + ("" if each.by == "value" else f":{each.by}")
            for each in order
        )
        counts = [each.shape for each in self._counts if (each.name, "count") in {(one.field, one.by) for one in order}]
        return f"{self.traits.mapper.local_table}|{terms}{counts or ''}".encode()

    def _cursor_scope(self, reader: Reader, query: QueryOptions) -> bytes:
        if not self._codec.signs:
            return b""
        analysis = reader.analysed(query.filters)
        counts = [(each.shape, each.analysis.values) for each in self._counts]
        belongs = (self.tenant_id, query.include_deleted, analysis.shape, analysis.values, *counts)
        return repr(belongs).encode()

    def _seek(
        self, cursor: str | None, terms: Sequence[OrderedTerm], marks: CursorMarks
    ) -> tuple[Seek | None, tuple[object, ...]]:
        if cursor is None:
            return None, ()
        mode, values = self._codec.decode(cursor, **marks)
        if len(values) != len(terms):
            raise InvalidCursorError
        restored = tuple(term.restored(value) for term, value in zip(terms, values, strict=True))
        return Seek(mode, restored), values
