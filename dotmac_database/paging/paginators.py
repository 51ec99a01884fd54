"""Pagination of hand-written queries: of a `select()` or a legacy ``Query``.

Repositories have their own pagination; these functions are for other statements. The primary key is appended to the
query's order, so that the position of each row is unambiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Select, UnaryExpression, func, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Query, Session
from sqlalchemy.sql import operators

from ..dialects import dialect_named, translated
from ..dialects.explain import planned_rows
from ..dialects.features import estimates_rows
from ..errors import InvalidCursorError, MisuseError, ValidationError
from ..execution.state import sync_session
from ..field_names import FieldName
from ..models.traits import Traits, traits_of
from ..query import MAX_PAGE_SIZE, CursorPaginationParams, SortField, SortOrder
from ..sqlalchemy_internals import is_grouped, order_clauses
from ..statements.keyset import after, order_by
from ..statements.ordering import OrderedTerm, cursor_order, order_of, terms_of
from ..statements.scope import Scope
from ..tenancy.context import ALL_TENANTS
from .cursors import CursorCodec, CursorKey
from .pages import Estimate

T = TypeVar("T")
P = ParamSpec("P")
AnySelect: TypeAlias = Select[Any]
AnyQuery = AnySelect | Query[Any]
Items: TypeAlias = list[Any]
"""The entities or values of a page, or its rows if the query selects several columns."""

_BINDING = b"PaginationHelper"


class PaginationHelper:
    """Encodes values as cursors, and decodes them with their types."""

    @staticmethod
    def encode_cursor(value: Any, key: CursorKey = None) -> str:
        """Encode ``value``, a scalar or a tuple of scalars, as an opaque URL-safe text, signed with the ``key``."""
        single = not isinstance(value, tuple)
        values = (value,) if single else value
        return CursorCodec(key).encode(values, mode="after" if single else "from", binding=_BINDING)

    @staticmethod
    def decode_cursor(cursor: str, key: CursorKey = None) -> Any:
        """Decode a cursor that `encode_cursor` returned. Raises `InvalidCursorError` for any other text."""
        mode, values = CursorCodec(key).decode(cursor, binding=_BINDING)
        return values[0] if mode == "after" else values


class DatabasePaginator:
    """Numbered pages and cursor pages of any query."""

    @staticmethod
    def paginate_query(session: Session, query: AnyQuery, page: int = 1, per_page: int = 20) -> tuple[Items, int]:
        """The items of a page, and the exact total. The first page has the number 1. Two statements."""
        statement, sync = _statement(query), sync_session(session)
        _check_page(page, per_page)
        with translated():
            items = _items(sync, _totally_ordered(statement).limit(per_page).offset((page - 1) * per_page))
            return items, _count(sync, statement)

    @staticmethod
    async def async_paginate_query(
        session: AsyncSession, query: AnyQuery, page: int = 1, per_page: int = 20
    ) -> tuple[Items, int]:
        """As `paginate_query`."""
        return await _run(session, DatabasePaginator.paginate_query, query, page, per_page)

    @staticmethod
    def cursor_paginate_query(
        session: Session,
        query: AnyQuery,
        cursor_field: FieldName,
        limit: int,
        cursor: str | None = None,
        ascending: bool = True,
    ) -> tuple[Items, str | None, bool]:
        """The items after a cursor, the next cursor, and whether there are more items. One statement.

        The rows are sorted by ``cursor_field``, then by the primary key; the query's own order is ignored. Raises
        `InvalidCursorError` for a cursor that is damaged, or that belongs to another order.
        """
        sync, statement = sync_session(session), _statement(query)
        _check_page(1, limit)
        traits = _entity(statement)
        dialect = dialect_named(sync.get_bind(traits.mapper).dialect.name)
        params = CursorPaginationParams(limit=limit, cursor=cursor, cursor_field=cursor_field, ascending=ascending)
        order = cursor_order(traits, (), params)
        terms = terms_of(traits, order, Scope(ALL_TENANTS), dialect)
        binding = f"query|{traits.mapper.local_table}|{order}".encode()
        parameters: dict[str, object] = {}
        if cursor is not None:
            condition, parameters = _position(cursor, terms, binding)
            statement = statement.where(condition)
        plain = [each.term for each in terms]
        statement = statement.order_by(None).order_by(*order_by(plain)).limit(limit + 1)
        extra = [each.selected for each in terms if not each.on_row]
        with translated():
            rows = list(sync.execute(statement.add_columns(*extra), parameters).unique().all())
        items = [row[0] for row in rows[:limit]]
        if len(rows) <= limit:
            return items, None, False
        return items, _cursor(rows[limit - 1], terms, binding), True

    @staticmethod
    async def async_cursor_paginate_query(
        session: AsyncSession,
        query: AnyQuery,
        cursor_field: FieldName,
        limit: int,
        cursor: str | None = None,
        ascending: bool = True,
    ) -> tuple[Items, str | None, bool]:
        """As `cursor_paginate_query`."""
        return await _run(
            session, DatabasePaginator.cursor_paginate_query, query, cursor_field, limit, cursor, ascending
        )


class PerformancePaginator:
    """Pages of large tables: one method does not count all rows, and the other reads only the keys of skipped rows."""

    @staticmethod
    def paginate_with_count_estimate(
        session: Session, query: AnyQuery, page: int = 1, per_page: int = 20, count_threshold: int = 10_000
    ) -> tuple[Items, Estimate]:
        """The items of a page, and a total that is exact up to ``count_threshold`` rows.

        For more rows, the total is the planner's estimate on PostgreSQL, and ``count_threshold + 1`` on SQLite, which
        has no estimate. ``total.exact`` tells whether the total is exact. Two statements, or three with an estimate.
        """
        statement, sync = _statement(query), sync_session(session)
        _check_page(page, per_page)
        with translated():
            items = _items(sync, _totally_ordered(statement).limit(per_page).offset((page - 1) * per_page))
            return items, _estimate(sync, statement, count_threshold)

    @staticmethod
    async def async_paginate_with_count_estimate(
        session: AsyncSession, query: AnyQuery, page: int = 1, per_page: int = 20, count_threshold: int = 10_000
    ) -> tuple[Items, Estimate]:
        """As `paginate_with_count_estimate`."""
        return await _run(
            session, PerformancePaginator.paginate_with_count_estimate, query, page, per_page, count_threshold
        )

    @staticmethod
    def deep_pagination_optimize(
        session: Session, query: AnyQuery, page: int, per_page: int, cursor_field: FieldName = "id"
    ) -> tuple[Items, int]:
        """The items of a page, as from `paginate_query`, and the exact total. Two statements.

        Whole rows are read only for the page. Of the skipped rows only the keys are read, and from an index if there is
        one in this order. A query without an order is ordered by ``cursor_field``.
        """
        statement, sync = _statement(query), sync_session(session)
        _check_page(page, per_page)
        traits = _entity(statement)
        dialect = dialect_named(sync.get_bind(traits.mapper).dialect.name)
        if not order_clauses(statement):
            order = order_of(traits, [SortField(cursor_field, SortOrder.ASC)])
            terms = terms_of(traits, order, Scope(ALL_TENANTS), dialect)
            statement = statement.order_by(*order_by([each.term for each in terms]))
        ordered = _totally_ordered(statement)
        keys = [traits.attribute(name) for name in traits.primary_key]
        narrow = ordered.with_only_columns(*keys).limit(per_page).offset((page - 1) * per_page)
        page_of_keys = narrow.subquery("dotmac_page")
        target = keys[0] if len(keys) == 1 else tuple_(*keys)
        chosen = ordered.where(target.in_(select(*page_of_keys.c)))
        with translated():
            return _items(sync, chosen), _count(sync, statement)

    @staticmethod
    async def async_deep_pagination_optimize(
        session: AsyncSession, query: AnyQuery, page: int, per_page: int, cursor_field: FieldName = "id"
    ) -> tuple[Items, int]:
        """As `deep_pagination_optimize`."""
        return await _run(session, PerformancePaginator.deep_pagination_optimize, query, page, per_page, cursor_field)


async def _run(
    session: AsyncSession, function: Callable[Concatenate[Session, P], T], *args: P.args, **kw: P.kwargs
) -> T:
    return await session.run_sync(lambda sync: function(sync, *args, **kw))


def _statement(query: AnyQuery) -> AnySelect:
    if isinstance(query, Query):
        statement: Any = query.enable_eagerloads(True).statement
        return statement  # type: ignore[no-any-return]  # a Query's statement is a Select, except after Query.from_statement
    if isinstance(query, Select):
        return query
    raise MisuseError(f"A select() or a Query was expected, not {type(query).__name__}.")


def _check_page(page: int, per_page: int) -> None:
    if page < 1:
        raise ValidationError("page counts from 1.", field="page")
    if not 1 <= per_page <= MAX_PAGE_SIZE:
        raise ValidationError(f"per_page is 1 to {MAX_PAGE_SIZE}.", field="per_page")


def _entity(statement: AnySelect) -> Traits[Any]:
    """The traits of the first class that the statement selects."""
    descriptions = statement.column_descriptions
    entity = descriptions[0]["entity"] if descriptions else None
    mapper: Mapper[object] | None = getattr(entity, "__mapper__", None)
    if mapper is None or descriptions[0]["expr"] is not entity:
        raise MisuseError("The first thing that the query selects must be a mapped class.")
    return traits_of(mapper.class_)


def _totally_ordered(statement: AnySelect) -> AnySelect:
    """The statement with the primary key appended to its order, in the direction of the last clause."""
    descriptions = statement.column_descriptions
    entity = descriptions[0]["entity"] if descriptions else None
    mapper: Mapper[object] | None = getattr(entity, "__mapper__", None)
    if mapper is None or is_grouped(statement):
        return statement
    clauses = order_clauses(statement)
    last = clauses[-1] if clauses else None
    while isinstance(last, UnaryExpression) and last.modifier in (operators.nulls_first_op, operators.nulls_last_op):
        last = last.element
    descending = isinstance(last, UnaryExpression) and last.modifier is operators.desc_op
    keys = [getattr(entity, mapper.get_property_by_column(column).key) for column in mapper.primary_key]
    return statement.order_by(*(key.desc() if descending else key.asc() for key in keys))


def _items(session: Session, statement: AnySelect) -> Items:
    result = session.execute(statement)
    single = len(statement.column_descriptions) == 1
    unique = result.unique()
    return list(unique.scalars().all() if single else unique.all())


def _count(session: Session, statement: AnySelect) -> int:
    bare = statement.order_by(None).limit(None).offset(None)
    counted = select(func.count(literal_column("*"))).select_from(bare.subquery("dotmac_counted"))
    return int(session.scalar(counted) or 0)


def _estimate(session: Session, statement: AnySelect, threshold: int) -> Estimate:
    bounded = _count_up_to(session, statement, threshold + 1)
    if bounded <= threshold:
        return Estimate(bounded, exact=True)
    if not estimates_rows(session.get_bind().dialect.name):
        return Estimate(bounded, exact=False)
    return Estimate(max(bounded, planned_rows(session, statement.order_by(None).limit(None).offset(None))), exact=False)


def _count_up_to(session: Session, statement: AnySelect, limit: int) -> int:
    bare = statement.order_by(None).limit(limit).offset(None).subquery("dotmac_counted")
    return int(session.scalar(select(func.count(literal_column("*"))).select_from(bare)) or 0)


def _position(
    cursor: str, terms: Sequence[OrderedTerm], binding: bytes
) -> tuple[ColumnElement[bool], dict[str, object]]:
    _, values = CursorCodec().decode(cursor, binding=binding)
    if len(values) != len(terms):
        raise InvalidCursorError
    restored = [term.restored(value) for term, value in zip(terms, values, strict=True)]
    parameters = {f"k{index}": value for index, value in enumerate(restored) if value is not None}
    places: list[ColumnElement[object] | None] = [
        None if value is None else term.parameter(f"k{index}")
        for index, (term, value) in enumerate(zip(terms, restored, strict=True))
    ]
    return after([each.term for each in terms], places), parameters


def _cursor(row: Iterable[object], terms: Sequence[OrderedTerm], binding: bytes) -> str:
    entity, *selected = row
    beside = iter(selected[-sum(not term.on_row for term in terms) :] if selected else [])
    values = [term.portable(getattr(entity, term.path.key or "") if term.on_row else next(beside)) for term in terms]
    return CursorCodec().encode(values, mode="after", binding=binding)
