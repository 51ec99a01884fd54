"""Checks foreign keys to rows of tenants. The database alone would also accept a row of another tenant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Table, and_, exists, false, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session, aliased
from sqlalchemy.sql import ColumnElement
from sqlalchemy.types import TypeEngine

from ..dialects import dialect_named
from ..dialects.base import Dialect
from ..dialects.own_statements import OWN
from ..errors import DatabaseError, TenantIsolationError, TenantNotGivenError, TenantRequiredError, ValidationError
from ..execution.state import sync_session
from ..execution.work import read
from ..field_names import FieldValues, named_values
from ..models.traits import Traits, traits_of
from ..policies import Right, rules_of
from ..sqlalchemy_internals import all_mappers, without_annotations
from ..tenancy.context import ALL_TENANTS, binding_of, confine
from ..tenancy.rls.policies import protected_tables
from ..tenancy.values import column_value, valid_tenant
from .coercion import coercer
from .rules import RulesInSql
from .scope import Scope, not_deleted_conditions


@dataclass(frozen=True, eq=False)
class TenantReference:
    """A foreign key of a mapped class to a table that contains rows of tenants. The table need not have a mapped class.

    ``fields`` are the attributes of the foreign key, except the tenant. ``target`` is the name of the class or table
    that it refers to. ``full``: the foreign key is MATCH FULL, so either all of its columns are NULL or none.
    """

    fields: tuple[str, ...]
    target: str
    full: bool
    _pairs: tuple[tuple[str | None, Column[object], Column[object]], ...]
    """For each column of the key: its attribute (or None), the column itself, and the column that it refers to."""
    _table: Table
    _owner: Column[object] | None
    _protected: Mapping[Table, Column[object] | None]
    _living: tuple[ColumnElement[bool], ...]

    @property
    def table(self) -> Table:
        """The table that the foreign key refers to."""
        return self._table

    def names_a_row(self, values: Mapping[str, object]) -> bool | None:
        """Whether the values refer to a row, which must then exist. None: the values are wrong, whatever rows exist.

        A foreign key with a NULL refers to no row; but a MATCH FULL key in which only some columns are NULL is wrong.
        The value of a column without an attribute is unknown, so a key with such a column is wrong, too.
        """
        key_values = [values.get(field) for field in self.fields]
        if all(value is None for value in key_values):
            return False
        if None in key_values:
            return None if self.full else False
        return None if any(key is None for key, _, _ in self._pairs) else True

    def condition(
        self, traits: Traits[object], values: Mapping[str, object], tenant: object, *readable: ColumnElement[bool]
    ) -> ColumnElement[bool]:
        """The condition that the tenant has a row to which the values refer, and which meets ``readable``."""
        conditions: list[ColumnElement[bool]] = [self._owned(self._table, self._owner, tenant)]
        for key, column, target in self._pairs:
            own = key is not None and key == traits.tenant
            value = column_value(tenant, column) if own else _value(traits, key or "", column, values.get(key or ""))
            conditions.append(target == literal(value, column.type))
        return exists(select(literal(1)).select_from(self._table).where(*conditions, *self._living, *readable))

    def target_key(self, traits: Traits[object], values: Mapping[str, object]) -> tuple[object, ...]:
        """The key in ``values``, without the tenant, as the columns that it refers to store it."""
        parts = (
            _value(traits, key or "", column, values.get(key or ""))
            for key, column, _ in self._pairs
            if key != traits.tenant
        )
        return self.coerced(traits, tuple(parts))

    def coerced(self, traits: Traits[object], key: Sequence[object]) -> tuple[object, ...]:
        """A key, without the tenant, with values of the types of the columns that it refers to."""
        return tuple(map(_converted, (column.type for column in self._targets(traits)), key))

    def among(
        self,
        traits: Traits[object],
        tenant: object,
        dialect: Dialect,
        keys: Sequence[tuple[object, ...]],
        *readable: ColumnElement[bool],
    ) -> tuple[object, Mapping[str, object]]:
        """The SELECT of those of the keys (see `target_key`) to which the tenant has a row, and its parameters."""
        columns = self._targets(traits)
        own = [
            target == literal(column_value(tenant, column), column.type)
            for key, column, target in self._pairs
            if key is not None and key == traits.tenant
        ]
        among = dialect.row_among(columns, "dotmac_keys")
        statement = select(*columns).where(
            self._owned(self._table, self._owner, tenant), *own, among, *self._living, *readable
        )
        return statement, dialect.row_parameters(columns, "dotmac_keys", keys)

    def _targets(self, traits: Traits[object]) -> list[Column[object]]:
        return [target for key, _, target in self._pairs if key is None or key != traits.tenant]

    def _owned(self, table: Table, owner: Column[object] | None, tenant: object) -> ColumnElement[bool]:
        """The condition that a row belongs to the tenant, by its column ``owner``; None: by the row's parents."""
        if owner is not None:
            try:
                return owner == literal(column_value(tenant, owner), owner.type)
            except TenantIsolationError:
                return false()  # the column can't store this tenant, so no row belongs to it
        parents = [
            exists(
                select(literal(1))
                .select_from(key.referred_table)
                .where(
                    *(element.column == element.parent for element in key.elements),
                    self._owned(key.referred_table, self._protected[key.referred_table], tenant),
                )
                .correlate(table)
            )
            for key in _owner_keys(table, self._protected)
        ]
        return and_(*parents) if parents else false()


