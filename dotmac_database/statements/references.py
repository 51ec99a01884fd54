"""Foreign keys to tenants' rows: the database alone would take another tenant's row for an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Table, and_, exists, false, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql import ColumnElement

from ..dialects.own import OWN
from ..errors import TenantIsolationError, TenantNotGivenError, TenantRequiredError, ValidationError
from ..execution.state import sync_session
from ..execution.work import read
from ..models.traits import Traits, traits_of
from ..sqlalchemy_internals import all_mappers, without_annotations
from ..tenancy.context import ALL_TENANTS, binding_of, confine
from ..tenancy.rls.policies import protected_tables
from ..tenancy.values import column_value, valid_tenant
from .coercion import coercer
from .scope import alive


@dataclass(frozen=True, eq=False)
class TenantReference:
    """A foreign key of a mapped class to a table of tenants' rows, whichever class maps that table, or none.

    ``fields`` are the attributes that hold the key, without the tenant's; ``target`` is the name of what it refers to,
    a class or a table. ``full``: the key is MATCH FULL, so that it is NULL as a whole or not at all.
    """

    fields: tuple[str, ...]
    target: str
    full: bool
    _pairs: tuple[tuple[str | None, Column[Any], Column[Any]], ...]
    """The attribute, None where the class has none; its column; the column that it names."""
    _table: Table
    _owner: Column[Any] | None
    _protected: Mapping[Table, Column[Any] | None]
    _living: tuple[ColumnElement[bool], ...]

    def names_a_row(self, values: Mapping[str, Any]) -> bool | None:
        """Whether the values ask for a row. None: they are known to be a key that names none, whatever is there.

        With a NULL a key refers to nothing, but a MATCH FULL one that is NULL in part is wrong. A column that no
        attribute has can't be known, so a key that holds it is wrong, too.
        """
        given = [values.get(field) for field in self.fields]
        if all(value is None for value in given):
            return False
        if None in given:
            return None if self.full else False
        return None if any(key is None for key, _, _ in self._pairs) else True

    def found(self, traits: Traits[Any], values: Mapping[str, Any], tenant: Any) -> ColumnElement[bool]:
        """The condition that the values name a row of the tenant."""
        conditions: list[ColumnElement[bool]] = [self._owned(self._table, self._owner, tenant)]
        for key, column, target in self._pairs:
            own = key is not None and key == traits.tenant
            value = column_value(tenant, column) if own else _value(traits, key or "", column, values.get(key or ""))
            conditions.append(target == literal(value, column.type))
        return exists(select(literal(1)).select_from(self._table).where(*conditions, *self._living))

    def _owned(self, table: Table, owner: Column[Any] | None, tenant: Any) -> ColumnElement[bool]:
        if owner is not None:
            try:
                return owner == literal(column_value(tenant, owner), owner.type)
            except TenantIsolationError:
                return false()  # the column can't hold such a name, so no row is the tenant's
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
            for key in _keys_of_owners(table, self._protected)
        ]
        return and_(*parents) if parents else false()


def tenant_references(model: type) -> tuple[TenantReference, ...]:
    """The foreign keys of a mapped class, its parents' tables included, to tables of tenants' rows.

    Such a table is known by any class of any base that maps it, or by its tenant column. The key by which a joined
    child's row is its parent's is not among them, nor one that names nothing but the tenant. No I/O.
    """
    traits: Traits[Any] = traits_of(model)
    return traits.cached(("references",), lambda: _references_of(traits))


def missing_references(
    session: Session, model: type, values: Mapping[str, Any], *, tenant_id: Any = None
) -> tuple[TenantReference, ...]:
    """The foreign keys in ``values`` (attributes of ``model``) that name no row of the tenant.

    Another tenant's row, one that is soft-deleted, and one that does not exist are all the same. A key of which
    ``values`` has not all columns is left out. ``tenant_id`` None is the tenant that the session is bound to, and with
    `ALL_TENANTS` it is the one that ``values`` names. One statement for all keys, none where there is nothing to ask.
    Raises `TenantRequiredError` where the tenant is not known, `ValidationError` for a value that is no key.
    """
    traits: Traits[Any] = traits_of(model)
    whole = [each for each in tenant_references(model) if all(field in values for field in each.fields)]
    asked = [each for each in whole if each.names_a_row(values)]
    wrong = {each for each in whole if each.names_a_row(values) is None}
    if asked:
        plain = sync_session(session)
        tenant = _tenant(plain, traits, values, tenant_id)
        statement: Any = select(*(each.found(traits, values, tenant) for each in asked))
        answers = _answers(plain, traits, statement, tenant_id)
        wrong |= {each for each, answer in zip(asked, answers, strict=True) if not answer}
    return tuple(each for each in whole if each in wrong)


async def async_missing_references(
    session: AsyncSession, model: type, values: Mapping[str, Any], *, tenant_id: Any = None
) -> tuple[TenantReference, ...]:
    """As `missing_references`, for an `AsyncSession`."""
    return await session.run_sync(missing_references, model, values, tenant_id=tenant_id)


def _tenant(session: Session, traits: Traits[Any], values: Mapping[str, Any], tenant_id: Any) -> Any:
    binding = binding_of(session)
    if tenant_id is None and binding is not None:
        tenant_id = binding.tenant
    unknown: type[TenantRequiredError] = TenantNotGivenError
    if tenant_id is ALL_TENANTS:
        tenant_id, unknown = values.get(traits.tenant or ""), TenantRequiredError
    if tenant_id is None:
        raise unknown(f"{traits.name} refers to tenants' rows, and the tenant is not known.")
    return valid_tenant(tenant_id)


def _answers(session: Session, traits: Traits[Any], statement: Any, tenant_id: Any) -> Sequence[Any]:
    if tenant_id is not None:
        confine(session, tenant_id)

    def work(execution_options: Mapping[str, Any]) -> Sequence[Any]:
        # The statement names tables, which a guarded session would refuse; each has the tenant's condition here.
        asked = {**execution_options, OWN: True}
        return session.execute(statement, execution_options=asked, bind_arguments={"mapper": traits.mapper}).one()

    return read(session, work, traits.model)


def _references_of(traits: Traits[Any]) -> tuple[TenantReference, ...]:
    own = {column: prop.key for prop in traits.mapper.column_attrs for column in prop.columns}
    found = [_reference(traits, own, key) for table in traits.tables for key in _sorted(table)]
    return tuple(each for each in found if each is not None)


def _reference(traits: Traits[Any], own: Mapping[Any, str], key: ForeignKeyConstraint) -> TenantReference | None:
    target = key.referred_table
    protected = protected_tables(target.metadata)
    owner = protected.get(target)
    if target not in protected:
        # A table that no class maps may name the tenant as this class does.
        owner = target.columns.get(traits.columns[traits.tenant].name) if traits.tenant is not None else None
        if owner is None:
            return None
    if _is_mappers_own(traits, key):
        return None
    pairs = tuple((own.get(element.parent), element.parent, element.column) for element in key.elements)
    fields = tuple(name for name, _, _ in pairs if name is not None and name != traits.tenant)
    if not fields:
        return None
    names = [mapper.class_.__name__ for mapper in _mappers_of(target) if mapper.local_table is target]
    full = (key.match or "").upper() == "FULL"
    name = names[0] if names else target.name
    return TenantReference(fields, name, full, pairs, target, owner, protected, tuple(_living(target)))


def _is_mappers_own(traits: Traits[Any], key: ForeignKeyConstraint) -> bool:
    """Whether this is the key by which a joined child's row is its parent's."""
    return (
        key.referred_table in traits.tables
        and key.referred_table is not key.table
        and set(key.columns) == set(key.table.primary_key.columns)
    )


def _keys_of_owners(table: Table, protected: Mapping[Table, Any]) -> list[ForeignKeyConstraint]:
    """The keys by which the rows of a table without a tenant's column belong to somebody, as the policies know them."""
    found = [each for each in _sorted(table) if each.referred_table in protected and each.referred_table is not table]
    of_key = [each for each in found if set(each.columns) <= set(table.primary_key.columns)]
    return of_key or found


