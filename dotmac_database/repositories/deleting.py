"""What a deletion does to related rows: the ORM changes them, or the database does, and the session is updated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Table
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm import InstanceState, PassiveFlag, RelationshipProperty, Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.interfaces import RelationshipDirection

from ..departures import CHANGE, Departure, has_session_listener, mapper_departure
from ..dialects import dialect_named
from ..errors import ConstraintViolationError, TenantIsolationError
from ..execution.partial import unload_partial
from ..execution.routes import Circumstance, Reason
from ..models.traits import Traits, tenant_key, traits_of
from ..sqlalchemy_internals import remove_deleted
from ..statements.cascades import (
    Dependence,
    Rule,
    can_be_cleared,
    cleared_columns,
    deletion_of,
    dependences,
    keys_of,
    rule_of,
)
from ..statements.inheritance import levels_of, spreads
from ..statements.reads import Reader
from ..statements.scope import Scope
from ..tenancy.context import ALL_TENANTS
from ..tenancy.values import same

M = TypeVar("M")

_CHILDREN = PassiveFlag.PASSIVE_OFF | PassiveFlag.LOAD_AGAINST_COMMITTED | PassiveFlag.NO_RAISE
_LOADED_CHILDREN = PassiveFlag.PASSIVE_NO_INITIALIZE


class UnitOfWorkDeletion:
    """Deletes an object by the session's unit of work.

    What happens to the objects that refer to it is decided by the cascades of the relationships, or else by the rules
    of the foreign keys. ``enforced``: the database enforces foreign keys; if not, their rules are carried out here.
    ``tenant`` is the only tenant whose rows may be changed; None or `ALL_TENANTS`: those of all tenants.
    """

    def __init__(self, session: Session, tenant: object, *, enforced: bool) -> None:
        self._session = session
        self._tenant = None if tenant is ALL_TENANTS else tenant
        self._enforced = enforced
        self._states: set[InstanceState[object]] = set()

    def delete(self, entity: object) -> None:
        """Mark the object and its dependent objects as deleted. Nothing is flushed."""
        with self._session.no_autoflush:  # a flush between would delete children, which are then deleted again
            self._prepare(entity)
            self._session.delete(entity)

    def _prepare(self, entity: object) -> None:
        state = sa_inspect(entity)
        if state in self._states:
            return
        self._states.add(state)
        unload_partial(state)
        for relationship in state.mapper.relationships:
            rule = rule_of(relationship)
            if relationship.direction is RelationshipDirection.ONETOMANY and rule is not Rule.NOTHING:
                self._carry_out(rule, state, relationship)

    def _carry_out(self, rule: Rule, state: InstanceState[object], relationship: RelationshipProperty[object]) -> None:
        """Carry out the rule of one relationship. Before that, the ORM must not set the children's keys to NULL."""
        if rule is Rule.REFUSED and self._enforced:
            self._leave_to_the_database(state, relationship)
            return
        key = next(iter(keys_of(relationship)), None)
        cleared = [] if key is None else cleared_columns(key)
        whole = key is not None and len(cleared) == len(key.columns)
        by_orm = rule is Rule.CLEARED and whole and can_be_cleared(cleared)
        if rule is Rule.CLEARED and self._enforced and not by_orm:
            self._leave_to_the_database(state, relationship)
            return
        children = self._children(state, relationship, loaded=rule is Rule.IF_LOADED)
        if rule is Rule.DELETED or relationship.cascade.delete:
            for child in children:
                self._prepare(child)
                self._session.delete(child)
        elif rule is Rule.REFUSED and children:
            child = traits_of(relationship.mapper.class_)
            raise ConstraintViolationError(f"{state.class_.__name__}: rows of {child.name} still refer to the row.")
        elif rule is Rule.CLEARED and not by_orm and children:
            self._clear(children, cleared)
            self._leave_to_the_database(state, relationship)

    def _children(
        self, state: InstanceState[object], relationship: RelationshipProperty[object], *, loaded: bool
    ) -> list[object]:
        """The objects that refer to this one. Raises `TenantIsolationError` if one belongs to another tenant."""
        history = state.get_history(relationship.key, _LOADED_CHILDREN if loaded else _CHILDREN)
        children = [child for child in history.sum() if child is not None]
        key = tenant_key(relationship.mapper)
        for child in children if key is not None and self._tenant is not None else ():
            if not same(sa_inspect(child).dict.get(key, self._tenant), self._tenant):
                raise TenantIsolationError(f"{type(child).__name__}: a row of another tenant would be changed.")
        return children

    def _leave_to_the_database(self, state: InstanceState[object], relationship: RelationshipProperty[object]) -> None:
        """Hide the children from the ORM, which would set their keys to NULL before the database applies its rule."""
        set_committed_value(state.obj(), relationship.key, [] if relationship.uselist else None)

    def _clear(self, children: Iterable[object], columns: Iterable[Column[object]]) -> None:
        for child in children:
            mapper = sa_inspect(child).mapper
            for column in columns:
                setattr(child, mapper.get_property_by_column(column).key, None)
        self._session.flush()


