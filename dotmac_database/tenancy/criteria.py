"""A loader option that adds the tenant's condition to every class in a repository's statement.

It is for sessions that are not guarded. In guarded sessions the `compiler` confines statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, bindparam, false
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter

from ..models.traits import tenant_key
from ..sqlalchemy_internals import annotated_deeply
from .tables import TABLES, tenant_column
from .values import convert_tenant, kind_of


class TenantCriteria(LoaderCriteriaOption):
    """A `with_loader_criteria` for all tenant-scoped classes.

    A single option costs a statement the same, no matter how many classes there are. The tenant is a bound parameter,
    which SQLAlchemy extracts from the cache key, and not a closure: a lambda would be cached with its first tenant.
    """

    __slots__ = ("applied", "kinds", "parameters", "version")

    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's own form
        ("version", visitors.ExtendedInternalTraversal.dp_plain_obj),
        ("kinds", visitors.ExtendedInternalTraversal.dp_plain_obj),
        ("parameters", visitors.InternalTraversal.dp_clauseelement_tuple),
    ]

    def __init__(self, tenant: object) -> None:
        parameters: dict[type, BindParameter[object]] = {}
        for kind, column in TABLES.kinds.items():
            try:
                parameters[kind] = bindparam(None, convert_tenant(tenant, kind), type_=column.type, unique=True)
            except ValueError:
                continue  # a column of this type can't store this tenant's name, so no row is the tenant's
        self.version = TABLES.version
        self.kinds = tuple(parameters)
        self.parameters = tuple(parameters.values())
        self.root_entity = self.entity = None
        self.deferred_where_criteria = False
        self.include_aliases = True
        # Loaded objects must not keep the option for later lazy loads: the guard confines lazy loads. But SQLAlchemy
        # applies criteria to a joined load only if this attribute is True, so it gets a copy with True.
        self.propagate_to_loaders = False
        self.applied = self._copy_for_loads()

    def _copy_for_loads(self) -> TenantCriteria:
        copy = object.__new__(TenantCriteria)
        for name in ("version", "kinds", "parameters", "root_entity", "entity", "deferred_where_criteria"):
            setattr(copy, name, getattr(self, name))
        copy.include_aliases = copy.propagate_to_loaders = True
        return copy

    def _all_mappers(self) -> Iterator[Mapper[object]]:
        for root in TABLES.roots:
            yield from root.self_and_descendants

    def get_global_criteria(self, attributes: dict[Any, Any]) -> None:
        """Register the option for each tenant-scoped class (called by SQLAlchemy)."""
        for mapper in self._all_mappers():
            attributes.setdefault(("additional_entity_criteria", mapper), []).append(self.applied)

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        mapper: Mapper[object] = ext_info.mapper
        column = tenant_column(mapper)
        kind = kind_of(column)
        if kind not in self.kinds:
            condition: ColumnElement[bool] = false()
        else:
            parameter = self.parameters[self.kinds.index(kind)]
            condition = getattr(ext_info.entity, tenant_key(mapper) or "") == parameter
        annotated: ColumnElement[bool] = annotated_deeply(condition, {"for_loader_criteria": self})
        return annotated