def _sorted(table: Table) -> list[ForeignKeyConstraint]:
    return sorted(table.foreign_key_constraints, key=lambda each: [column.name for column in each.columns])


def _mappers_of(table: Table) -> list[Mapper[Any]]:
    return sorted(
        (mapper for mapper in all_mappers() if table in mapper.tables),
        key=lambda each: (len(list(each.iterate_to_root())), each.class_.__name__),
    )


def _value(traits: Traits[Any], field: str, column: Column[Any], value: Any) -> Any:
    try:
        return coercer(column.type)(value)
    except ValueError as expected:
        raise ValidationError(f"{traits.name}.{field} takes {expected}.", field=field) from None


def _living(table: Table) -> Iterator[ColumnElement[bool]]:
    """The conditions that a row is not soft-deleted, as the classes of the table say."""
    said: set[Column[Any]] = set()
    for mapper in _mappers_of(table):
        traits = traits_of(mapper.class_)
        mark = traits.columns.get(traits.is_deleted or traits.deleted_at or "")
        if mark is None or mark in said or mapper.local_table is not table:
            continue
        said.add(mark)
        condition = without_annotations(alive(traits, mapper.class_)[0])
        if mark.table is table:
            yield condition
            continue
        # A joined child's mark is its parent's.
        keys = [mapper.attrs[key].columns for key in traits.primary_key]
        here = [next(each for each in columns if each.table is table) for columns in keys]
        there = [next(each for each in columns if each.table is mark.table) for columns in keys]
        same = [one == other for one, other in zip(here, there, strict=True)]
        yield exists(select(literal(1)).select_from(mark.table).where(*same, condition).correlate(table))
