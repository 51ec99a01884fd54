"""The traits of a mapped class: which of its attributes play the toolkit's parts.

Computed once per class and cached for the class's life. A part is played by the attribute of the
usual name (``tenant_id``, ``is_deleted``, …), wherever it came from, or by the one that the class
names: ``__tenant_column__ = "org_id"``, ``__version_column__ = "revision"``.
"""

from __future__ import annotations

import inspect as pyinspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Column, Insert, Select, SelectBase, Table, Update, Uuid
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import ColumnProperty, InstrumentedAttribute, Mapper, RelationshipProperty
from sqlalchemy.orm.decl_base import _declarative_constructor
from sqlalchemy.sql import schema
from sqlalchemy.sql.visitors import iterate

from ..errors import ValidationError
from ..plainness import CHANGE, INSERT, READ_BY_DRIVER, mapper_departure

M = TypeVar("M")
T = TypeVar("T")

MAX_SHAPES = 2048
"""How many things are kept for the statements of one class."""

EAGER = frozenset(("joined", "selectin", "subquery", "immediate", False))
"""The ways to load a relationship that come with the class's own rows."""

ROLES = {
    "tenant": "tenant_id",
    "is_deleted": "is_deleted",
    "deleted_at": "deleted_at",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "created_by": "created_by",
    "updated_by": "updated_by",
    "version": "version",
}
"""Part → the attribute that plays it unless the class says otherwise with ``__<part>_column__``."""


