"""The leak test kit: tries every known attack on tenant isolation on a project's own models and sessions.

    from dotmac_database.testing.leaks import assert_no_leaks

    def test_no_tenant_sees_another(guarded_sessionmaker):
        assert_no_leaks(Base.metadata, guarded_sessionmaker)

It inserts a row of each tenant-scoped class for two tenants, attacks one tenant's rows as the other, and rolls
everything back. For a class whose rows it can't create, pass a function:
``make={Invoice: lambda tenant: Invoice(total=1)}``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from logging import DEBUG
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from sqlalchemy import Column, ColumnClause, FromClause, MetaData, Table, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapper, Session, configure_mappers

from ..dialects.features import has_policies
from ..errors import DatabaseError, TenantRequiredError, ValidationError
from ..history.tables import source_of
from ..models.sorted_tables import sorted_tables
from ..models.traits import Key, Traits, tenant_key, traits_of
from ..sqlalchemy_internals import all_mappers
from ..tenancy import loose_keys, tenant_scope, unscoped
from ..tenancy.context import binding_of
from ..tenancy.rls.policies import protected_tables
from ..tenancy.values import kind_of
from .attacks import ATTACKS, Attack, Target

Make: TypeAlias = Callable[[Any], Any]
"""A function that makes an object of a tenant."""

Tenants: TypeAlias = tuple[object, object]
"""The attacker and the victim."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A leak: the class or table, the attack that succeeded, and what it achieved."""

    object: str
    attack: str
    detail: str

    def __str__(self) -> str:
        return f"{self.object}: {self.attack}: {self.detail}"


def find_leaks(
    metadata: MetaData,
    sessions: Callable[[], Session],
    *,
    make: Mapping[type, Make] | None = None,
    keys: bool = True,
    tenants: tuple[Any, Any] | None = None,
) -> list[Leak]:
    """The leaks of the tenant-scoped classes of ``metadata``, in sessions of the factory ``sessions``.

    The tables must exist in the database. ``keys``: foreign keys and unique constraints that cross tenants count as
    leaks too. ``tenants`` are the attacker and the victim (None: invented names). Nothing is committed.
    """
    session = sessions()
    try:
        return [*_static(metadata, keys=keys), *_attacks(metadata, session, dict(make or {}), tenants)]
    finally:
        session.rollback()
        session.close()


async def async_find_leaks(
    metadata: MetaData,
    sessions: async_sessionmaker[AsyncSession],
    *,
    make: Mapping[type, Make] | None = None,
    keys: bool = True,
    tenants: tuple[Any, Any] | None = None,
) -> list[Leak]:
    """As `find_leaks`, on async sessions."""
    async with sessions() as session:
        try:
            return await session.run_sync(
                lambda sync: [*_static(metadata, keys=keys), *_attacks(metadata, sync, dict(make or {}), tenants)]
            )
        finally:
            await session.rollback()


def assert_no_leaks(
    metadata: MetaData,
    sessions: Callable[[], Session],
    *,
    make: Mapping[type, Make] | None = None,
    keys: bool = True,
    tenants: tuple[Any, Any] | None = None,
) -> None:
    """Raise `AssertionError` with the name of each leak that `find_leaks` finds."""
    leaks = find_leaks(metadata, sessions, make=make, keys=keys, tenants=tenants)
    assert not leaks, "tenants' rows leak:\n" + "\n".join(f"  {leak}" for leak in leaks)


def _static(metadata: MetaData, *, keys: bool) -> Iterator[Leak]:
    """The leaks that can be found in the definitions of the tables, without an attack."""
    protected = protected_tables(metadata)
    mapped = {table: mapper for mapper in all_mappers() for table in mapper.tables}
    for table in sorted_tables(metadata):
        parents = [each.referred_table for each in table.foreign_key_constraints]
        owners = [parent.name for parent in parents if parent in protected]
        if table not in protected and owners:
            yield Leak(table.name, "no tenant", f"it references {owners[0]}, but its own rows belong to no tenant")
        elif table in protected and _is_unmapped(table, mapped) and protected[table] is not None:
            yield Leak(table.name, "no class", "it has a tenant column, but no mapped class, so it can't be confined")
    if keys:
        for key in loose_keys(metadata):
            what = "unique constraint" if key.referred is None else f"foreign key to {key.referred}"
            yield Leak(key.table, what, f"({', '.join(key.columns)}) does not carry the tenant")