def tenant_references(model: type) -> tuple[TenantReference, ...]:
    """The foreign keys of a mapped class, and of its parents' tables, to tables that contain rows of tenants.

    Such a table is recognised by any mapped class of any declarative base, or by its tenant column. Two kinds of
    foreign keys are left out: those that join a child's table to its parent's (joined inheritance), and those that
    consist of the tenant column only. Sends no statement.
    """
    traits: Traits[object] = traits_of(model)
    return traits.cached(("references",), lambda: _references_of(traits))


def missing_references(
    session: Session, model: type, values: FieldValues[object], *, tenant_id: object = None
) -> tuple[TenantReference, ...]:
    """The foreign keys in ``values`` (by attribute of ``model``) that do not refer to a row of the tenant.

    A row of another tenant, a soft-deleted row and a missing row are treated in the same way. A foreign key is
    skipped if ``values`` does not contain all of its columns. ``tenant_id=None`` is the tenant that the session is
    bound to; with `ALL_TENANTS`, it is the tenant in ``values``. Sends one statement for all foreign keys, or none if
    there is nothing to check. Raises `TenantRequiredError` if the tenant is unknown, and `ValidationError` for a value
    that can't be converted to its column's type. With `bind_policies`, a row that the actor can't read is missing, too.
    """
    traits: Traits[object] = traits_of(model)
    values = named_values(model, values)
    complete = [each for each in tenant_references(model) if all(field in values for field in each.fields)]
    to_check = [each for each in complete if each.names_a_row(values)]
    wrong = {each for each in complete if each.names_a_row(values) is None}
    if to_check:
        sync = sync_session(session)
        tenant = _tenant(sync, traits, values, tenant_id)
        conditions = (each.condition(traits, values, tenant, *_readable(sync, each, tenant)) for each in to_check)
        statement: object = select(*conditions)
        [answers] = _read(sync, traits, statement, tenant_id)
        wrong |= {each for each, answer in zip(to_check, answers, strict=True) if not answer}
    return tuple(each for each in complete if each in wrong)


async def async_missing_references(
    session: AsyncSession, model: type, values: FieldValues[object], *, tenant_id: object = None
) -> tuple[TenantReference, ...]:
    """As `missing_references`, for an `AsyncSession`."""
    return await session.run_sync(missing_references, model, values, tenant_id=tenant_id)


def first_missing_reference(
    session: Session, model: type, rows: Sequence[FieldValues[object]], *, tenant_id: object = None
) -> tuple[int, TenantReference] | None:
    """The position of the first of many rows with a foreign key that `missing_references` would return, and that key.

    None if there is no such row. Sends one statement for each foreign key of the class, for every 10,000 different
    values and, with `ALL_TENANTS`, for each tenant in ``rows``. A few more statements are sent if a value is not found
    in the form in which it was given. An error for a value has the ``index`` of its row.
    """
    traits: Traits[object] = traits_of(model)
    sync = sync_session(session)
    missing, named = list[tuple[int, TenantReference]](), [named_values(model, values) for values in rows]
    for reference in tenant_references(model):
        place = _first_missing(sync, traits, reference, named, tenant_id)
        if place is not None:
            missing.append((place, reference))
            named = named[:place]  # only an earlier row would matter
    return missing[-1] if missing else None


async def async_first_missing_reference(
    session: AsyncSession, model: type, rows: Sequence[FieldValues[object]], *, tenant_id: object = None
) -> tuple[int, TenantReference] | None:
    """As `first_missing_reference`, for an `AsyncSession`."""
    return await session.run_sync(first_missing_reference, model, rows, tenant_id=tenant_id)


_KEYS_OF_STATEMENT = 10_000
_ALTERNATIVES = 20
"""The most values that one statement looks up one by one."""


