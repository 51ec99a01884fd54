"""Builds SELECTs that users extend and send themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Select

from ..errors import MisuseError
from ..execution.hiding import ObjectRulesOption
from ..query import OffsetParams, PaginationParams, QueryOptions
from ..tenancy.context import ALL_TENANTS
from ..tenancy.criteria import TenantCriteria
from .inlining import with_values
from .joined import joined_rules
from .ordering import order_of
from .reads import Bound, Reader
from .related import branches_of

M = TypeVar("M")


def select_of(
    reader: Reader,
    query: QueryOptions[PaginationParams | OffsetParams | None],
    model: type[M],  # noqa: ARG001 - it gives the result its type
) -> Select[M]:
    """The SELECT of the matching rows of ``model`` in order, which contains all its values.

    Each value is a parameter with a name of its own, so that the SELECT can be combined with those of other
    repositories. The tenant's condition also applies to the classes that the user joins later.
    """
    reader = replace(reader, scope=replace(reader.scope, inline=True))
    page = query.pagination
    limit, offset = (None, 0) if page is None else (page.limit, page.offset)
    rows = reader.rows(
        query.filters, order_of(reader.traits, query.sorts, rules=reader.scope.rules), limit=limit, offset=offset
    )
    paths = branches_of(reader.traits, query.relationships, reader.scope.rules)
    if paths.has_options:
        raise MisuseError(
            "A relationship with options of its own takes a statement after the read: name the path without options.",
            field="relationships",
        )
    statement: Select[M] = reader.loading(Bound(with_values(rows.statement, rows.parameters)), [*paths.plain]).statement
    tenant, rules = reader.scope.tenant, reader.scope.rules
    if rules is not None:
        joined = joined_rules(rules, reader.traits, reader.scope)
        statement = statement.options(ObjectRulesOption(rules.objects(reader.scope)), *joined)
    return statement if tenant is None or tenant is ALL_TENANTS else statement.options(TenantCriteria(tenant))