def _is_unmapped(table: Table, mapped: Mapping[Any, Any]) -> bool:
    """Whether neither a class nor the history of a class has the table."""
    return table not in mapped and source_of(table) not in mapped


def _attacks(metadata: MetaData, session: Session, make: dict[type, Make], tenants: Tenants | None) -> Iterator[Leak]:
    binding = binding_of(session)
    if binding is None:
        yield Leak("session", "not guarded", "make the sessions with guard_tenants(sessionmaker)")
        return
    if binding.rls is not None and has_policies(session.get_bind().dialect.name):
        with unscoped(session, reason="leak test: verify the policies", level=DEBUG):
            findings = binding.rls.verify(session.connection())
        yield from (Leak(each.object, "row-level security", each.risk) for each in findings)
    rows = _Rows(session, metadata, make, tenants)
    for mapper in rows.classes:
        name = mapper.class_.__name__
        try:
            target = rows.target(mapper)
        except (DatabaseError, SQLAlchemyError) as error:
            reason = str(error).partition("\n")[0]
            yield Leak(name, "not tested", f"no row could be created; pass make={{{name}: …}}: {reason}")
            continue
        for attack, run in ATTACKS.items():
            detail = _try_attack(session, target, run, bound=attack != "no tenant")
            if detail is not None:
                yield Leak(name, attack, detail)


def _try_attack(session: Session, target: Target, run: Attack, *, bound: bool) -> str | None:
    """Run one attack in a savepoint. Returns in words what it achieved; None: nothing.

    ``bound``: the session is bound to the attacker. An attack without a tenant must raise `TenantRequiredError`.
    """
    before = _snapshot(session, target)
    nested = session.begin_nested()
    result: str | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if bound:
                with tenant_scope(session, target.attacker):
                    result = run(session, target)
            else:
                result = run(session, target)
    except (DatabaseError, SQLAlchemyError) as error:
        result = None if bound or isinstance(error, TenantRequiredError) else "it did not raise TenantRequiredError"
    if nested.is_active:
        if result is None and _snapshot(session, target) != before:
            result = "another tenant's row was changed"
        nested.rollback()
    session.expunge_all()
    return result


def _snapshot(session: Session, target: Target) -> list[list[str]]:
    """The current rows of the victim in the database."""
    session.expunge_all()
    with unscoped(session, reason="leak test: compare", level=DEBUG):
        column = getattr(target.model, target.key)
        rows = session.scalars(select(target.model).where(column == target.victim)).unique().all()
        names = [attribute.key for attribute in target.mapper.column_attrs]
        return sorted([repr(getattr(row, name)) for name in names] for row in rows)


