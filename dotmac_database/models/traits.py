"""The traits of a mapped class: which of its attributes play the toolkit's parts.

Computed once per class and cached for the class's life. A part is played by the attribute of the
usual name (``tenant_id``, ``is_deleted``, …), wherever it came from, or by the one that the class
names: ``__tenant_column__ = "org_id"``, ``__version_column__ = "revision"``. SQLAlchemy's
``version_id_col`` is the version, whatever its name.
"""

from __future__ import annotations

import inspect as pyinspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    CompoundSelect,
    Insert,
    Interval,
    Select,
    Table,
    TypeDecorator,
    Update,
    Uuid,
)
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import ColumnProperty, InstrumentedAttribute, Mapper, RelationshipProperty, configure_mappers
from sqlalchemy.orm.decl_base import _declarative_constructor
from sqlalchemy.orm.exc import UnmappedClassError
from sqlalchemy.types import TypeEngine

from ..errors import MisuseError
from ..plainness import CHANGE, INSERT, READ_BY_DRIVER, mapper_departure
from ..types import UTCDateTime
from .expressions import holds_select, hybrid_sql, is_private, makes_value

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


class VersionSource(Enum):
    """What makes a row's next version."""

    TOOLKIT = "counted one by one, by the toolkit alone"
    MAPPER = "counted one by one, by the ORM too (version_id_col)"
    GENERATOR = "made by a function of the class (version_id_generator)"
    DATABASE = "made by the database, or set by the app (version_id_generator=False)"


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
    def version_source(self) -> VersionSource | None:
        """What makes the next version of a row; None: its class has no version."""
        mapper = self.mapper
        if self.version is None:
            return None
        if mapper.version_id_col is None:
            return VersionSource.TOOLKIT
        if mapper.version_id_generator is False:
            return VersionSource.DATABASE
        counts = getattr(mapper.version_id_generator, "__module__", "") == "sqlalchemy.orm.mapper"
        return VersionSource.MAPPER if counts else VersionSource.GENERATOR

    @cached_property
    def stamped(self) -> frozenset[str]:
        """The keys of what the repository fills in: the tenant, and who made and changed a row, and when."""
        parts = (self.tenant, self.created_at, self.updated_at, self.created_by, self.updated_by)
        return frozenset(key for key in parts if key is not None)

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
        """What FOR UPDATE OF names: the class, or where its row lies in several tables these. None: no row can be."""
        if self._is_union:
            return None
        return self.model if len(self.tables) <= 1 else list(self.tables)

    @cached_property
    def takes_statements(self) -> bool:
        """Whether UPDATE and DELETE may name the class: it is mapped on a table, and not on a select or a join."""
        return isinstance(self.mapper.local_table, Table)

    @cached_property
    def returned(self) -> bool:
        """Whether RETURNING gives objects of the class: it has no columns but a table's to tell the class of a row."""
        on = self.mapper.polymorphic_on
        return self.takes_statements and (on is None or isinstance(on, Column))

    @cached_property
    def inserted_in_bulk(self) -> bool:
        """Whether one INSERT makes many objects of the class; else the unit of work does, by as many as it can.

        SQLAlchemy 2.1 names the topmost class's select in the INSERT of a concrete class.
        """
        return self.returned and isinstance(self.mapper.base_mapper.local_table, Table)

    @cached_property
    def abstract(self) -> bool:
        """Whether no row is of just this class, but each of one below it."""
        return self.mapper.polymorphic_abstract or self._is_union

    @cached_property
    def _is_union(self) -> bool:
        return isinstance(getattr(self.mapper.local_table, "element", None), CompoundSelect)

    @cached_property
    def discriminator(self) -> str | None:
        """The key of the column that says which class of an inheritance a row is of; None: there is none to write."""
        column = self.mapper.polymorphic_on
        if column is None or not self.mapper.columns.contains_column(column):
            return None
        key = self.mapper.get_property_by_column(column).key
        return key if key in self.columns else None

    @cached_property
    def makes_uuid(self) -> str | None:
        """The key of a UUID primary key that nothing else would fill: a joined child's is its parent's."""
        if len(self.primary_key) != 1:
            return None
        key = self.primary_key[0]
        columns = [each for each in self.mapper.attrs[key].columns if isinstance(each, Column)]
        referred = [each.column for column in columns for each in column.foreign_keys]
        made = any(each.default is not None or each.server_default is not None for each in columns)
        made = made or any(each not in columns for each in referred)
        return None if made or not isinstance(columns[0].type, Uuid) else key

    @cached_property
    def null_unless_set(self) -> frozenset[str]:
        """The keys of columns that are NULL in a new row that does not name them."""
        return frozenset(
            key
            for key, column in self.columns.items()
            if column.default is None and column.server_default is None and not column.primary_key
        )

    @cached_property
    def required(self) -> frozenset[str]:
        """The keys of columns that a new row must name: they are not nullable, and nothing else fills them."""
        unfilled = self.null_unless_set
        return frozenset(key for key, column in self.columns.items() if key in unfilled and not column.nullable)

    @cached_property
    def never_null(self) -> frozenset[str]:
        """The keys of columns in which no None can be stored, as far as their types tell.

        A type that converts may store something else for None, and the database fills some columns by itself.
        """
        return frozenset(
            key
            for key, column in self.columns.items()
            if not column.nullable
            and column.computed is None
            and column.identity is None
            and not converts_none(column.type)
            and key not in self.primary_key
            and key not in (self.tenant, self.discriminator, self.version)
        )

    @cached_property
    def constructor_keys(self) -> frozenset[str] | None:
        """The keywords that the class's constructor takes; None: any."""
        parameters = pyinspect.signature(self.model.__init__).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return frozenset(p.name for p in parameters)

    @cached_property
    def constructor_needs(self) -> frozenset[str]:
        """The keywords without which the class's constructor can't be called."""
        parameters = [*pyinspect.signature(self.model.__init__).parameters.values()][1:]
        kinds = (pyinspect.Parameter.POSITIONAL_OR_KEYWORD, pyinspect.Parameter.KEYWORD_ONLY)
        return frozenset(p.name for p in parameters if p.kind in kinds and p.default is p.empty)

    @cached_property
    def constructs(self) -> bool:
        """Whether a new row's values are known only once the class's own constructor and validators have seen them."""
        return bool(self.mapper.validators) or not self._made_plainly

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
    def loads_other_rows(self) -> bool:
        """Whether the class has a column property with a SELECT in it, which comes with each object."""
        return any(holds_select(column) for each in self.mapper.column_attrs for column in each.columns)

    @cached_property
    def asks_other_rows(self) -> bool:
        """Whether the class has a column property or a hybrid with a SELECT in it, which must be confined, too."""
        hybrids = (name for name, each in self.mapper.all_orm_descriptors.items() if isinstance(each, hybrid_property))
        return self.loads_other_rows or any(holds_select(hybrid_sql(self.model, name)) for name in hybrids)

    @cached_property
    def leads_to_other_rows(self) -> bool:
        """Whether the class, or any that its relationships lead to, `asks_other_rows`."""
        reached: list[Mapper[Any]] = [self.mapper]
        for mapper in reached:
            if traits_of(mapper.class_).asks_other_rows:
                return True
            targets = (each for to in mapper.relationships for each in to.mapper.self_and_descendants)
            reached += [each for each in dict.fromkeys(targets) if each not in reached]
        return False

    @property
    def listens_to_loads(self) -> bool:
        """Whether something of the user's happens when an object is loaded: a listener, a reconstructor."""
        return mapper_departure(self.mapper, READ_BY_DRIVER) is not None

    @property
    def direct_writes(self) -> bool:
        """Whether a row may be changed by a statement alone: nothing of the user's hangs on the unit of work."""
        return self._one_plain_table and mapper_departure(self.mapper, CHANGE) is None

    @cached_property
    def direct_deletes(self) -> bool:
        """Whether DELETE of the class's table names its rows, as far as no listener is to hear of it."""
        return len(self.tables) == 1 and self.returned

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
            and not any(map(self._has_default_of_its_own, self.columns))
        )

    def _has_default_of_its_own(self, key: str) -> bool:
        """Whether SQLModel's constructor fills a field whose column, since it was given as ``sa_column``, does not."""
        field = self.model.model_fields.get(key)  # type: ignore[attr-defined]  # of SQLModel's classes
        made = field is not None and not field.is_required() and (field.default_factory or field.default is not None)
        return bool(made) and self.columns[key].default is None and key not in self.stamped and key != self.version

    @cached_property
    def _defaults_are_plain(self) -> bool:
        """Whether Python makes what new objects need: values, or calls that need no more than themselves."""
        return all(column.default is None or makes_value(column.default) for column in self.columns.values())

    @cached_property
    def _one_plain_table(self) -> bool:
        mapper = self.mapper
        return (
            len(self.tables) == 1
            and self.returned
            and not self.computes
            and not mapper.validators
            # The ORM alone knows a version that is counted otherwise than one by one.
            and self.version_source in (None, VersionSource.TOOLKIT, VersionSource.MAPPER)
        )

    def attribute(self, key: str) -> InstrumentedAttribute[Any]:
        """The class's attribute of this key, for statements."""
        return getattr(self.model, key)  # type: ignore[no-any-return]  # mapped attributes are untyped here

    def public_expression(self, name: str) -> ColumnElement[Any] | None:
        """The SQL of a column property or a hybrid; None: it is neither, or of Python alone, or private."""
        known = name in self.mapper.column_attrs
        if not known and not isinstance(self.mapper.all_orm_descriptors.get(name), hybrid_property):
            return None
        found = hybrid_sql(self.model, name)
        return found if isinstance(found, ColumnElement) and not is_private(found) else None

    def cached(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
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

    def next_count(self, entity: M) -> int:
        """The entity's next version, where it is counted; one without a version yet gets the first."""
        return (getattr(entity, self.version or "") or 0) + 1

    def key_of(self, entity: M) -> Any:
        """The entity's primary key: one value, or a tuple of them."""
        values = tuple(getattr(entity, key) for key in self.primary_key)
        return values[0] if len(values) == 1 else values


def converts_none(type_: TypeEngine[Any]) -> bool:
    """Whether a type may store something for None that is not NULL. (A JSON column is given NULL for it.)"""
    if isinstance(type_, (UTCDateTime, Interval)):
        return False
    if isinstance(type_, TypeDecorator):
        own = type(type_)
        return (
            own.process_bind_param is not TypeDecorator.process_bind_param
            or own.bind_processor is not TypeDecorator.bind_processor
            or own.bind_expression is not TypeDecorator.bind_expression
            or converts_none(type_.impl_instance)
        )
    if isinstance(type_, JSON):
        return False
    return type_.should_evaluate_none or not type(type_).__module__.startswith("sqlalchemy.")


_OF_KEPT_SHAPE: WeakSet[Any] = WeakSet()


def is_of_cached_shape(statement: Any) -> bool:
    """Whether a statement was built from its shape alone: what users gave is in its parameters, and is data."""
    return statement in _OF_KEPT_SHAPE


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


def _version(mapper: Mapper[Any], found: str | None) -> str | None:
    """The key of the version: the mapper's own column where it has one, and else what was found by name."""
    column = mapper.version_id_col
    if column is None:
        return found
    key = mapper.get_property_by_column(column).key
    if found != key and hasattr(mapper.class_, "__version_column__"):
        raise MisuseError(
            f"{mapper.class_.__name__} names two version columns: {key!r} as version_id_col, and {found!r} as "
            "__version_column__.",
            field=found,
        )
    return key


def _read(model: type[M]) -> Traits[M]:
    try:
        mapper = sa_inspect(model)
    except NoInspectionAvailable:
        mapper = None
    except UnmappedClassError:  # an abstract concrete class, which is mapped once the classes below it are known
        configure_mappers()
        mapper = sa_inspect(model)
    if not isinstance(mapper, Mapper):
        raise MisuseError(f"{getattr(model, '__name__', model)!r} is not a mapped class.")
    keys = {prop.key for prop in mapper.column_attrs}
    by_column = {c.name: prop.key for prop in mapper.column_attrs for c in prop.columns if isinstance(c, Column)}
    parts: dict[str, str | None] = {}
    for part, usual in ROLES.items():
        named = getattr(model, f"__{part}_column__", None)
        key = named or usual
        if key not in keys:
            key = by_column.get(key, "")
        if named and not key:
            raise MisuseError(
                f"{model.__name__}.__{part}_column__ names {named!r}, which is no column of it.", field=named
            )
        parts[part] = key or None
    parts["version"] = _version(mapper, parts["version"])
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