@dataclass(frozen=True, eq=False)
class Traits(Generic[M]):
    """What the toolkit needs to know of a mapped class. Each part is an attribute's key, or None."""

    model: type[M]
    mapper: Mapper[M]
    primary_key: tuple[str, ...]
    tenant: str | None = None
    is_deleted: str | None = None
    deleted_at: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    created_by: str | None = None
    updated_by: str | None = None
    version: str | None = None
    statements: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What was built for statements of this class, by shape: at most `MAX_SHAPES`. See `kept`."""

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return self.model.__name__

    @property
    def soft_deletes(self) -> bool:
        """Whether a deleted row can stay, marked."""
        return self.is_deleted is not None or self.deleted_at is not None

    @cached_property
    def columns(self) -> dict[str, Column[Any]]:
        """Attribute key → the table column behind it, of every writable attribute."""
        return {
            prop.key: prop.columns[0]
            for prop in self.mapper.column_attrs
            if isinstance(prop, ColumnProperty) and isinstance(prop.columns[0], Column)
        }

    @cached_property
    def private(self) -> frozenset[str]:
        """The keys of the attributes that are marked with ``info={"private": True}``, or made of what is."""
        return frozenset(
            each.key
            for each in self.mapper.column_attrs
            if each.info.get("private") or any(map(is_private, each.columns))
        )

    @cached_property
    def relationships(self) -> dict[str, RelationshipProperty[Any]]:
        """Attribute key → relationship."""
        return dict(self.mapper.relationships.items())

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The class's own tables: one, or with joined inheritance one for each level."""
        return tuple(table for table in self.mapper.tables if isinstance(table, Table))

    @cached_property
    def lockable(self) -> Any:
        """What FOR UPDATE OF names: the class, or where its row lies in several tables these."""
        return self.model if len(self.tables) <= 1 else list(self.tables)

    @cached_property
    def discriminator(self) -> str | None:
        """The key of the column that says which class of an inheritance a row is of; None: there is none to write."""
        column = self.mapper.polymorphic_on
        if column is None or self.mapper.polymorphic_identity is None:
            return None
        if not self.mapper.columns.contains_column(column):
            return None
        key = self.mapper.get_property_by_column(column).key
        return key if key in self.columns else None

    @cached_property
    def makes_uuid(self) -> str | None:
        """The key of a UUID primary key that nothing else would fill."""
        if len(self.primary_key) != 1:
            return None
        column = self.columns[self.primary_key[0]]
        made = column.default is not None or column.server_default is not None or column.foreign_keys
        return None if made or not isinstance(column.type, Uuid) else self.primary_key[0]

    @cached_property
    def null_unless_set(self) -> frozenset[str]:
        """The keys of columns that are NULL in a new row that does not name them."""
        return frozenset(
            key
            for key, column in self.columns.items()
            if column.default is None and column.server_default is None and not column.primary_key
        )

    @cached_property
    def constructor_keys(self) -> frozenset[str] | None:
        """The keywords that the class's constructor takes; None: any."""
        parameters = pyinspect.signature(self.model.__init__).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return frozenset(p.name for p in parameters)

    @cached_property
    def joins_collections(self) -> bool:
        """Whether the class loads a collection by a join of its own accord, which doubles rows until made unique."""
        return any(r.lazy in ("joined", False) and r.uselist for r in self.mapper.relationships)

    @cached_property
    def loads_eagerly(self) -> bool:
        """Whether the class loads any relationship of its own accord."""
        return any(relationship.lazy in EAGER for relationship in self.mapper.relationships)

    @cached_property
    def plain(self) -> bool:
        """Whether a row is an object of just this class, and the object nothing but the row's columns."""
        mapper = self.mapper
        return (
            mapper.polymorphic_on is None
            and len(list(mapper.self_and_descendants)) == 1
            and mapper.inherits is None
            and not mapper.always_refresh
            and not self.computes
            and not self.loads_eagerly
            and not any(attribute.deferred or len(attribute.columns) > 1 for attribute in mapper.column_attrs)
        )

    @cached_property
    def deferred(self) -> frozenset[str]:
        """The keys of the columns that are loaded only when they are asked for."""
        return frozenset(each.key for each in self.mapper.column_attrs if each.deferred)

    @cached_property
    def computes(self) -> bool:
        """Whether the class has an attribute that is an SQL expression rather than a column."""
        return len(self.columns) < len(self.mapper.column_attrs)

    @cached_property
    def asks_other_rows(self) -> bool:
        """Whether the class has a column property, or a hybrid with a SELECT in it, which must be confined, too."""
        return self.computes or any(
            isinstance(part, SelectBase)
            for name, each in self.mapper.all_orm_descriptors.items()
            if isinstance(each, hybrid_property)
            for part in iterate(hybrid_sql(self.model, name))
        )

    @property
    def listens_to_loads(self) -> bool:
        """Whether something of the user's happens when an object is loaded: a listener, a reconstructor."""
        return mapper_departure(self.mapper, READ_BY_DRIVER) is not None

    @property
    def direct_writes(self) -> bool:
        """Whether a row may be changed by a statement alone: nothing of the user's hangs on the unit of work."""
        return self._one_plain_table and mapper_departure(self.mapper, CHANGE) is None

    @property
    def direct_creates(self) -> bool:
        """Whether a new row may be inserted by a statement alone: no constructor or listener of the user's makes it."""
        return (
            self.plain
            and self._one_plain_table
            and self._made_plainly
            and self._defaults_are_plain
            and mapper_departure(self.mapper, INSERT) is None
        )

    @cached_property
    def _made_plainly(self) -> bool:
        """Whether a new object is made by the usual constructor, and keeps what it is given as it is given."""
        made: Any = self.mapper.class_manager.original_init
        if made is _declarative_constructor:
            return self.model.__setattr__ is object.__setattr__
        return (
            made.__module__ == "sqlmodel.main"
            and self.model.__setattr__.__module__ == "sqlmodel.main"
            and not getattr(self.model, "__pydantic_post_init__", None)
            and not getattr(self.model, "model_config", {}).get("validate_assignment")
        )

    @cached_property
    def _defaults_are_plain(self) -> bool:
        """Whether Python makes what new objects need: values, or calls that need no more than themselves."""
        return all(column.default is None or makes_value(column.default) for column in self.columns.values())

    @cached_property
    def _one_plain_table(self) -> bool:
        mapper = self.mapper
        counted = mapper.version_id_col
        return (
            len(self.tables) == 1
            and not self.computes
            and not mapper.validators
            # The ORM alone knows a version that is counted otherwise than one by one.
            and (counted is None or (self.version is not None and counted is self.columns[self.version]))
            and (counted is None or getattr(mapper.version_id_generator, "__module__", "") == "sqlalchemy.orm.mapper")
        )

    def attribute(self, key: str) -> InstrumentedAttribute[Any]:
        """The class's attribute of this key, for statements."""
        return getattr(self.model, key)  # type: ignore[no-any-return]  # mapped attributes are untyped here

    def kept(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """``make()``, or what it gave for this key before. Once full it begins anew, so no flood of shapes clogs it."""
        found: T | None = self.statements.get(key)
        if found is None:
            found = make()
            if len(self.statements) >= MAX_SHAPES:
                self.statements.clear()
            self.statements[key] = found
            if isinstance(found, (Select, Insert, Update)):
                _OF_KEPT_SHAPE.add(found)
        return found

    def key_of(self, entity: M) -> Any:
        """The entity's primary key: one value, or a tuple of them."""
        values = tuple(getattr(entity, key) for key in self.primary_key)
        return values[0] if len(values) == 1 else values


def hybrid_sql(model: type[Any], name: str) -> Any:
    """A hybrid's SQL on its class; None: it is of Python alone, which may raise anything there."""
    try:
        attribute = getattr(model, name)
        return attribute.__clause_element__() if hasattr(attribute, "__clause_element__") else None
    except Exception:  # noqa: BLE001 - the hybrid's own code
        return None


_OF_KEPT_SHAPE: WeakSet[Any] = WeakSet()


def is_of_kept_shape(statement: Any) -> bool:
    """Whether a statement was built from its shape alone: what users gave is in its parameters, and is data."""
    return statement in _OF_KEPT_SHAPE


def makes_value(default: Any) -> bool:
    """Whether a column's default is a value, or a call that needs nothing of the row and the connection."""
    if default.is_scalar or not default.is_callable:
        return bool(default.is_scalar)
    # SQLAlchemy wraps the functions that take no context, and leaves the others as they are.
    code = getattr(default.arg, "__code__", None)
    return code is not None and code.co_freevars == ("fn",) and code.co_filename == schema.__file__


def is_private(expression: Any) -> bool:
    """Whether an expression is a private column, or has one in it."""
    return any(getattr(part, "info", {}).get("private") for part in iterate(expression))


_CACHE: WeakKeyDictionary[type, Traits[Any]] = WeakKeyDictionary()


def traits_of(model: type[M]) -> Traits[M]:
    """The traits of ``model``. Raises `ValidationError` where it is no mapped class, or names a missing column."""
    traits = _CACHE.get(model)
    if traits is None:
        traits = _CACHE[model] = _read(model)
    return traits


def tenant_key(mapper: Mapper[Any]) -> str | None:
    """The key of the tenant attribute of ``mapper``'s class; None: the class is not tenant-scoped."""
    return traits_of(mapper.class_).tenant


def _read(model: type[M]) -> Traits[M]:
    try:
        mapper = sa_inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise ValidationError(f"{getattr(model, '__name__', model)!r} is not a mapped class.")
    keys = {prop.key for prop in mapper.column_attrs}
    by_column = {c.name: prop.key for prop in mapper.column_attrs for c in prop.columns if isinstance(c, Column)}
    parts: dict[str, str | None] = {}
    for part, usual in ROLES.items():
        named = getattr(model, f"__{part}_column__", None)
        key = named or usual
        if key not in keys:
            key = by_column.get(key, "")
        if named and not key:
            raise ValidationError(
                f"{model.__name__}.__{part}_column__ names {named!r}, which is no column of it.", field=named
            )
        parts[part] = key or None
    primary_key = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
    return Traits(
        model,
        mapper,
        primary_key,
        tenant=parts["tenant"],
        is_deleted=parts["is_deleted"],
        deleted_at=parts["deleted_at"],
        created_at=parts["created_at"],
        updated_at=parts["updated_at"],
        created_by=parts["created_by"],
        updated_by=parts["updated_by"],
        version=parts["version"],
    )