def _first_missing(
    session: Session,
    traits: Traits[object],
    reference: TenantReference,
    rows: Sequence[Mapping[str, object]],
    tenant_id: object,
) -> int | None:
    """The position of the first row whose foreign key is wrong."""
    groups: dict[object, dict[tuple[object, ...], int]] = {}
    wrong: int | None = None
    for place, values in enumerate(rows):
        is_named = reference.names_a_row(values) if all(field in values for field in reference.fields) else False
        if is_named is None:
            wrong = place
            break
        if is_named:
            try:
                tenant = _tenant(session, traits, values, tenant_id)
                key = reference.target_key(traits, values)
            except DatabaseError as refused:
                refused.index = place
                raise
            groups.setdefault(tenant, {}).setdefault(key, place)
    for tenant, places in groups.items():
        unknown = _first_unknown(session, traits, reference, places, rows, tenant, tenant_id)
        wrong = min((each for each in (wrong, unknown) if each is not None), default=None)
    return wrong


def _first_unknown(
    session: Session,
    traits: Traits[object],
    reference: TenantReference,
    places: Mapping[tuple[object, ...], int],
    rows: Sequence[Mapping[str, object]],
    tenant: object,
    tenant_id: object,
) -> int | None:
    """The first of the places whose key refers to no row of the tenant."""
    dialect = dialect_named(session.get_bind(traits.mapper).dialect.name)
    readable = _readable(session, reference, tenant)
    keys, known = list(places), set[tuple[object, ...]]()
    for start in range(0, len(keys), _KEYS_OF_STATEMENT):
        batch = keys[start : start + _KEYS_OF_STATEMENT]
        statement, parameters = reference.among(traits, tenant, dialect, batch, *readable)
        existing = _read(session, traits, statement, tenant_id, parameters)
        known.update(reference.coerced(traits, row) for row in existing)
    # The database can take values for equal that differ in Python, such as padded ones or those of other collations.
    others = [place for key, place in places.items() if key not in known]
    for start in range(0, len(others), _ALTERNATIVES):
        chosen = others[start : start + _ALTERNATIVES]
        conditions = {place: reference.condition(traits, rows[place], tenant, *readable) for place in chosen}
        statement = select(*(each.label(f"r{place}") for place, each in conditions.items()))
        [answers] = _read(session, traits, statement, tenant_id)
        for place, exists_ in zip(chosen, answers, strict=True):
            if not exists_:
                return place
    return None


def _readable(session: Session, reference: TenantReference, tenant: object) -> list[ColumnElement[bool]]:
    """The conditions that the session's actor may read the row to which a foreign key refers.

    The rules are applied to an alias of the class, whose rows can be in several tables.
    """
    rules = rules_of(session)
    table = reference.table
    mappers = [each for each in _mappers_of(table) if each.local_table is table]
    if rules is None or not mappers:
        return []
    traits: Traits[object] = traits_of(mappers[0].class_)
    dialect = dialect_named(session.get_bind(traits.mapper).dialect.name)
    entity: Any = aliased(traits.model)
    scope = Scope(tenant, include_deleted=True, inline=True)
    conditions = RulesInSql(rules, dialect, traits).conditions(Right.READ, traits, entity, scope)
    if not conditions:
        return []
    keys = [getattr(entity, name) for name in traits.primary_key]
    own = [_own_column(table, traits, name) for name in traits.primary_key]
    place: Any = own[0] if len(own) == 1 else tuple_(*own)
    return [place.in_(select(*keys).where(*scope.of(traits, entity), *conditions))]


def _own_column(table: Table, traits: Traits[object], name: str) -> Column[object]:
    columns: Any = traits.mapper.column_attrs[name].columns
    column: Column[object] = next(each for each in columns if each.table is table)
    return column


def _tenant(session: Session, traits: Traits[object], values: Mapping[str, object], tenant_id: object) -> object:
    binding = binding_of(session)
    if tenant_id is None and binding is not None:
        tenant_id = binding.tenant
    unknown: type[TenantRequiredError] = TenantNotGivenError
    if tenant_id is ALL_TENANTS:
        tenant_id, unknown = values.get(traits.tenant or ""), TenantRequiredError
    if tenant_id is None:
        raise unknown(f"{traits.name} refers to tenants' rows, and the tenant is not known.")
    return valid_tenant(tenant_id)


