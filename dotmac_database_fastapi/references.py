"""Checks that the foreign keys in a request refer to rows of the request's own tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel
from sqlalchemy import inspect as sa_inspect
from sqlalchemy import select

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    AsyncTenantRepository,
    ConstraintViolationError,
    TenantReference,
    Traits,
    async_first_missing_reference,
    async_missing_references,
    tenant_references,
)

from .aliases import Data, Repository

Checked = Mapping[TenantReference, tuple[object, ...]]
"""The foreign keys that were checked, with their values."""


class References:
    """Checks the foreign keys of a class to tenants' rows, before a row is written and, if needed, afterwards.

    A key that refers to no row of the tenant is a `ConstraintViolationError`, the same whether the row belongs to
    another tenant or does not exist.
    """

    def __init__(self, traits: Traits[object], filled: Collection[str] = ()) -> None:
        """``filled``: the columns that the toolkit fills with the key of a row which it has just written."""
        self.traits = traits
        self._filled = frozenset(filled)

    # Computed at the first request, because a class may refer to one that is mapped later.
    @cached_property
    def all(self) -> tuple[TenantReference, ...]:
        """The foreign keys of the class to tenants' rows, except those that are filled."""
        return tuple(each for each in tenant_references(self.traits.model) if not self._filled.issuperset(each.fields))

    async def before_create(self, repository: Repository, data: Data) -> Checked:
        """Check the foreign keys in the data of a new row. One statement, if there are any."""
        if not self.all:
            return {}
        return await self._check(repository, self._new_values(data), self.all)

    async def before_create_many(self, repository: Repository, rows: Sequence[Data]) -> list[Checked]:
        """As `before_create`, for many rows. One statement for each foreign key. An error has the ``index`` of its row.

        With `ALL_TENANTS` there is one statement for each tenant in the rows, too.
        """
        if not self.all:
            return []
        return await self._check_many(repository, [self._new_values(data) for data in rows], [self.all] * len(rows))

    def _new_values(self, data: Data) -> dict[str, object]:
        # A column that is not given may have a default, which `after` checks in the written row.
        unset = dict.fromkeys(self.traits.null_unless_set)
        return {**unset, **self._fields(data, set_only=False), **self._fields(data)}

    async def before_update(self, repository: Repository, key: object, data: Data) -> Checked:
        """Check the foreign keys that ``data`` changes, wholly or in part. One statement, if there are any.

        Missing columns of a composite key, and the tenant, are read from the stored row with one more statement. That
        row is locked: otherwise two requests that each change one column could together write an unchecked key.
        """
        if not self.all:
            return {}
        values = self._fields(data)
        changed = self._changed(values)
        if self._lacks(repository, values, changed):
            row = await repository.for_update().get_by_id_or_raise(key)
            values = {**await self._stored(repository, row, changed), **values}
        return await self._check(repository, values, changed)

    async def before_update_many(
        self, repository: Repository, rows: Sequence[Data], stored: Sequence[object]
    ) -> list[Checked]:
        """As `before_update`, for many rows. ``stored`` are the rows as they are, which the caller has locked."""
        if not self.all:
            return []
        own = self.traits.primary_key  # names the row, and is not changed
        values = [{key: each for key, each in self._fields(data).items() if key not in own} for data in rows]
        changed = [self._changed(each) for each in values]
        for place, row in enumerate(stored):
            if self._lacks(repository, values[place], changed[place]):
                values[place] = {**await self._stored(repository, row, changed[place]), **values[place]}
        return await self._check_many(repository, values, changed)

    def _changed(self, values: Mapping[str, object]) -> list[TenantReference]:
        return [each for each in self.all if values.keys() & set(each.fields)]

    def _lacks(
        self, repository: Repository, values: Mapping[str, object], changed: Collection[TenantReference]
    ) -> bool:
        """Whether a part of a changed foreign key is only in the stored row."""
        unnamed = repository.tenant_id is ALL_TENANTS and self.traits.tenant not in values
        return bool(changed) and (unnamed or any(field not in values for each in changed for field in each.fields))

    async def after(self, repository: Repository, entity: object, checked: Checked, *, created: bool) -> None:
        """Check the foreign keys of the written row that were not checked before, such as defaults.

        No statement, unless a default, a hook or anything but the request's data has set a key.
        """
        if not self.all:
            return
        values, others = await self._unchecked(repository, entity, checked, created=created)
        await self._check(repository, values, others)

    async def after_many(
        self, repository: Repository, entities: Sequence[object], checked: Sequence[Checked], *, created: bool
    ) -> None:
        """As `after`, for many rows. An error has the ``index`` of its row."""
        if not self.all:
            return
        pairs = zip(entities, checked, strict=True)
        written = [await self._unchecked(repository, entity, before, created=created) for entity, before in pairs]
        await self._check_many(repository, [values for values, _ in written], [others for _, others in written])

    async def held(self, repository: Repository, entities: Sequence[object]) -> list[Checked]:
        """The foreign keys that these rows have, for a later `after_many`, which then checks those that have changed.

        No statement, unless a column is deferred.
        """
        rows = [await self._stored(repository, entity, self.all) if self.all else {} for entity in entities]
        return [{each: _values(each, values) for each in self.all} for values in rows]

    async def _unchecked(
        self, repository: Repository, entity: object, checked: Checked, *, created: bool
    ) -> tuple[dict[str, object], list[TenantReference]]:
        """The foreign keys of the written row, and which of them were not checked with these values."""
        plain = type(repository) in (AsyncRepository, AsyncTenantRepository)
        looked = self.all if created or not plain else tuple(checked)
        values = await self._stored(repository, entity, looked)
        return values, [each for each in looked if _values(each, values) != checked.get(each)]

    async def _check(
        self, repository: Repository, values: Mapping[str, object], references: Collection[TenantReference]
    ) -> Checked:
        keys = self._keys(values, references)
        if any(value is not None for value in keys.values()):
            with repository.sharing_policies():
                missing = await async_missing_references(
                    repository.db, self.traits.model, keys, tenant_id=repository.tenant_id
                )
            for reference in missing:
                if reference in references:
                    raise self._refusal(reference)
        return {each: _values(each, values) for each in references}

    async def _check_many(
        self,
        repository: Repository,
        rows: Sequence[Mapping[str, object]],
        references: Sequence[Collection[TenantReference]],
    ) -> list[Checked]:
        keys = [self._keys(values, each) if each else {} for values, each in zip(rows, references, strict=True)]
        if any(value is not None for each in keys for value in each.values()):
            with repository.sharing_policies():
                missing = await async_first_missing_reference(
                    repository.db, self.traits.model, keys, tenant_id=repository.tenant_id
                )
            if missing is not None:
                refusal = self._refusal(missing[1])
                refusal.index = missing[0]
                raise refusal
        return [{each: _values(each, values) for each in own} for values, own in zip(rows, references, strict=True)]

    def _keys(self, values: Mapping[str, object], references: Iterable[TenantReference]) -> dict[str, object]:
        """The values of these foreign keys, and of the tenant."""
        keys = {field: values[field] for each in references for field in each.fields if field in values}
        tenant = self.traits.tenant
        if tenant is not None and tenant in values:
            keys[tenant] = values[tenant]
        return keys

    def _refusal(self, reference: TenantReference) -> ConstraintViolationError:
        return ConstraintViolationError(
            f"{self.traits.name}: the {reference.target} that it refers to does not exist.", fields=reference.fields
        )

    async def _stored(
        self, repository: Repository, row: object, references: Iterable[TenantReference]
    ) -> dict[str, object]:
        tenant = self.traits.tenant
        fields = {field for each in references for field in each.fields} | ({tenant} if tenant is not None else set())
        if fields <= vars(row).keys():
            return {field: getattr(row, field) for field in fields}
        # By columns of their own: deferred ones can raise when they are accessed, and some are hidden from the actor.
        names = sorted(fields)
        columns: list[Any] = [self.traits.attribute(name) for name in names]
        mapper = self.traits.mapper
        key = zip(mapper.primary_key, sa_inspect(row).identity or (), strict=True)
        stored = await repository.db.execute(select(*columns).where(*(column == part for column, part in key)))
        return dict(zip(names, stored.one(), strict=True))

    def _fields(self, data: Data, *, set_only: bool = True) -> dict[str, object]:
        """The values of a Pydantic object, or of a dict, by attribute name, with synonyms resolved."""
        if not isinstance(data, BaseModel):
            return {self._canonical(name): value for name, value in data.items()}
        names = data.model_fields_set if set_only else type(data).model_fields
        values = {self._canonical(name): getattr(data, name) for name in names}
        return {**(data.model_extra or {}), **values}

    def _canonical(self, name: str) -> str:
        synonym = self.traits.mapper.synonyms.get(name)
        return name if synonym is None else synonym.name


def _values(reference: TenantReference, values: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(values.get(field) for field in reference.fields)
