"""Checks foreign keys to rows of tenants. The database alone would also accept a row of another tenant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Table, and_, exists, false, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql import ColumnElement

from ..dialects.own_statements import OWN
from ..errors import TenantIsolationError, TenantNotGivenError, TenantRequiredError, ValidationError
from ..execution.state import sync_session
from ..execution.work import read
from ..models.traits import Traits, traits_of
from ..sqlalchemy_internals import all_mappers, without_annotations
from ..tenancy.context import ALL_TENANTS, binding_of, confine
from ..tenancy.rls.policies import protected_tables
from ..tenancy.values import column_value, valid_tenant
from .coercion import coercer
from .scope import not_deleted_conditions


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

    def condition(self, traits: Traits[object], values: Mapping[str, object], tenant: object) -> ColumnElement[bool]:
        """The condition that the tenant has a row to which the values refer."""
        conditions: list[ColumnElement[bool]] = [self._owned(self._table, self._owner, tenant)]
        for key, column, target in self._pairs:
            own = key is not None and key == traits.tenant
            value = column_value(tenant, column) if own else _value(traits, key or "", column, values.get(key or ""))
            conditions.append(target == literal(value, column.type))
        return exists(select(literal(1)).select_from(self._table).where(*conditions, *self._living))

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
    session: Session, model: type, values: Mapping[str, object], *, tenant_id: object = None
) -> tuple[TenantReference, ...]:
    """The foreign keys in ``values`` (by attribute of ``model``) that do not refer to a row of the tenant.

    A row of another tenant, a soft-deleted row and a missing row are treated in the same way. A foreign key is
    skipped if ``values`` does not contain all of its columns. ``tenant_id=None`` is the tenant that the session is
    bound to; with `ALL_TENANTS`, it is the tenant in ``values``. Sends one statement for all foreign keys, or none if
    there is nothing to check. Raises `TenantRequiredError` if the tenant is unknown, and `ValidationError` for a value
    that can't be converted to its column's type.
    """
    traits: Traits[object] = traits_of(model)
    complete = [each for each in tenant_references(model) if all(field in values for field in each.fields)]
    to_check = [each for each in complete if each.names_a_row(values)]
    wrong = {each for each in complete if each.names_a_row(values) is None}
    if to_check:
        sync = sync_session(session)
        tenant = _tenant(sync, traits, values, tenant_id)
        statement: object = select(*(each.condition(traits, values, tenant) for each in to_check))
        answers = _answers(sync, traits, statement, tenant_id)
        wrong |= {each for each, answer in zip(to_check, answers, strict=True) if not answer}
    return tuple(each for each in complete if each in wrong)


async def async_missing_references(
    session: AsyncSession, model: type, values: Mapping[str, object], *, tenant_id: object = None
) -> tuple[TenantReference, ...]:
    """As `missing_references`, for an `AsyncSession`."""
    return await session.run_sync(missing_references, model, values, tenant_id=tenant_id)


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


def _answers(session: Session, traits: Traits[object], statement: Any, tenant_id: object) -> Sequence[object]:
    if tenant_id is not None:
        confine(session, tenant_id)

    def work(execution_options: Mapping[str, object]) -> Sequence[object]:
        # A guarded session would refuse the statement, because it names tables instead of mapped classes. The option
        # OWN skips this check. That is safe, because each table has the tenant's condition.
        own = {**execution_options, OWN: True}
        return session.execute(statement, execution_options=own, bind_arguments={"mapper": traits.mapper}).one()

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
