"""Checks that the foreign keys in a request refer to rows of the request's own tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

from pydantic import BaseModel

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    AsyncTenantRepository,
    ConstraintViolationError,
    TenantReference,
    Traits,
    async_missing_references,
    tenant_references,
)

from .aliases import Repository

Checked = Mapping[TenantReference, tuple[object, ...]]
"""The foreign keys that were checked, with their values."""


class References:
    """Checks the foreign keys of a class to tenants' rows, before a row is written and, if needed, afterwards.

    A key that refers to no row of the tenant is a `ConstraintViolationError`, the same whether the row belongs to
    another tenant or does not exist.
    """

    def __init__(self, traits: Traits[object]) -> None:
        self.traits = traits

    # Computed at the first request, because a class may refer to one that is mapped later.
    @cached_property
    def all(self) -> tuple[TenantReference, ...]:
        """The foreign keys of the class to tenants' rows."""
        return tenant_references(self.traits.model)

    async def before_create(self, repository: Repository, data: BaseModel) -> Checked:
        """Check the foreign keys in ``data``, a Pydantic object. One statement, if there are any."""
        if not self.all:
            return {}
        values = {**self._fields(data, set_only=False), **self._fields(data)}
        # A column that is not given may have a default, which `after` checks in the written row.
        unset = dict.fromkeys(self.traits.null_unless_set)
        return await self._check(repository, {**unset, **values}, self.all)

    async def before_update(self, repository: Repository, key: object, data: BaseModel) -> Checked:
        """Check the foreign keys that ``data`` changes, wholly or in part. One statement, if there are any.

        Missing columns of a composite key, and the tenant, are read from the stored row with one more statement. That
        row is locked: otherwise two requests that each change one column could together write an unchecked key.
        """
        if not self.all:
            return {}
        values = self._fields(data)
        changed = [each for each in self.all if values.keys() & set(each.fields)]
        unnamed = repository.tenant_id is ALL_TENANTS and self.traits.tenant not in values
        if changed and (unnamed or any(field not in values for each in changed for field in each.fields)):
            row = await repository.for_update().get_by_id_or_raise(key)
            values = {**await self._stored(repository, row, changed), **values}
        return await self._check(repository, values, changed)

    async def after(self, repository: Repository, entity: object, checked: Checked, *, created: bool) -> None:
        """Check the foreign keys of the written row that were not checked before, such as defaults.

        No statement, unless a default, a hook or anything but the request's data has set a key.
        """
        if not self.all:
            return
        plain = type(repository) in (AsyncRepository, AsyncTenantRepository)
        looked = self.all if created or not plain else tuple(checked)
        values = await self._stored(repository, entity, looked)
        others = [each for each in looked if _values(each, values) != checked.get(each)]
        await self._check(repository, values, others)

    async def _check(
        self, repository: Repository, values: Mapping[str, object], references: Collection[TenantReference]
    ) -> Checked:
        keys = {field: values[field] for each in references for field in each.fields if field in values}
        tenant = self.traits.tenant
        if tenant is not None and tenant in values:
            keys[tenant] = values[tenant]
        if any(value is not None for value in keys.values()):
            missing = await async_missing_references(
                repository.db, self.traits.model, keys, tenant_id=repository.tenant_id
            )
            for reference in missing:
                if reference in references:
                    raise ConstraintViolationError(
                        f"{self.traits.name}: the {reference.target} that it refers to does not exist.",
                        fields=reference.fields,
                    )
        return {each: _values(each, values) for each in references}

    async def _stored(
        self, repository: Repository, row: object, references: Iterable[TenantReference]
    ) -> dict[str, object]:
        tenant = self.traits.tenant
        fields = {field for each in references for field in each.fields} | ({tenant} if tenant is not None else set())
        if fields <= vars(row).keys():
            return {field: getattr(row, field) for field in fields}
        # Deferred columns are loaded explicitly: some raise when they are accessed.
        await repository.db.refresh(row, [field for field in fields if field not in vars(row)])
        return {field: getattr(row, field) for field in fields}

    def _fields(self, data: BaseModel, *, set_only: bool = True) -> dict[str, object]:
        """The values of a Pydantic object by attribute name, with synonyms resolved."""
        names = data.model_fields_set if set_only else type(data).model_fields
        values = {self._canonical(name): getattr(data, name) for name in names}
        return {**(data.model_extra or {}), **values}

    def _canonical(self, name: str) -> str:
        synonym = self.traits.mapper.synonyms.get(name)
        return name if synonym is None else synonym.name


def _values(reference: TenantReference, values: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(values.get(field) for field in reference.fields)