@dataclass
class _Rows:
    """Inserts the rows of the two tenants when they are needed.

    ``inserted`` are the values of the inserted rows by column, for each table and tenant.
    """

    session: Session
    metadata: MetaData
    make: dict[type, Make]
    tenants: Tenants | None = None
    inserted: dict[tuple[FromClause, str], dict[ColumnClause[object], object]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(900_001))

    def __post_init__(self) -> None:
        configure_mappers()
        tables = set(self.metadata.tables.values())
        order = {table: place for place, table in enumerate(sorted_tables(self.metadata))}
        relevant = [each for each in all_mappers() if each.local_table in tables]
        self.mapped: list[Mapper[object]] = sorted(relevant, key=lambda each: order[each.local_table])  # type: ignore[index]  # it is a table
        self.classes = [each for each in self.mapped if tenant_key(each) is not None]

    def target(self, mapper: Mapper[object]) -> Target:
        """The target of attacks on a class. Inserts a row of the attacker and a row of the victim."""
        attacker, victim = self.tenants or _tenants(mapper)
        with unscoped(self.session, reason="leak test: create rows", level=DEBUG):
            own, other = self._row(mapper, attacker), self._row(mapper, victim)
        traits = traits_of(mapper.class_)
        return Target(mapper, traits.tenant or "", attacker, victim, own, other)

    def _row(self, mapper: Mapper[object], tenant: object) -> Key:
        """Insert a row of the tenant. Returns its primary key."""
        nested = self.session.begin_nested()
        try:
            entity = self._entity(mapper, tenant)
            self.session.add(entity)
            self.session.flush()
            self.session.refresh(entity)
        except BaseException:
            nested.rollback()
            self.session.expunge_all()
            raise
        nested.commit()
        state = inspect(entity)
        for table in mapper.tables:
            self.inserted[table, str(tenant)] = {
                column: state.dict.get(mapper.get_property_by_column(column).key)
                for column in table.columns
                if column in mapper.columns.values()
            }
        key = tuple(state.key[1]) if state.key else ()
        self.session.expunge_all()
        return key

    def _entity(self, mapper: Mapper[object], tenant: object) -> object:
        factory = self.make.get(mapper.class_)
        entity = factory(tenant) if factory is not None else mapper.class_()
        key = tenant_key(mapper)
        if key is not None:
            setattr(entity, key, tenant)
        if factory is not None:
            return entity
        automatic = set[str]()
        if mapper.polymorphic_on is not None:
            automatic.add(mapper.get_property_by_column(mapper.polymorphic_on).key)
        for attribute in mapper.column_attrs:
            # The last column: for the primary key of a joined child it is the parent's column.
            column: Any = attribute.columns[-1]
            if attribute.key in (key, *automatic) or not isinstance(getattr(column, "table", None), Table):
                continue
            value = self._value(column, tenant)
            if value is not None:
                setattr(entity, attribute.key, value)
        return entity

    def _value(self, column: Column[object], tenant: object) -> object:
        """A value for a column of a new row; None: the row is inserted without the column."""
        for foreign in column.foreign_keys:
            parent = foreign.column
            if parent.table in column.table.metadata.tables.values() and not column.nullable:
                return self._parent(parent, tenant)
            return None
        if column.nullable or Traits.fills_itself(column):
            return None
        return _sample(column, next(self.numbers))

    def _parent(self, column: Column[object], tenant: object) -> object:
        """The value of a column in the tenant's row of the parent's table, which is inserted if there is none."""
        if (column.table, str(tenant)) not in self.inserted:
            mapper = next((each for each in self.mapped if each.local_table is column.table), None)
            if mapper is None:
                raise ValidationError(f"{column.table.name} has no mapped class, so no row of it can be created.")
            self._row(mapper, tenant)
        return self.inserted[column.table, str(tenant)].get(column)


def _tenants(mapper: Mapper[object]) -> Tenants:
    """The invented attacker and victim, as values of the tenant column's type."""
    traits = traits_of(mapper.class_)
    kind = kind_of(traits.columns[traits.tenant or ""])
    if kind is int:
        return 2_000_000_001, 2_000_000_002
    if kind is UUID:
        return UUID(int=0xA), UUID(int=0xB)
    return "leak-attacker", "leak-victim"


def _sample(column: Column[object], number: int) -> object:
    """A sample value for a column, by its type; None: the type is unknown. ``number`` makes it unique."""
    enums: Sequence[object] | None = getattr(column.type, "enums", None)
    if enums:
        kinds = getattr(column.type, "enum_class", None)
        return next(iter(kinds)) if kinds is not None else enums[0]
    now = datetime.now(UTC)
    samples: dict[type, object] = {
        str: str(number)[-(getattr(column.type, "length", None) or 20) :],
        bool: False,
        int: number,
        float: 1.0,
        Decimal: Decimal(1),
        UUID: uuid4(),
        datetime: now if getattr(column.type, "timezone", False) else now.replace(tzinfo=None),
        date: now.date(),
        time: time(12),
        timedelta: timedelta(1),
        bytes: b"x",
        dict: {},
        list: [],
    }
    return samples.get(kind_of(column))
