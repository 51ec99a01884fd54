"""Execution plans of a repository's reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Table

from ..advisor import Advisor, QueryPlan
from ..dialects.catalogue import ExistingIndex, IndexesOf, existing
from ..dialects.explain import Explain, plan_of, without_explain
from ..dialects.features import estimates_rows
from ..errors import MisuseError
from ..execution.driver import can_send
from ..execution.routes import Circumstance, Route, Sender
from ..query import OptionsLike, QueryOptions, options_of
from ..statements.ordering import Order, cursor_order, order_of
from ..statements.reads import Bound, Reader
from ..statements.related import branches_of
from .core import SyncDb
from .seeking import CursorMarks, KeysetReader

M = TypeVar("M")


class ExplainMethods(KeysetReader[M, SyncDb]):
    """The plan of a read, and advice on missing indexes."""

    def explain(self, options: OptionsLike = None, *, analyze: bool = False) -> QueryPlan:
        """The plan of `list` with these options, or of `cursor_paginate` if they have ``cursor_pagination``.

        The statement is explained as it would be sent, with the tenant's condition and with the values, which the plan
        shows. Without ``analyze`` it is not run. With ``analyze`` PostgreSQL runs it, and measures rows, times and
        buffers; SQLite can't do that, so `ValidationError` is raised. Sends one EXPLAIN, and one query of the catalogue
        for each table that may need an index. The separate statements that load relationships are not explained, but it
        is checked whether their foreign keys have indexes.
        """
        query = options_of(options)
        if analyze and not estimates_rows(self._dialect.name):
            raise MisuseError("SQLite's EXPLAIN does not measure.", field="analyze")
        reader = self._reader(query.include_deleted)
        bound, order = self._explainable(reader, query)
        statement = Explain(
            reader.loading(bound, [*branches_of(self.traits, query.relationships, reader.scope.rules).plain]).statement,
            analyze=analyze,
        )
        limited = (query.pagination or query.cursor_pagination) is not None
        mapper = self.traits.mapper
        bind_arguments: Any = {"mapper": mapper, "bind": self._session.get_bind(mapper)}

        def work(execution_options: Mapping[str, object]) -> QueryPlan:
            options = {**execution_options, **self._options}

            def catalogue(table: Table) -> list[ExistingIndex]:
                rows = self._session.execute(IndexesOf(table), execution_options=options, bind_arguments=bind_arguments)
                return existing(self._dialect.name, table, rows.mappings().all())

            # This comes before EXPLAIN, because SQLite's EXPLAIN does not notice that another connection has created an
            # index, but a query does, and then EXPLAIN knows the index too.
            advice = Advisor(reader, catalogue).advice(query.filters, order, [*query.relationships], limited=limited)
            result: Any = self._session.execute(
                statement, bound.parameters, execution_options=options, bind_arguments=bind_arguments
            )
            plan = plan_of(self._dialect.name, result.mappings().all())
            return QueryPlan(without_explain(result.context.statement), *plan, advice)

        return self._read(work)

    def explain_route(self, options: OptionsLike = None) -> Route:
        """How `list` with these options would be sent, or `cursor_paginate` if they have ``cursor_pagination``.

        ``str()`` of the route is a sentence for people, with the reason why no faster route is possible. The route
        depends on the class and its listeners, the session and its transaction, and the engine. Sends no statement; it
        connects once if the server's isolation level is not known yet. If asyncpg does not cache prepared statements,
        as behind some poolers, SQLAlchemy sends the statement even if the route names the driver. The logger
        ``dotmac_database.execution.routes`` logs the routes of all reads and writes at level DEBUG.
        """
        query = options_of(options)
        reader = self._reader(query.include_deleted)
        bound = reader.loading(
            self._explainable(reader, query)[0],
            [*branches_of(self.traits, query.relationships, reader.scope.rules).plain],
        )
        route = self._route(bound)
        if route.sender is Sender.DRIVER and not can_send(self._session, bound.statement, self.traits, self._fields):
            return self._route(bound, Circumstance.STATEMENT)
        return route

    def _plain_paths(self, reader: Reader, query: QueryOptions) -> list[str]:
        """The relationships that the read loads, without those that have options."""
        return [*branches_of(self.traits, query.relationships, reader.scope.rules).plain]

    def _explainable(self, reader: Reader, query: QueryOptions) -> tuple[Bound, Order]:
        """The statement that the options would send, and its order."""
        page, cursor_page = query.pagination, query.cursor_pagination
        if cursor_page is None:
            order = order_of(self.traits, query.sorts, self._counts, reader.scope.rules)
            limit = page.limit if page else None
            return reader.rows(query.filters, order, limit=limit, offset=page.offset if page else 0), order
        if page is not None:
            raise MisuseError("A page is either numbered or after a cursor.", field="pagination")
        order = cursor_order(self.traits, query.sorts, cursor_page, self._counts, reader.scope.rules)
        marks: CursorMarks = {"binding": self._binding(order), "scope": self._cursor_scope(reader, query)}
        seek, _ = self._seek(cursor_page.cursor, reader.terms(order), marks)
        part = reader.ranges(order, seek)[0]
        return reader.page(query.filters, order, cursor_page.limit + 1, part), order
