"""The attacks of the leak test kit. Each returns in words what it achieved; None: nothing.

If an attack raises an exception, it was prevented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import delete, insert, literal_column, select, text, update
from sqlalchemy.orm import Mapper, Session, aliased, joinedload, make_transient_to_detached, selectinload, subqueryload
from sqlalchemy.orm.interfaces import ORMOption

from ..models.traits import Key, tenant_key
from ..sqlalchemy_internals import is_text


@dataclass(frozen=True, slots=True)
class Target:
    """A class to attack.

    ``key`` is its tenant attribute, ``attacker`` and ``victim`` are tenants, ``own`` is the primary key of the
    attacker's row, and ``other`` the primary key of the victim's row.
    """

    mapper: Mapper[Any]
    key: str
    attacker: object
    victim: object
    own: Key
    other: Key

    @property
    def model(self) -> Any:
        """The class."""
        return self.mapper.class_

    @property
    def primary(self) -> list[str]:
        """The names of the primary key's attributes."""
        return [self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key]

    def forged(self) -> Any:
        """An object with the primary key of the victim's row and the attacker's tenant, as if it had been loaded."""
        entity = self.model()
        for name, value in zip(self.primary, self.other, strict=True):
            setattr(entity, name, self.attacker if name == self.key else value)
        setattr(entity, self.key, self.attacker)
        make_transient_to_detached(entity)
        return entity

    def changeable(self) -> tuple[str, str | None] | None:
        """An attribute that an attacker could change, and its new value; None: the class has no such attribute."""
        for attribute in self.mapper.column_attrs:
            column: Any = attribute.columns[0]
            plain = attribute.key not in (*self.primary, self.key) and not getattr(column, "foreign_keys", True)
            if plain and column is not self.mapper.polymorphic_on and column.nullable:
                return attribute.key, None
            if plain and column is not self.mapper.polymorphic_on and is_text(column.type):
                return attribute.key, "leaked"[: column.type.length or 6]
        return None


Attack: TypeAlias = Callable[[Session, Target], str | None]


def _victims_row(target: Target, entities: Iterable[object]) -> str | None:
    """The leak in words, if one of ``entities`` is a row of the victim; else None. They can be of any class."""
    for entity in entities:
        mapper = getattr(type(entity), "__mapper__", None)
        key = None if mapper is None else tenant_key(mapper)
        if key is not None and getattr(entity, key) == target.victim:
            return f"a row of another tenant was read ({type(entity).__name__})"
    return None


def _columns(session: Session, target: Target) -> str | None:
    values = session.scalars(select(getattr(target.model, target.key))).all()
    return "another tenant's name was read" if target.victim in values else None


def _alias(session: Session, target: Target) -> str | None:
    return _victims_row(target, session.scalars(select(aliased(target.model))).unique())


def _subquery(session: Session, target: Target) -> str | None:
    inner = select(getattr(target.model, target.key)).subquery()
    return "another tenant's name was read" if target.victim in session.scalars(select(inner)).all() else None


def _loaded(option: Callable[..., ORMOption]) -> Attack:
    def attack(session: Session, target: Target) -> str | None:
        for name, relationship in target.mapper.relationships.items():
            if relationship.lazy in ("dynamic", "write_only"):
                continue
            session.expunge_all()
            attribute = getattr(target.model, name)
            for entity in session.scalars(select(target.model).options(option(attribute))).unique():
                related = getattr(entity, name)
                members = related.values() if isinstance(related, dict) else related
                leak = _victims_row(target, members if hasattr(members, "__iter__") else [members] if members else [])
                if leak is not None:
                    return f"{leak} through {name}"
        return None

    return attack


def _refresh(session: Session, target: Target) -> str | None:
    entity = target.forged()
    session.add(entity)
    session.refresh(entity)
    return "another tenant's row was read"


def _flush(session: Session, target: Target) -> str | None:
    change = target.changeable()
    if change is not None:
        entity = target.forged()
        session.add(entity)
        setattr(entity, *change)
        session.flush()
    return None


def _remove(session: Session, target: Target) -> str | None:
    entity = target.forged()
    session.add(entity)
    session.delete(entity)
    session.flush()
    return None


def _update(session: Session, target: Target) -> str | None:
    change = target.changeable()
    if change is not None:
        session.execute(update(target.model).values(dict([change])), execution_options={"synchronize_session": False})
    return None


def _by_key(session: Session, target: Target) -> str | None:
    change = target.changeable()
    if change is not None:
        row = {**dict(zip(target.primary, target.other, strict=True)), **dict([change])}
        session.execute(update(target.model), [row])
    return None


def _delete(session: Session, target: Target) -> str | None:
    session.execute(delete(target.model), execution_options={"synchronize_session": False})
    return None


def _give_away(session: Session, target: Target) -> str | None:
    entity = session.get(target.model, target.own)
    if entity is None:
        return "the tenant can't read its own row any more"
    setattr(entity, target.key, target.victim)
    session.flush()
    return "a row was given to another tenant"


def _insert(session: Session, target: Target) -> str | None:
    session.execute(insert(target.model).values({target.key: target.victim}))
    return "a row was created for another tenant"


def _core(session: Session, target: Target) -> str | None:
    table = target.mapper.get_property(target.key).columns[0].table
    rows = session.execute(select(table)).all()
    return "another tenant's row was read" if any(target.victim in row for row in rows) else None


def _raw(session: Session, target: Target) -> str | None:
    table = target.mapper.get_property(target.key).columns[0].table
    name = session.get_bind().dialect.identifier_preparer.format_table(table)
    rows = session.connection().execute(text(f"SELECT * FROM {name}")).all()
    leaked = any(_same(target.victim, value) for row in rows for value in row)
    return "another tenant's row was read" if leaked else None


def _same(tenant: object, value: object) -> bool:
    """Whether a value as the driver returns it names the tenant. A UUID can be a text with or without hyphens."""
    return value is not None and str(value).replace("-", "") == str(tenant).replace("-", "")


def _fragment(session: Session, target: Target) -> str | None:
    statement = select(target.model).where(literal_column("1=1 OR 1=1"))
    return _victims_row(target, session.scalars(statement).unique())


def _without_tenant(session: Session, target: Target) -> str | None:
    session.scalars(select(target.model)).unique().all()
    return "a session that is bound to no tenant executed a SELECT without an error"


ATTACKS: dict[str, Attack] = {
    "select": lambda session, target: _victims_row(target, session.scalars(select(target.model)).unique()),
    "select of columns": _columns,
    "alias": _alias,
    "subquery": _subquery,
    "get": lambda session, target: "another tenant's row was read" if session.get(target.model, target.other) else None,
    "joined load": _loaded(joinedload),
    "select-in load": _loaded(selectinload),
    "subquery load": _loaded(subqueryload),
    "refresh of a forged object": _refresh,
    "flush of a forged object": _flush,
    "delete of a forged object": _remove,
    "update": _update,
    "bulk update by key": _by_key,
    "delete": _delete,
    "giving a row away": _give_away,
    "insert for another": _insert,
    "Core select": _core,
    "raw SQL": _raw,
    "text in a statement": _fragment,
    "no tenant": _without_tenant,
}
"""The attacks by name."""
