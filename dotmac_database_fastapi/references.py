"""Foreign keys to tenants' rows: the database would take another tenant's row for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Table

from dotmac_database import (
    ConstraintViolationError,
    QueryFilter,
    QueryOptions,
    Traits,
    create_async_repository,
    traits_of,
)


@dataclass(frozen=True)
class Reference:
    """A foreign key: the attributes that hold it, and those of the class that they name."""

    target: type
    fields: tuple[str, ...]
    named: tuple[str, ...]


class References:
    """The foreign keys of a class to tenant-scoped classes."""

    def __init__(self, traits: Traits[Any]) -> None:
        self.traits = traits

    # Not before the first request: a class may refer to one that is mapped later.
    @cached_property
    def all(self) -> tuple[Reference, ...]:
        """The references that name more than a tenant."""
        found = [self._reference(each) for table in self.traits.tables for each in table.foreign_key_constraints]
        return tuple(each for each in found if each is not None)

    def _reference(self, constraint: ForeignKeyConstraint) -> Reference | None:
        target = self._mapped(constraint.referred_table)
        if target is None or target.tenant is None:
            return None
        own = {column: key for key, column in self.traits.columns.items()}
        others = {column: key for key, column in target.columns.items()}
        pairs = [
            (own[element.parent], others[element.column])
            for element in constraint.elements
            if element.parent in own and element.column in others and others[element.column] != target.tenant
        ]
        # An inherited class's key to its own parent's row is the mapper's, not a client's.
        if not pairs or (
            target.model in self.traits.model.__mro__ and set(self.traits.primary_key) == {p[0] for p in pairs}
        ):
            return None
        fields, named = zip(*pairs, strict=True)
        return Reference(target.model, tuple(fields), tuple(named))

    def _mapped(self, table: Table) -> Traits[Any] | None:
        mappers = [each for each in self.traits.mapper.registry.mappers if each.local_table is table]
        roots = [each for each in mappers if each.inherits is None or each.inherits.local_table is not table]
        return traits_of(roots[0].class_) if roots else None

    async def check(self, repository: Any, data: Any) -> None:
        """Refuse a key that names no row of the repository's tenant, whether it is another's or nobody's.

        One statement for each foreign key that ``data``, a Pydantic object, sets.
        """
        for reference in self.all:
            values = [getattr(data, field, None) for field in reference.fields]
            if not any(field in data.model_fields_set for field in reference.fields) or None in values:
                continue
            if not await self._exists(repository, reference, values):
                raise ConstraintViolationError(
                    f"{self.traits.name}: there is no such {reference.target.__name__} to refer to.",
                    fields=reference.fields,
                )

    async def _exists(self, repository: Any, reference: Reference, values: list[Any]) -> bool:
        targets: Any = create_async_repository(repository.db, reference.target, repository.tenant_id)
        if reference.named == targets.traits.primary_key:
            return bool(await targets.exists(values[0] if len(values) == 1 else tuple(values)))
        filters = [QueryFilter(name, value=value) for name, value in zip(reference.named, values, strict=True)]
        return await targets.first(QueryOptions(filters=filters)) is not None