def enforces_keys(session: Session, traits: Traits[M]) -> bool:
    """Whether the database enforces foreign keys. In SQLite it depends on a setting of the connection."""
    dialect = dialect_named(session.get_bind(traits.mapper).dialect.name)
    return dialect.enforces_keys(lambda: session.connection(bind_arguments={"mapper": traits.mapper}))


def deletion_refusal(session: Session, traits: Traits[Any], key: tuple[object, ...]) -> Reason | None:
    """Why a DELETE can't delete the row with this key, and a flush must delete it. None: a DELETE can.

    A flush is needed if the ORM must carry out cascades of relationships or call listeners. If only a rule of a foreign
    key is left, SQLite is asked whether it enforces foreign keys.
    """
    if not (traits.direct_deletes or spreads(traits)):
        return Circumstance.MODEL
    if has_session_listener(session, CHANGE):
        return Departure.SESSION_LISTENER
    for mapper in traits.mapper.self_and_descendants:
        departure = mapper_departure(mapper, CHANGE)
        if departure is not None:
            return departure
    deletion = deletion_of(traits)
    if deletion.needs_orm or _holds_related(session, traits, key, deletion.if_loaded):
        return Circumstance.CASCADES
    return Circumstance.CASCADES if deletion.needs_keys and not enforces_keys(session, traits) else None


def _holds_related(session: Session, traits: Traits[M], key: tuple[object, ...], names: Iterable[str]) -> bool:
    """Whether the session holds the object with this key, with loaded or changed objects in these relationships."""
    held = session.identity_map.get(traits.mapper.identity_key_from_primary_key(key))
    if held is None:
        return False
    state = sa_inspect(held)
    return any(name in state.mapper.relationships and not state.attrs[name].history.empty() for name in names)


def follow_database(session: Session, traits: Traits[Any], keys: Sequence[tuple[object, ...]] | None) -> None:
    """Update the session's objects to what the database's ``ON DELETE`` rules did when rows were deleted.

    ``keys`` are the primary keys of the deleted rows; None: unknown. If the row of an object was deleted, the object
    leaves the session, and a rollback brings it back. If a foreign key was set to NULL, the attribute becomes None. If
    the objects of the session don't show what happened to a row, the row is read again: one SELECT for each class.
    """
    followed = dependences(traits)
    if not followed or not len(session.identity_map):
        return
    tables = {each.table for each in followed}
    held = [
        state
        for state in session.identity_map.all_states()
        if not state.deleted and not tables.isdisjoint(state.mapper.tables)
    ]
    if held and enforces_keys(session, traits):
        _Followers(session, followed, held).follow(traits, keys)


