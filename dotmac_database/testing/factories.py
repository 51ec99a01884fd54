"""Factories: rows of a class for tests, whose columns and parents are filled.

    def test_search(dotmac_session, dotmac_factory):
        invoice = dotmac_factory(Invoice).create(status="paid")

polyfactory, from the extra ``testing``, makes the values of types that have no obvious one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from sqlalchemy import Column, ForeignKeyConstraint, Table, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session

from ..errors import ValidationError
from ..models.traits import traits_of
from ..repositories import create_repository
from ..sqlalchemy_internals import all_mappers
from ..tenancy import ALL_TENANTS, bound_tenant, is_guarded, tenant_scope
from .column_values import ColumnValues, Values
from .tenants import TENANTS

M = TypeVar("M")


class ModelFactory(Generic[M]):
    """Makes rows of a class in a session, whose transaction they belong to: they are flushed, and not committed.

    A keyword argument is the value of an attribute. It can also be a many-to-one relationship, such as
    ``author=author``. What is not passed gets a value if the column needs one: columns that can be NULL, or that have a
    default, are left out. Texts are the name of their column and a number ("name 7"), within the column's length.
    A foreign key that is not nullable gets a new parent, with parents of its own; the rows of one call share it.

    A row of a tenant-scoped class, and its parents, belong to ``tenant``: None is the tenant of the session if it is
    bound to one, else the first of the fixture ``dotmac_tenants``. In a guarded session a row is detached after it was
    created, so that the session can serve another tenant.

    Raises `ValidationError` for an attribute that the class doesn't have, and for a column whose value must be passed.
    Raises the errors of a repository's ``create`` if the database refuses the row.
    """

    def __init__(self, rows: Rows, model: type[M]) -> None:
        self._rows = rows
        self._model = model

    def create(self, tenant: object = None, **values: object) -> M:
        """One row."""
        return self._rows.create(self._model, tenant, values, {})

    def create_batch(self, size: int, tenant: object = None, **values: object) -> list[M]:
        """As many rows as ``size``, of the same tenant, with the same parents."""
        parents: Parents = {}
        return [self._rows.create(self._model, tenant, values, parents) for _ in range(size)]

    def create_alike(self, **values: object) -> list[M]:
        """A row of each of ``dotmac_tenants``, in their order, whose values are the same wherever they can be.

        They differ in the tenant, in foreign keys, in keys that the database generates, and in what must be unique
        among all tenants. A test with such rows notices a statement that finds a row by its values alone.
        """
        return self._rows.create_alike(self._model, values)


class ModelFactories:
    """Gives the factory of a class in a session: ``factories(User).create()``. It is the fixture ``dotmac_factory``.

    ``tenants`` are the two tenants whose rows are made. Raises `MisuseError` if polyfactory is not installed.
    """

    def __init__(self, session: Session, tenants: tuple[object, object] = TENANTS) -> None:
        self._rows = Rows(session, tenants)

    def __call__(self, model: type[M]) -> ModelFactory[M]:
        """The factory of a class."""
        return ModelFactory(self._rows, model)


class AsyncModelFactory(Generic[M]):
    """As `ModelFactory`, in an `AsyncSession`: its methods are coroutines."""

    def __init__(self, session: AsyncSession, rows: Rows, model: type[M]) -> None:
        self._session = session
        self._factory = ModelFactory(rows, model)

    async def create(self, tenant: object = None, **values: object) -> M:
        """As `ModelFactory.create`."""
        return await self._session.run_sync(lambda _: self._factory.create(tenant, **values))

    async def create_batch(self, size: int, tenant: object = None, **values: object) -> list[M]:
        """As `ModelFactory.create_batch`."""
        return await self._session.run_sync(lambda _: self._factory.create_batch(size, tenant, **values))

    async def create_alike(self, **values: object) -> list[M]:
        """As `ModelFactory.create_alike`."""
        return await self._session.run_sync(lambda _: self._factory.create_alike(**values))


class AsyncModelFactories:
    """As `ModelFactories`, in an `AsyncSession`. It is the fixture ``dotmac_async_factory``."""

    def __init__(self, session: AsyncSession, tenants: tuple[object, object] = TENANTS) -> None:
        self._session = session
        self._rows = Rows(session.sync_session, tenants)

    def __call__(self, model: type[M]) -> AsyncModelFactory[M]:
        """The factory of a class."""
        return AsyncModelFactory(self._session, self._rows, model)


Parents = dict[tuple[Table, object], object]
"""The parents of the rows of one call, by table and tenant."""


@dataclass
class Rows:
    """What the factories of a test share: the session, its tenants, and the numbers that make values unique."""

    session: Session
    tenants: tuple[object, object]
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.values = ColumnValues(self.numbers)

    def create(self, model: type[M], tenant: object, passed: Values, parents: Parents) -> M:
        """Insert a row. ``parents`` gets the parents that are created for it."""
        tenant = self._tenant(tenant)
        return self._insert(model, tenant, self._complete(model, tenant, passed, parents))

    def create_alike(self, model: type[M], passed: Values) -> list[M]:
        """Insert a row of each tenant."""
        first, second = self.tenants
        values = self._complete(model, first, passed, {})
        shared = {key: values[key] for key in self.values.shareable(model) if key in values}
        one = self._insert(model, first, values)
        return [one, self.create(model, second, {**passed, **shared}, {})]

    def _tenant(self, tenant: object) -> object:
        if tenant is not None:
            return tenant
        bound = bound_tenant(self.session) if is_guarded(self.session) else None
        return self.tenants[0] if bound in (None, ALL_TENANTS) else bound

    def _complete(self, model: type[M], tenant: object, passed: Values, parents: Parents) -> Values:
        """The values of all attributes that a new row needs."""
        mapper = traits_of(model).mapper
        values = _keys_of_parents(mapper, passed)
        for constraint in _foreign_keys(mapper):
            values.update(self._foreign_values(mapper, constraint, tenant, values, parents))
        return {**self.values.needed(model, values), **values}

    def _foreign_values(
        self, mapper: Mapper[M], constraint: ForeignKeyConstraint, tenant: object, values: Values, parents: Parents
    ) -> Values:
        """The values of a foreign key, with the key of its parent; empty if it needs none."""
        tenant_key = traits_of(mapper.class_).tenant
        keys = {mapper.get_property_by_column(each.parent).key: each.column for each in constraint.elements}
        own = {key: column for key, column in keys.items() if key != tenant_key}
        if not own:
            self._require_tenant(constraint.referred_table, constraint.elements[0].column, tenant)
            return {}
        if values.keys() & own.keys() or any(column.nullable for column in constraint.columns):
            return {}
        parent = self._parent(mapper, constraint, tenant, parents)
        state = inspect(parent, raiseerr=True)
        return {key: state.dict[state.mapper.get_property_by_column(column).key] for key, column in own.items()}

    def _parent(self, mapper: Mapper[M], constraint: ForeignKeyConstraint, tenant: object, parents: Parents) -> object:
        table = constraint.referred_table
        names = ", ".join(column.name for column in constraint.columns)
        of = _mapper_of(table)
        if of is None or of.local_table in mapper.tables:
            what = "its own table" if of is not None else f"{table.name}, which has no mapped class"
            raise ValidationError(f"{mapper.class_.__name__}: pass {names}, which references {what}.")
        shared = not self.values.is_unique(constraint)
        if shared and (table, tenant) in parents:
            return parents[table, tenant]
        parent: object = self.create(of.class_, tenant, {}, parents)
        if shared:
            parents[table, tenant] = parent
        return parent

    def _require_tenant(self, table: Table, column: Column[object], tenant: object) -> None:
        """Create the row of the tenant in the table of tenants, if there is none."""
        of = _mapper_of(table)
        if of is None:
            return
        name = of.get_property_by_column(column).key
        attribute = getattr(of.class_, name)
        if self.session.scalars(select(attribute).where(attribute == tenant)).first() is None:
            self._insert(of.class_, tenant, self._complete(of.class_, tenant, {name: tenant}, {}))

    def _insert(self, model: type[M], tenant: object, values: Values) -> M:
        owner = tenant if traits_of(model).tenant is not None else None
        repository = create_repository(self.session, model, owner, auto_commit=False)
        if owner is None or not is_guarded(self.session):
            return repository.create(values)
        with tenant_scope(self.session, owner, release=True):
            entity = repository.create(values)
            self.session.refresh(entity)
            return entity


def _keys_of_parents(mapper: Mapper[M], passed: Values) -> Values:
    """The passed values, with the foreign keys in place of the parents.

    Raises `ValidationError` for an unknown attribute.
    """
    values: Values = {}
    for key, value in passed.items():
        relationship = mapper.relationships.get(key)
        if relationship is None and key not in mapper.all_orm_descriptors:
            raise ValidationError(f"{mapper.class_.__name__} has no attribute {key!r}.", field=key)
        if relationship is None or relationship.uselist or value is None:
            values[key] = value
            continue
        state = inspect(value, raiseerr=True)
        tenant_key = traits_of(mapper.class_).tenant
        for local, remote in relationship.local_remote_pairs or []:
            name = mapper.get_property_by_column(local).key
            if name != tenant_key:
                values[name] = getattr(value, state.mapper.get_property_by_column(remote).key)
    return values


def _foreign_keys(mapper: Mapper[M]) -> Iterator[ForeignKeyConstraint]:
    """The foreign keys of the class's tables, without those by which a subclass's table refers to its parent's."""
    tables = [table for table in mapper.tables if isinstance(table, Table)]
    for table in tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda each: [*each.column_keys]):
            if constraint.referred_table is table or constraint.referred_table not in tables:
                yield constraint


def _mapper_of(table: Table) -> Mapper[object] | None:
    return next((each for each in all_mappers() if each.local_table is table and not each.inherits), None)
