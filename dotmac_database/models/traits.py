"""The traits of a mapped class: which attributes have a role for the toolkit, and how the class may be written.

They are computed once for a class, and cached while it exists. A role belongs to the attribute with the usual name
(``tenant_id``, ``is_deleted``, …), wherever it is defined, or to the one that the class names:
``__tenant_column__ = "org_id"``, ``__version_column__ = "revision"``. SQLAlchemy's ``version_id_col`` is the version,
whatever its name.
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
from sqlalchemy.orm.exc import UnmappedClassError
from sqlalchemy.types import TypeEngine

from ..departures import CHANGE, INSERT, READ_BY_DRIVER, mapper_departure
from ..errors import MisuseError
from ..sqlalchemy_internals import DEFAULT_CONSTRUCTOR
from ..types import UTCDateTime
from .expressions import holds_select, hybrid_sql, is_private, makes_value

M = TypeVar("M")
T = TypeVar("T")

MAX_SHAPES = 2048
"""The most cached statements and their parts for one class."""

EAGER = frozenset(("joined", "selectin", "subquery", "immediate", False))
"""The strategies that load a relationship in the same statement as the class's rows."""

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
"""The default attribute of each role; the class can name another one with ``__<role>_column__``."""


class VersionSource(Enum):
    """What generates a row's next version."""

    TOOLKIT = "counted one by one, by the toolkit alone"
    MAPPER = "counted one by one, by the ORM too (version_id_col)"
    GENERATOR = "made by a function of the class (version_id_generator)"
    DATABASE = "made by the database, or set by the app (version_id_generator=False)"