class _Followers:
    """The session's objects whose rows the database may have deleted or changed because other rows were deleted."""

    def __init__(
        self, session: Session, dependences: Sequence[Dependence], held: Sequence[InstanceState[object]]
    ) -> None:
        self._session = session
        self._dependences = dependences
        self._held = dict.fromkeys(held)
        self._gone: dict[tuple[object, ...], set[tuple[object, ...]]] = {}
        """The values of the deleted rows, by the columns to which foreign keys refer."""
        self._known: set[tuple[object, ...]] = set()
        """The keys of `_gone` for which the values of all deleted rows are known."""
        self._existing: dict[tuple[object, ...], set[tuple[object, ...]]] = {}
        """The values of the rows that exist and that the session holds, by the columns to which foreign keys refer."""

    def follow(self, traits: Traits[M], keys: Sequence[tuple[object, ...]] | None) -> None:
        for level in levels_of(traits) if keys is not None else ():
            self._gone[level.key] = set(map(tuple, keys or ()))
            self._known.add(level.key)
        certain: set[InstanceState[object]] = set()
        while uncertain := [state for state in self._settled() if state not in certain]:
            self._read_anew(uncertain)
            self._existing.clear()
            certain.update(uncertain)

    def _settled(self) -> list[InstanceState[object]]:
        """Remove deleted objects and clear foreign keys, as far as the session's objects show it.

        Returns the objects of which it is unknown whether their rows still exist unchanged.
        """
        changed, uncertain = True, list[InstanceState[object]]()
        while changed:
            changed, uncertain = False, []
            for state in list(self._held):
                outcomes = [
                    (each, self._refers(state, each)) for each in self._dependences if self._is_of(state, each.table)
                ]
                if any(outcome and not each.cleared for each, outcome in outcomes):
                    self._remove(state)
                    changed = True
                    continue
                unread = [self._clear(state, each) for each, outcome in outcomes if outcome]
                if any(unread) or any(outcome is None for _, outcome in outcomes):
                    uncertain.append(state)
        return uncertain

    @staticmethod
    def _is_of(state: InstanceState[object], table: Table) -> bool:
        return table in state.mapper.tables

    def _refers(self, state: InstanceState[object], key: Dependence) -> bool | None:
        """Whether an object's row referred to a deleted row; None if the session's objects don't show it."""
        values = [_stored(state, here) for here, _ in key.pairs]
        if None in values or _UNKNOWN in values:
            return False  # it refers to no row, or the attribute is not loaded
        order = key.referred_columns
        for columns, gone in self._gone.items():
            if set(columns) == set(order):
                if tuple(values[order.index(column)] for column in columns) in gone:
                    return True
                if columns in self._known:
                    return False
        return False if tuple(values) in self._rows_there(key) else None

    def _rows_there(self, key: Dependence) -> set[tuple[object, ...]]:
        """The values of the columns to which a foreign key refers, in the existing rows that the session holds."""
        order = key.referred_columns
        if order not in self._existing:
            self._existing[order] = {
                tuple(_stored(state, column) for column in order)
                for state in self._session.identity_map.all_states()
                if not state.deleted and key.referred in state.mapper.tables
            }
        return self._existing[order]

    def _remove(self, state: InstanceState[object]) -> None:
        for each in self._dependences:
            if each.referred in state.mapper.tables:
                columns = each.referred_columns
                values = tuple(_stored(state, column) for column in columns)
                self._gone.setdefault(columns, set()).add(values)
                self._existing.get(columns, set()).discard(values)
        del self._held[state]
        # SQLAlchemy does the same after a DELETE statement. A rollback brings the object back.
        remove_deleted(self._session, [state])

    def _clear(self, state: InstanceState[object], key: Dependence) -> bool:
        """Set an object's foreign key to None. Returns True if the object must be read again instead.

        It must be read again if the rule sets the key to a default.
        """
        if key.defaults:
            return True
        entity = state.obj()
        for column in key.cleared:
            set_committed_value(entity, state.mapper.get_property_by_column(column).key, None)
        for relationship in state.mapper.relationships:
            loaded = relationship.direction is RelationshipDirection.MANYTOONE and relationship.key in state.dict
            if loaded and not set(key.cleared).isdisjoint(relationship.local_columns):
                set_committed_value(entity, relationship.key, None)
        return False

    def _read_anew(self, states: Sequence[InstanceState[object]]) -> None:
        by_class: dict[type[object], list[InstanceState[object]]] = {}
        for state in states:
            if not state.modified:  # a modified object is not read again: if its row is gone, its flush will fail
                by_class.setdefault(state.class_, []).append(state)
        for model, members in by_class.items():
            traits = traits_of(model)
            dialect = dialect_named(self._session.get_bind(traits.mapper).dialect.name)
            reader = Reader(traits, Scope(ALL_TENANTS, include_deleted=True), dialect)
            bound = reader.by_keys([tuple(state.key[1]) for state in members if state.key is not None])
            execution_options = {**bound.execution_options, "populate_existing": True}
            result = self._session.scalars(bound.statement, bound.parameters, execution_options=execution_options)
            there = {sa_inspect(entity) for entity in result.unique()}
            for state in members:
                if state not in there:
                    self._remove(state)


_UNKNOWN = object()


def _stored(state: InstanceState[object], column: ColumnElement[object]) -> object:
    """The value of an object's column in the database, if it is loaded; else `_UNKNOWN`."""
    if not state.mapper.columns.contains_column(column):
        return _UNKNOWN
    key = state.mapper.get_property_by_column(column).key
    return state.committed_state.get(key, state.dict.get(key, _UNKNOWN))
