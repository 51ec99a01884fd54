"""The values that the toolkit sets in rows: tenant, discriminator, audit columns, first version and key.

Each rule stands here once, for rows with the same fields: a field is a list with the value of each row. One row is a
list of one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Uuid

from ..errors import TenantIsolationError, TenantRequiredError, ValidationError
from ..models.living import flag_value
from ..models.traits import VersionSource
from ..tenancy.context import ALL_TENANTS
from ..types import UTCDateTime, utc_now
from ..uuids import NewId, uuids7
from .data import Values, is_sql
from .fields import Fields

Column: TypeAlias = list[Any]
"""The values of one field in all rows."""

Columns: TypeAlias = dict[str, Column]
"""For each field, by attribute key, its values."""


@dataclass(frozen=True, slots=True)
class Stamps(Fields):
    """Sets values in rows. A value of the data is not replaced, but refused if the rows must not have it."""

    new_id: NewId | None = None
    """Makes the UUID keys. None: they are of version 7."""

    def stamp_new(self, columns: Columns, many: int) -> None:
        """Set the values in new rows.

        Raises `TenantIsolationError` or `TenantRequiredError` for a tenant that is not the scope's, or that is missing,
        and `ValidationError` if the class is abstract or the data names another class.
        """
        traits = self.reader.traits
        if traits.tenant is not None:
            columns[traits.tenant] = self._tenants(traits.tenant, columns.get(traits.tenant), many)
        if traits.abstract:
            names = [each.class_.__name__ for each in traits.mapper.self_and_descendants if each is not traits.mapper]
            raise ValidationError(f"{traits.name} is abstract: create one of {', '.join(sorted(names))}.")
        if traits.discriminator is not None:
            self._stamp_class(columns, traits.discriminator, many)
        self._stamp_moments(columns, (traits.created_at, traits.updated_at), many)
        if self.actor is not None:
            self._stamp_actor(columns, (traits.created_by, traits.updated_by), many)
        mark = traits.is_deleted
        if mark is not None and traits.columns[mark].default is None:
            columns.setdefault(mark, [flag_value(traits.columns[mark], deleted=False)] * many)
        if traits.version is not None:
            self._stamp_version(columns, traits.version, many)
        if traits.makes_uuid is not None:
            columns[traits.makes_uuid] = self._keys(traits.makes_uuid, columns.get(traits.makes_uuid), many)

    def stamp_change(self, columns: Columns, many: int) -> None:
        """Set the audit columns of changed rows."""
        traits = self.reader.traits
        self._stamp_moments(columns, (traits.updated_at,), many)
        if self.actor is not None:
            self._stamp_actor(columns, (traits.updated_by,), many)

    def refuse_tenants(self, values: Iterable[object]) -> None:
        """Raise `TenantIsolationError` if one of the values of the tenant column is not the scope's tenant."""
        tenant = self.reader.scope.tenant
        if tenant is not ALL_TENANTS and any(each is not None and each != tenant for each in values):
            raise TenantIsolationError(f"{self.traits.name}: the data names another tenant.")

    def refuse_version(self, values: Values | Columns) -> None:
        """Raise `ValidationError` if the changes contain a version that the toolkit or the mapper sets."""
        traits = self.traits
        if traits.version in values and traits.version_source is not VersionSource.DATABASE:
            raise ValidationError(
                f"{traits.name}.{traits.version} is set automatically; pass expected_version= to check it.",
                field=traits.version,
            )

    def _tenants(self, key: str, values: Column | None, many: int) -> Column:
        tenant = self.reader.scope.tenant
        if tenant is not ALL_TENANTS:
            if values is not None:
                self.refuse_tenants(values)
            return [tenant] * many
        if values is None or any(each is None for each in values):
            raise TenantRequiredError(f"{self.traits.name}.{key} must name the tenant of the row.", field=key)
        return values

    def _stamp_class(self, columns: Columns, key: str, many: int) -> None:
        """Set the discriminator of new rows, which INSERT … SELECT and COPY would not set."""
        identity = self.traits.mapper.polymorphic_identity
        values = columns.get(key)
        if values is None:
            if identity is not None:
                columns[key] = [identity] * many
            return
        if any(each is not None and (is_sql(each) or each != identity) for each in values):
            raise ValidationError(f"{self.traits.name}.{key}: the data names another class.", field=key)
        columns[key] = [identity if each is None else each for each in values]

    def _stamp_moments(self, columns: Columns, keys: Sequence[str | None], many: int) -> None:
        moments: list[datetime] | None = None
        for key in keys:
            if key is not None and key not in columns:
                moments = moments or [utc_now() for _ in range(many)]
                is_plain = isinstance(self.traits.columns[key].type, UTCDateTime)
                columns[key] = moments if is_plain else [self.coerced(key, each) for each in moments]

    def _stamp_actor(self, columns: Columns, keys: Iterable[str | None], many: int) -> None:
        for key in keys:
            if key is not None:
                columns.setdefault(key, [self.actor] * many)

    def _stamp_version(self, columns: Columns, key: str, many: int) -> None:
        """Set the first version of new rows. A version that the ORM generates replaces one in the data."""
        source = self.traits.version_source
        if source is VersionSource.TOOLKIT:
            if self.traits.columns[key].default is None:
                columns.setdefault(key, [1] * many)
        elif source is not VersionSource.DATABASE:
            first: Any = self.traits.mapper.version_id_generator
            columns[key] = [first(None) for _ in range(many)]

    def _keys(self, key: str, values: Column | None, many: int) -> Column:
        """The keys of new rows: new UUIDs for those that have none."""
        missing = many if values is None else sum(each is None for each in values)
        uuids: Column = [self.new_id() for _ in range(missing)] if self.new_id is not None else uuids7(missing)
        type_ = self.traits.columns[key].type
        if self.new_id is not None or not (isinstance(type_, Uuid) and type_.as_uuid):
            uuids = [self.coerced(key, uuid) for uuid in uuids]
        if values is None:
            return uuids
        rest = iter(uuids)
        return [next(rest) if each is None else each for each in values]
