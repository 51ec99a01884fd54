"""The tenant's condition on every class of a repository's statement, as one loader option.

For sessions that are not guarded; a guarded one has the `compiler`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, bindparam, false
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.sql import util as sql_util
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter

from ..models.traits import tenant_key
from .tables import TABLES, tenant_column
from .values import fitting, kind_of


class Confinement(LoaderCriteriaOption):
    """`with_loader_criteria` for all tenant-scoped classes at once.

    One option of its kind costs a statement the same however many classes there are. The tenant is a bound parameter
    in the statement's cache key, never a closure: a lambda would be cached with the first tenant that it saw.
    """

    __slots__ = ("applied", "kinds", "parameters", "version")

    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's own form
        ("version", visitors.ExtendedInternalTraversal.dp_plain_obj),
        ("kinds", visitors.ExtendedInternalTraversal.dp_plain_obj),
        ("parameters", visitors.InternalTraversal.dp_clauseelement_tuple),
    ]

    def __init__(self, tenant: Any) -> None:
        found: dict[type, BindParameter[Any]] = {}
        for kind, column in TABLES.kinds.items():
            try:
                found[kind] = bindparam(None, fitting(tenant, kind), type_=column.type, unique=True)
            except ValueError:
                continue  # no row of such a class can be this tenant's
        self.version = TABLES.version
        self.kinds = tuple(found)
        self.parameters = tuple(found.values())
        self.root_entity = self.entity = None
        self.deferred_where_criteria = False
        self.include_aliases = True
        # An object does not carry its tenant's conditions: what it loads later is for the guard to confine. A joined
        # load asks its criteria for the same mark, hence the twin.
        self.propagate_to_loaders = False
        self.applied = self._twin()

    def _twin(self) -> Confinement:
        twin = object.__new__(Confinement)
        for name in ("version", "kinds", "parameters", "root_entity", "entity", "deferred_where_criteria"):
            setattr(twin, name, getattr(self, name))
        twin.include_aliases = twin.propagate_to_loaders = True
        return twin

    def _all_mappers(self) -> Iterator[Mapper[Any]]:
        for root in TABLES.roots:
            yield from root.self_and_descendants

    def get_global_criteria(self, attributes: dict[Any, Any]) -> None:
        """SQLAlchemy's hook: file the conditions under each class."""
        for mapper in self._all_mappers():
            attributes.setdefault(("additional_entity_criteria", mapper), []).append(self.applied)

    def _resolve_where_criteria(self, ext_info: Any) -> ColumnElement[bool]:
        mapper: Mapper[Any] = ext_info.mapper
        column = tenant_column(mapper)
        kind = kind_of(column)
        condition: Any
        if kind not in self.kinds:
            condition = false()
        else:
            parameter = self.parameters[self.kinds.index(kind)]
            condition = getattr(ext_info.entity, tenant_key(mapper) or "") == parameter
        return sql_util._deep_annotate(  # type: ignore[no-any-return, unused-ignore]
            condition, {"for_loader_criteria": self}, detect_subquery_cols=True, ind_cols_on_fromclause=True
        )