@dataclass(frozen=True, eq=False)
class Traits(Generic[M]):
    """What the toolkit knows of a mapped class. The fields for roles are attribute keys, or None."""

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
    """The cache of statements of this class, by shape, with at most `MAX_SHAPES` entries. See `cached`."""

    @property
    def name(self) -> str:
        """The class's name, for messages."""
        return self.model.__name__

    @property
    def soft_deletes(self) -> bool:
        """Whether rows can be soft-deleted."""
        return self.is_deleted is not None or self.deleted_at is not None

    @cached_property
    def columns(self) -> dict[str, Column[Any]]:
        """The table columns of all writable attributes, by attribute key."""
        return {
            prop.key: prop.columns[0]
            for prop in self.mapper.column_attrs
            if isinstance(prop, ColumnProperty) and isinstance(prop.columns[0], Column)
        }

    @cached_property
    def version_source(self) -> VersionSource | None:
        """What generates the next version of a row; None if the class has no version."""
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
        """The keys that the repository fills in: the tenant and the audit columns."""
        parts = (self.tenant, self.created_at, self.updated_at, self.created_by, self.updated_by)
        return frozenset(key for key in parts if key is not None)

    @cached_property
    def private(self) -> frozenset[str]:
        """The keys of attributes with ``info={"private": True}``, and of expressions that contain such a column."""
        return frozenset(
            each.key
            for each in self.mapper.column_attrs
            if each.info.get("private") or any(map(is_private, each.columns))
        )

    @cached_property
    def relationships(self) -> dict[str, RelationshipProperty[Any]]:
        """The relationships, by attribute key."""
        return dict(self.mapper.relationships.items())

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The tables of the class: one, or with joined inheritance one for each level."""
        return tuple(table for table in self.mapper.tables if isinstance(table, Table))

    @cached_property
    def lockable(self) -> Any:
        """The targets of FOR UPDATE OF: the class, or its tables if there are several. None: rows can't be locked."""
        if self._is_union:
            return None
        return self.model if len(self.tables) <= 1 else list(self.tables)

    @cached_property
    def takes_statements(self) -> bool:
        """Whether UPDATE and DELETE of the class are possible: it is mapped on a table, not on a select or a join."""
        return isinstance(self.mapper.local_table, Table)

    @cached_property
    def returned(self) -> bool:
        """Whether RETURNING can give objects of the class: the class of a row is not computed by an expression."""
        on = self.mapper.polymorphic_on
        return self.takes_statements and (on is None or isinstance(on, Column))

    @cached_property
    def inserted_in_bulk(self) -> bool:
        """Whether one INSERT can create many objects of the class; if not, the unit of work inserts them.

        For a concrete class, SQLAlchemy 2.1 would use the base class's select in the INSERT.
        """
        return self.returned and isinstance(self.mapper.base_mapper.local_table, Table)

    @cached_property
    def abstract(self) -> bool:
        """Whether the class is abstract: each row belongs to a subclass."""
        return self.mapper.polymorphic_abstract or self._is_union

    @cached_property
    def _is_union(self) -> bool:
        return isinstance(getattr(self.mapper.local_table, "element", None), CompoundSelect)

    @cached_property
    def discriminator(self) -> str | None:
        """The key of the discriminator column; None if there is none that can be written."""
        column = self.mapper.polymorphic_on
        if column is None or not self.mapper.columns.contains_column(column):
            return None
        key = self.mapper.get_property_by_column(column).key
        return key if key in self.columns else None

    @cached_property
    def makes_uuid(self) -> str | None:
        """The key of a UUID primary key that nothing else fills. (A joined child's key is its parent's.)"""
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
        """The keys of columns that are NULL in a new row unless they are given."""
        return frozenset(
            key
            for key, column in self.columns.items()
            if column.default is None and column.server_default is None and not column.primary_key
        )

    @cached_property
    def required(self) -> frozenset[str]:
        """The keys of columns that must be given for a new row: they are not nullable, and nothing else fills them."""
        unfilled = self.null_unless_set
        return frozenset(key for key, column in self.columns.items() if key in unfilled and not column.nullable)

    @cached_property
    def never_null(self) -> frozenset[str]:
        """The keys of columns that can't store None.

        Columns of a converting type, which may store something else for None, and columns that the database fills, are
        not included.
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
        """The keyword arguments of the class's constructor; None: any."""
        parameters = pyinspect.signature(self.model.__init__).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return frozenset(p.name for p in parameters)

    @cached_property
    def constructor_needs(self) -> frozenset[str]:
        """The required keyword arguments of the class's constructor."""
        parameters = [*pyinspect.signature(self.model.__init__).parameters.values()][1:]
        kinds = (pyinspect.Parameter.POSITIONAL_OR_KEYWORD, pyinspect.Parameter.KEYWORD_ONLY)
        return frozenset(p.name for p in parameters if p.kind in kinds and p.default is p.empty)

    @cached_property
    def constructs(self) -> bool:
        """Whether the class's own constructor or validators may change the values of a new row."""
        return bool(self.mapper.validators) or not self._made_plainly

    @cached_property
    def joins_collections(self) -> bool:
        """Whether the class loads a collection by a join by default, so that results need ``unique()``."""
        return any(r.lazy in ("joined", False) and r.uselist for r in self.mapper.relationships)

    @cached_property
    def loads_eagerly(self) -> bool:
        """Whether the class loads any relationship by default."""
        return any(relationship.lazy in EAGER for relationship in self.mapper.relationships)

    @cached_property
    def plain(self) -> bool:
        """Whether each row is an object of exactly this class, with only its columns."""
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
        """The keys of the deferred columns."""
        return frozenset(each.key for each in self.mapper.column_attrs if each.deferred)

    @cached_property
    def computes(self) -> bool:
        """Whether the class has an attribute that is an SQL expression instead of a column."""
        return len(self.columns) < len(self.mapper.column_attrs)

    @cached_property
    def loads_other_rows(self) -> bool:
        """Whether the class has a column property that contains a SELECT, which is loaded with each object."""
        return any(holds_select(column) for each in self.mapper.column_attrs for column in each.columns)

    @cached_property
    def asks_other_rows(self) -> bool:
        """Whether the class has a column property or hybrid that contains a SELECT, which must be confined too."""
        hybrids = (name for name, each in self.mapper.all_orm_descriptors.items() if isinstance(each, hybrid_property))
        return self.loads_other_rows or any(holds_select(hybrid_sql(self.model, name)) for name in hybrids)

    @cached_property
    def leads_to_other_rows(self) -> bool:
        """Whether the class, or any class that its relationships reach, has `asks_other_rows`."""
        reached: list[Mapper[Any]] = [self.mapper]
        for mapper in reached:
            if traits_of(mapper.class_).asks_other_rows:
                return True
            targets = (each for to in mapper.relationships for each in to.mapper.self_and_descendants)
            reached += [each for each in dict.fromkeys(targets) if each not in reached]
        return False

    @property
    def listens_to_loads(self) -> bool:
        """Whether code of the user's runs when an object is loaded: a listener or a reconstructor."""
        return mapper_departure(self.mapper, READ_BY_DRIVER) is not None

    @property
    def direct_writes(self) -> bool:
        """Whether a row may be updated by a statement: no code of the user's depends on the unit of work."""
        return self._one_plain_table and mapper_departure(self.mapper, CHANGE) is None

    @cached_property
    def direct_deletes(self) -> bool:
        """Whether rows may be deleted by a DELETE of the class's table: there are no listeners to deletions."""
        return len(self.tables) == 1 and self.returned

    @property
    def direct_creates(self) -> bool:
        """Whether a row may be inserted by a statement: no constructor or listener of the user's is involved."""
        return (
            self.plain
            and self._one_plain_table
            and self._made_plainly
            and self._defaults_are_plain
            and mapper_departure(self.mapper, INSERT) is None
        )

    @cached_property
    def _made_plainly(self) -> bool:
        """Whether the class has SQLAlchemy's own constructor, and no validators."""
        made: Any = self.mapper.class_manager.original_init
        if made is DEFAULT_CONSTRUCTOR:
            return self.model.__setattr__ is object.__setattr__
        return (
            made.__module__ == "sqlmodel.main"
            and self.model.__setattr__.__module__ == "sqlmodel.main"
            and not getattr(self.model, "__pydantic_post_init__", None)
            and not getattr(self.model, "model_config", {}).get("validate_assignment")
            and not any(map(self._has_default_of_its_own, self.columns))
        )

    def _has_default_of_its_own(self, key: str) -> bool:
        """Whether SQLModel's constructor has a default for a field whose column, given as ``sa_column``, has none."""
        field = self.model.model_fields.get(key)  # type: ignore[attr-defined]  # of SQLModel's classes
        made = field is not None and not field.is_required() and (field.default_factory or field.default is not None)
        return bool(made) and self.columns[key].default is None and key not in self.stamped and key != self.version

    @cached_property
    def _defaults_are_plain(self) -> bool:
        """Whether all defaults of a new row can be computed in Python, without SQLAlchemy's context."""
        return all(column.default is None or makes_value(column.default) for column in self.columns.values())

    @cached_property
    def _one_plain_table(self) -> bool:
        mapper = self.mapper
        return (
            len(self.tables) == 1
            and self.returned
            and not self.computes
            and not mapper.validators
            # Only the ORM can generate a version that is not a counter.
            and self.version_source in (None, VersionSource.TOOLKIT, VersionSource.MAPPER)
        )

    def attribute(self, key: str) -> InstrumentedAttribute[Any]:
        """The class's attribute of this key, for statements."""
        return getattr(self.model, key)  # type: ignore[no-any-return]  # mapped attributes are untyped here

    def public_expression(self, name: str) -> ColumnElement[Any] | None:
        """The SQL expression of a column property or hybrid; None if there is none, or if it is private."""
        known = name in self.mapper.column_attrs
        if not known and not isinstance(self.mapper.all_orm_descriptors.get(name), hybrid_property):
            return None
        found = hybrid_sql(self.model, name)
        return found if isinstance(found, ColumnElement) and not is_private(found) else None

    def cached(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The cached result of ``make()`` for this key. A full cache is cleared, so that it never exceeds its limit."""
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
        """The entity's next version, for a version that is a counter."""
        return (getattr(entity, self.version or "") or 0) + 1

    def key_of(self, entity: M) -> Any:
        """The entity's primary key: one value, or a tuple of them."""
        values = tuple(getattr(entity, key) for key in self.primary_key)
        return values[0] if len(values) == 1 else values


def converts_none(type_: TypeEngine[Any]) -> bool:
    """Whether a type may store something other than NULL for None."""
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
    """Whether a statement was built from a shape, so that all values of users are parameters."""
    return statement in _OF_KEPT_SHAPE


_CACHE: WeakKeyDictionary[type, Traits[Any]] = WeakKeyDictionary()


def traits_of(model: type[M]) -> Traits[M]:
    """The traits of ``model``. Raises `ValidationError` if it is no mapped class, or names a column that is missing."""
    traits = _CACHE.get(model)
    if traits is None:
        traits = _CACHE[model] = _read(model)
    return traits


def tenant_key(mapper: Mapper[Any]) -> str | None:
    """The key of the tenant attribute of the mapper's class; None if the class is not tenant-scoped."""
    return traits_of(mapper.class_).tenant


def _version(mapper: Mapper[Any], found: str | None) -> str | None:
    """The key of the version: that of the mapper's ``version_id_col``, else the attribute found by name."""
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
    except UnmappedClassError:  # an AbstractConcreteBase, which is mapped after its subclasses
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
