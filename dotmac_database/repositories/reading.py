"""The methods that read rows, implemented once, on the sync session."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

from sqlalchemy import Select

from ..errors import InvalidCursorError, MisuseError, ValidationError
from ..execution.ruled import rule_lazy_loads
from ..execution.state import keep
from ..field_names import FieldName
from ..paging.pages import CursorPaginationResult, OffsetResult, PaginationResult
from ..policies import Right
from ..query import (
    CursorPaginationParams,
    FiltersLike,
    NumberedOptions,
    OffsetOptions,
    OffsetParams,
    OptionsLike,
    PaginationParams,
    QueryFilter,
    QueryOptions,
    RelationshipsLike,
    filters_of,
    options_of,
    plain_relationships,
)
from ..statements.ordering import cursor_order, order_of
from ..statements.reads import Lock, Seek
from ..statements.rows import Key
from ..statements.selects import select_of
from .core import SyncDb
from .seeking import CursorMarks, KeysetReader
from .totals import PageTotal

M = TypeVar("M")


class ReadMethods(KeysetReader[M, SyncDb]):
    """Reads. Without an open transaction, a read begins none if possible; see `dotmac_database.execution.routes`."""

    def get_by_id(
        self, entity_id: Any, include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> M | None:
        """The row with this primary key, or None. A composite key is a tuple.

        One statement, even if the session already holds the object, and one more for each relationship. `for_update`
        raises `PermissionDeniedError` for a row that the actor can read and may not update, after one or two more
        statements.
        """
        reader = self._reader(include_deleted)
        bound = reader.by_key(reader.key(entity_id))
        entity = next(iter(self._entities(reader, bound, relationships)), None)
        if entity is None and self._lock is not None and self._rules is not None:
            self._refuse_lock(reader.key(entity_id), include_deleted, self._lock)
        return entity

    def _refuse_lock(self, key: Key, include_deleted: bool, lock: Lock) -> None:
        """Raise `PermissionDeniedError` if the actor can read the row that he could not lock.

        One SELECT; with ``skip_locked`` another one, which shows whether the row was only skipped.
        """
        rules = None if self._rules is None else self._rules.of(self.traits)
        if rules is None or rules.rule(Right.UPDATE) is True:
            return
        unlocked = self._with(_lock=None, _fields=(), _counts=())
        updatable = unlocked._reader(include_deleted, Right.UPDATE)
        if lock.skip_locked and unlocked._fetched(updatable.has_key(key), plain=True):
            return
        if unlocked.exists(key, include_deleted):
            raise rules.denied(Right.UPDATE)

    def get_by_id_or_raise(
        self, entity_id: Any, include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> M:
        """As `get_by_id`, but raises `EntityNotFoundError` if there is no such row, or it is another tenant's."""
        entity = self.get_by_id(entity_id, include_deleted, relationships)
        if entity is None:
            raise self._not_found()
        return entity

    def get_many(
        self, ids: Iterable[Any], include_deleted: bool = False, relationships: RelationshipsLike = None
    ) -> builtins.list[M]:
        """The rows with these primary keys, in the order of the keys; missing rows are omitted. One statement."""
        reader = self._reader(include_deleted)
        keys = [reader.key(entity_id) for entity_id in ids]
        if not keys:
            return []
        entities = self._entities(reader, reader.by_keys(list(dict.fromkeys(keys))), relationships)
        by_key = {reader.key(self.traits.key_of(entity)): entity for entity in entities}
        return [by_key[key] for key in keys if key in by_key]

    def get_by_field(
        self,
        field_name: FieldName,
        value: Any,
        include_deleted: bool = False,
        relationships: RelationshipsLike = None,
    ) -> M | None:
        """The row whose field has this value (None: NULL), or None if there is no such row. One statement.

        If there are several, it is the first one in the order of the primary key.
        """
        return self.first(
            QueryOptions(
                filters=[QueryFilter(field_name, value=value)],
                include_deleted=include_deleted,
                relationships=plain_relationships(relationships),
            )
        )

    def list_by_field(
        self,
        field_name: FieldName,
        value: Any,
        include_deleted: bool = False,
        relationships: RelationshipsLike = None,
    ) -> builtins.list[M]:
        """All rows whose field has this value (None: NULL), in the order of the primary key. One statement."""
        return self.list(
            QueryOptions(
                filters=[QueryFilter(field_name, value=value)],
                include_deleted=include_deleted,
                relationships=plain_relationships(relationships),
            )
        )

    def first(self, options: OptionsLike = None) -> M | None:
        """The first matching row, or None. The order is that of the sorts, then of the primary key. One statement."""
        query = options_of(options)
        reader = self._reader(query.include_deleted)
        order = order_of(self.traits, query.sorts, self._counts, reader.scope.rules)
        bound = reader.rows(query.filters, order, limit=1)
        return next(iter(self._entities(reader, bound, query.relationships)), None)

    def exists(self, entity_id: Any, include_deleted: bool = False) -> bool:
        """Whether there is a row with this primary key. One statement, which reads no columns."""
        reader = self._reader(include_deleted)
        return bool(self._fetched(reader.has_key(reader.key(entity_id)), plain=True))

    def count(self, filters: FiltersLike = None, include_deleted: bool = False) -> int:
        """The number of matching rows. One statement."""
        bound = self._reader(include_deleted).count(filters_of(filters))
        return int(self._fetched(bound, plain=True)[0][0])

    def list(self, options: OptionsLike = None) -> builtins.list[M]:
        """The matching rows, in the order of the sorts, then the primary key. One statement.

        If the options have ``pagination``, only the rows of that page, else all rows. Use `stream` for large results.
        """
        query = options_of(options)
        _refuse_cursor(query)
        reader = self._reader(query.include_deleted)
        page = query.pagination
        bound = reader.rows(
            query.filters,
            order_of(self.traits, query.sorts, self._counts, reader.scope.rules),
            limit=page.limit if page else None,
            offset=page.offset if page else 0,
        )
        return self._entities(reader, bound, query.relationships)

    def select(self, options: OptionsLike = None) -> Select[M]:
        """The statement of `list`, to extend and to run on ``db``. Nothing is sent.

        It contains the tenant's condition, the filters and their values, and excludes soft-deleted rows, whatever is
        added to it: ``db.scalars(users.select().join(User.posts).where(Post.words > 5))``. The classes that are joined
        are confined to the tenant and to what the actor may read, but their soft-deleted rows are not excluded. The
        columns that are hidden from the actor are not in the objects, whose lazy loads are ruled. With
        `ALL_TENANTS` a guarded session must run it in an `unscoped` block. Raises `MisuseError` for
        ``cursor_pagination``.
        """
        query = options_of(options)
        _refuse_cursor(query)
        if self._past is not None:
            raise MisuseError("The repository of as_of() has no session to run a statement on: use its methods.")
        if self._rules is not None:
            rule_lazy_loads(self._session)
        return select_of(self._reader(query.include_deleted), query, self.model_class)

    @overload
    def page(self, options: QueryOptions[OffsetParams]) -> OffsetResult[M]: ...
    @overload
    def page(self, options: OffsetOptions) -> OffsetResult[M]: ...
    @overload
    def page(self, options: NumberedOptions = None) -> PaginationResult[M] | CursorPaginationResult[M]: ...
    def page(
        self, options: OptionsLike | OffsetOptions | NumberedOptions = None
    ) -> PaginationResult[M] | CursorPaginationResult[M] | OffsetResult[M]:
        """The page of the options: by `cursor_paginate` if they have ``cursor_pagination``, else by `list_paginated`.

        With `OffsetParams` it is an `OffsetResult`: one statement, and a second one for the total if ``skip`` is beyond
        the last row, and for an estimate. Options without a page give the first numbered page.
        """
        query = options_of(options)
        if query.cursor_pagination is not None:
            return self.cursor_paginate(query)
        return self._offset_page(query) if isinstance(query.pagination, OffsetParams) else self.list_paginated(query)

    def _offset_page(self, query: QueryOptions) -> OffsetResult[M]:
        page = query.pagination
        assert isinstance(page, OffsetParams)
        items, total, more = self._rows_and_total(query, page)
        return OffsetResult(items, total, page.skip, page.limit, more=more)

    def list_paginated(self, options: OptionsLike = None) -> PaginationResult[M]:
        """One numbered page with the total number of rows, in one statement.

        A second statement is sent for the total of a page beyond the last row, and for an estimate (see
        `PaginationParams`). Raises `MisuseError` for `OffsetParams`, because their page has no number.
        """
        query = options_of(options)
        _refuse_cursor(query)
        page = query.pagination or PaginationParams()
        if isinstance(page, OffsetParams):
            raise MisuseError(
                "A page by OffsetParams has no number; read it with page() or list().", field="pagination"
            )
        items, total, more = self._rows_and_total(query, page)
        return PaginationResult(items=items, total=total, page=page.page, per_page=page.per_page, more=more)

    def _rows_and_total(
        self, query: QueryOptions, page: PaginationParams | OffsetParams
    ) -> tuple[builtins.list[M], int | None, bool | None]:
        """The rows of a page, the total, and whether there are more rows (None: it follows from the total)."""
        reader, size = self._reader(query.include_deleted), page.limit
        total = PageTotal(page, reader, query.filters)
        rows_of_page = reader.rows(
            query.filters,
            order_of(self.traits, query.sorts, self._counts, reader.scope.rules),
            limit=size + total.looks_ahead,
            offset=page.offset,
            bound=total.count_limit,
        )
        rows = self._loading(reader, rows_of_page, query.relationships)
        total_rows = total.of(rows, lambda bound: self._fetched(bound, plain=True)[0][0])
        items = [row[0] for row in rows[:size]]
        keep(self._session, *items)
        return items, total_rows, len(rows) > size if total.looks_ahead else None

    def cursor_paginate(self, options: OptionsLike = None) -> CursorPaginationResult[M]:
        """The page after or before a cursor, without a total. One statement, equally fast at any depth.

        The order is that of the sorts, or of ``cursor_field`` if there are none, and then of the primary key. If the
        first field of the order is nullable, the page on which its NULLs begin takes a second statement. Raises
        `InvalidCursorError` for a cursor that is damaged, forged, or from another query.
        """
        query = options_of(options)
        if query.pagination is not None:
            raise MisuseError(
                "A numbered page is read with list_paginated(), either kind with page().", field="pagination"
            )
        page = query.cursor_pagination or CursorPaginationParams()
        reader = self._reader(query.include_deleted)
        order = cursor_order(self.traits, query.sorts, page, self._counts, reader.scope.rules)
        terms = reader.terms(order)
        marks: CursorMarks = {"binding": self._binding(order), "scope": self._cursor_scope(reader, query)}
        seek, raw = self._seek(page.cursor, terms, marks)
        try:
            rows = self._following(reader, query, order, page.limit + 1, seek)
        except ValidationError:
            if seek is not None and any(term.as_text for term in terms):
                raise InvalidCursorError from None  # only the database can check a value in its own text form
            raise
        more = len(rows) > page.limit
        rows = rows[: page.limit]
        if seek is not None and seek.backwards:
            rows.reverse()
        keep(self._session, *(row[0] for row in rows))

        def cursor(row: tuple[object, ...], mode: str) -> str:
            return self._codec.encode(reader.position(row, terms), mode=mode, **marks)

        backwards = seek is not None and seek.backwards
        ahead = behind = None
        if rows:
            ahead = cursor(rows[-1], "after") if more or backwards else None
            behind = cursor(rows[0], "before") if (more if backwards else seek is not None) else None
        elif seek is not None:
            turned = {"after": "until", "from": "before", "before": "from", "until": "after"}[seek.mode]
            back = self._codec.encode(raw, mode=turned, **marks)
            ahead, behind = (back, None) if backwards else (None, back)
        return CursorPaginationResult([row[0] for row in rows], ahead, behind)

    def stream(self, options: OptionsLike = None, batch_size: int = 1000) -> Iterator[M]:
        """All matching rows, in constant memory. Each batch of ``batch_size`` rows is read by keyset, in one statement.

        No transaction is kept open between batches, so rows that others insert meanwhile may be included. A row that
        exists the whole time, with the same place in the order, is returned exactly once.
        """
        seek: Seek | None = None
        while True:
            batch, seek = self._batch(options, batch_size, seek)
            yield from batch
            if seek is None:
                return

    def _batch(self, options: OptionsLike, batch_size: int, seek: Seek | None) -> tuple[builtins.list[M], Seek | None]:
        """A batch of rows from ``seek`` on, and the position where the next batch begins; None if this is the last."""
        query = options_of(options)
        if query.pagination is not None or query.cursor_pagination is not None:
            raise MisuseError("stream() reads every row; leave the pagination out.", field="pagination")
        if batch_size < 1:
            raise MisuseError("batch_size must be at least 1.", field="batch_size")
        reader = self._reader(query.include_deleted)
        order = order_of(self.traits, query.sorts, self._counts, reader.scope.rules)
        terms = reader.terms(order)
        rows = self._following(reader, query, order, batch_size, seek)
        following = Seek("after", reader.position(rows[-1], terms)) if len(rows) == batch_size else None
        return [row[0] for row in rows], following


def _refuse_cursor(query: QueryOptions) -> None:
    if query.cursor_pagination is not None:
        raise MisuseError(
            "A cursor page is read with cursor_paginate(), either kind with page().", field="cursor_pagination"
        )