def _read(
    session: Session,
    traits: Traits[object],
    statement: Any,
    tenant_id: object,
    parameters: Mapping[str, object] | None = None,
) -> Sequence[Sequence[object]]:
    if tenant_id is not None:
        confine(session, tenant_id)

    def work(execution_options: Mapping[str, object]) -> Sequence[Sequence[object]]:
        # A guarded session would refuse the statement, because it names tables instead of mapped classes. The option
        # OWN skips this check. That is safe, because each table has the tenant's condition.
        own = {**execution_options, OWN: True}
        result = session.execute(statement, parameters, execution_options=own, bind_arguments={"mapper": traits.mapper})
        return result.all()

    return read(session, work, traits.model)


def _references_of(traits: Traits[object]) -> tuple[TenantReference, ...]:
    own = {column: prop.key for prop in traits.mapper.column_attrs for column in prop.columns}
    references = [_reference(traits, own, key) for table in traits.tables for key in _sorted(table)]
    return tuple(each for each in references if each is not None)


def _reference(traits: Traits[object], own: Mapping[Any, str], key: ForeignKeyConstraint) -> TenantReference | None:
    target = key.referred_table
    protected = protected_tables(target.metadata)
    owner = protected.get(target)
    if target not in protected:
        # A table without a mapped class can have a tenant column with the same name as this class.
        owner = target.columns.get(traits.columns[traits.tenant].name) if traits.tenant is not None else None
        if owner is None:
            return None
    if _joins_parent_table(traits, key):
        return None
    pairs = tuple((own.get(element.parent), element.parent, element.column) for element in key.elements)
    fields = tuple(name for name, _, _ in pairs if name is not None and name != traits.tenant)
    if not fields:
        return None
    names = [mapper.class_.__name__ for mapper in _mappers_of(target) if mapper.local_table is target]
    full = (key.match or "").upper() == "FULL"
    name = names[0] if names else target.name
    return TenantReference(fields, name, full, pairs, target, owner, protected, tuple(_living(target)))


def _joins_parent_table(traits: Traits[object], key: ForeignKeyConstraint) -> bool:
    """Whether the foreign key joins a child's table to its parent's (joined inheritance)."""
    return (
        key.referred_table in traits.tables
        and key.referred_table is not key.table
        and set(key.columns) == set(key.table.primary_key.columns)
    )


def _owner_keys(table: Table, protected: Mapping[Table, object]) -> list[ForeignKeyConstraint]:
    """The foreign keys that determine the tenant of a row in a table without a tenant column.

    They are the same as in the policies of row-level security: those in the primary key if there are any, else all.
    """
    keys = [each for each in _sorted(table) if each.referred_table in protected and each.referred_table is not table]
    in_primary_key = [each for each in keys if set(each.columns) <= set(table.primary_key.columns)]
    return in_primary_key or keys


def _sorted(table: Table) -> list[ForeignKeyConstraint]:
    return sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns])


def _mappers_of(table: Table) -> list[Mapper[object]]:
    """The mappers with this table, parents first."""
    return sorted(
        (mapper for mapper in all_mappers() if table in mapper.tables),
        key=lambda each: (len(list(each.iterate_to_root())), each.class_.__name__),
    )


def _value(traits: Traits[object], field: str, column: Column[object], value: object) -> object:
    try:
        return coercer(column.type)(value)
    except ValueError as expected:
        raise ValidationError(f"{traits.name}.{field} takes {expected}.", field=field) from None


def _converted(type_: TypeEngine[Any], value: object) -> object:
    """The value as the type has it in Python; unchanged if that is impossible, as no row is then found by it."""
    try:
        return coercer(type_)(value)
    except ValueError:
        return value


def _living(table: Table) -> Iterator[ColumnElement[bool]]:
    """The conditions that a row is not soft-deleted, by the soft-deletion columns of the classes on the table."""
    seen: set[Column[object]] = set()
    for mapper in _mappers_of(table):
        traits = traits_of(mapper.class_)
        mark = traits.columns.get(traits.deletion_mark or "")
        if mark is None or mark in seen or mapper.local_table is not table:
            continue
        seen.add(mark)
        condition = without_annotations(not_deleted_conditions(traits, mapper.class_)[0])
        if mark.table is table:
            yield condition
            continue
        # With joined inheritance, the soft-deletion column can be in the parent's table.
        keys = [mapper.attrs[key].columns for key in traits.primary_key]
        own = [next(each for each in columns if each.table is table) for columns in keys]
        parents = [next(each for each in columns if each.table is mark.table) for columns in keys]
        same = [one == other for one, other in zip(own, parents, strict=True)]
        yield exists(select(literal(1)).select_from(mark.table).where(*same, condition).correlate(table))
