"""Statements that link rows by a to-many relationship: by a secondary table, or by the children's foreign keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    Delete,
    Select,
    Table,
    UniqueConstraint,
    and_,
    exists,
    literal,
    select,
    tuple_,
)
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import RelationshipProperty
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.visitors import iterate

from ..errors import MisuseError
from ..field_names import FieldName, name_for
from ..models.traits import Traits, traits_of
from ..tenancy.context import ALL_TENANTS
from ..tenancy.tables import TABLES
from ..tenancy.values import column_value
from .inlining import with_values
from .paths import relationship_of
from .reads import Bound, Reader
from .upserts import is_on_columns

KEYS = "dotmac_keys"


@dataclass(frozen=True, eq=False)
class Link:
    """A to-many relationship, and the columns in which it is stored.

    ``parent`` has, for each attribute of the parent, the column that gets its value: a column of the ``secondary``
    table, or of the target's own table. ``target`` has the same for the attributes of the target (many-to-many only).
    ``owner`` is the tenant column of the secondary table.
    """

    name: str
    traits: Traits[object]
    target_traits: Traits[object]
    parent: tuple[tuple[str, Column[object]], ...]
    target: tuple[tuple[str, Column[object]], ...]
    secondary: Table | None
    owner: Column[object] | None
    is_unique: bool
    reverse: str | None

    @property
    def changed(self) -> tuple[tuple[str, str], ...]:
        """For each attribute of the parent, the child's attribute that gets its value (one-to-many only)."""
        mapper = self.target_traits.mapper
        pairs = ((key, mapper.get_property_by_column(column).key) for key, column in self.parent)
        return tuple((key, child) for key, child in pairs if child != self.target_traits.tenant)

    def refuse_required(self) -> None:
        """Raise `ValidationError` if no link can be removed, because a child's foreign key can't be NULL."""
        traits = self.target_traits
        for _, child in self.changed if self.secondary is None else ():
            if not traits.columns[child].nullable:
                raise MisuseError(
                    f"{self.traits.name}.{self.name}: {traits.name}.{child} can't be NULL, so no link can be removed.",
                    field=self.name,
                )


def check_link(model: type, relationship: FieldName) -> type:
    """Check that the repositories of a mapped class can link and unlink rows by a relationship. Returns its class.

    Raises `ValidationError` where `link` and `unlink` would, whatever the rows are. Sends no statement.
    """
    link = link_of(traits_of(model), name_for(model, relationship))
    link.refuse_required()
    return link.target_traits.model


def link_of(traits: Traits[Any], name: str) -> Link:
    """The link of a relationship. Raises `ValidationError` if rows can't be linked by it."""
    relationship = relationship_of(traits, name, name)
    return traits.cached(("link", name), lambda: _link(traits, name, relationship))


def _link(traits: Traits[object], name: str, relationship: RelationshipProperty[object]) -> Link:
    where = f"{traits.name}.{name}"
    if not relationship.uselist:
        raise MisuseError(f"{where} leads to one row; write its foreign key by update().", field=name)
    if relationship.viewonly:
        raise MisuseError(f"{where} is viewonly, so no rows can be linked by it.", field=name)
    joins = [each for each in (relationship.primaryjoin, relationship.secondaryjoin) if each is not None]
    if any(isinstance(element, BindParameter) for join in joins for element in iterate(join)):
        raise MisuseError(f"{where} has a condition of its own, so no rows can be linked by it.", field=name)
    target, secondary = traits_of(relationship.mapper.class_), relationship.secondary
    key_of = traits.mapper.get_property_by_column
    pairs: Any = relationship.synchronize_pairs
    parent = tuple((key_of(here).key, there) for here, there in pairs)
    if secondary is None:
        link = Link(name, traits, target, parent, (), None, None, False, relationship.back_populates)
        if any(child in target.primary_key for _, child in link.changed):
            raise MisuseError(
                f"{where} leads to association objects; create and delete them by a repository of {target.name}.",
                field=name,
            )
        return link
    if not isinstance(secondary, Table):
        raise MisuseError(f"{where} has no table as its secondary, so no rows can be linked by it.", field=name)
    their_key = target.mapper.get_property_by_column
    pairs = relationship.secondary_synchronize_pairs or ()
    others = tuple((their_key(here).key, there) for here, there in pairs)
    owner = _owner_column(secondary, traits, target)
    written = {column for _, column in (*parent, *others)} | ({owner} if owner is not None else set())
    needed = [each.name for each in secondary.columns if each not in written and not _fills_itself(each)]
    if needed:
        raise MisuseError(
            f"{where}: the table {secondary.name} has columns that must be given ({', '.join(needed)}).", field=name
        )
    return Link(
        name,
        traits,
        target,
        parent,
        others,
        secondary,
        owner,
        _is_unique(secondary, written),
        relationship.back_populates,
    )


def _owner_column(secondary: Table, *classes: Traits[object]) -> Column[object] | None:
    """The tenant column of a secondary table, which may have the name of that of a linked class."""
    known = TABLES.owner(secondary)
    if known is not None and known.column is not None:
        return known.column
    names = (each.columns[each.tenant].name for each in classes if each.tenant is not None)
    return next((secondary.columns[name] for name in names if name in secondary.columns), None)


def _fills_itself(column: Column[object]) -> bool:
    is_key = column.table.primary_key.columns.contains_column(column)
    has_default = column.default is not None or column.server_default is not None or column.computed is not None
    return bool(column.nullable and not is_key) or has_default or column is column.table.autoincrement_column


def _is_unique(table: Table, columns: set[Column[object]]) -> bool:
    """Whether the table can't contain a link twice."""
    keys = [set(table.primary_key.columns)]
    keys += [set(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    keys += [
        set(each.columns)
        for each in table.indexes
        if each.unique and is_on_columns(each) and not _has_condition(each.dialect_options)
    ]
    return any(key and key <= columns for key in keys)


def _has_condition(options: Mapping[str, Mapping[str, object]]) -> bool:
    return any(each.get("where") is not None for each in options.values())


@dataclass(frozen=True)
class LinkStatements:
    """The statements on a secondary table, for one parent. ``values`` are the parent's, by attribute.

    A guarded session can't analyse statements on a secondary table. But each of these reaches only links of the parent,
    which the repository has read, to rows in the scope of ``targets``, the reader of the target class.
    """

    link: Link
    targets: Reader
    values: Mapping[str, object]
    tenant: object

    def insert(self, keys: Sequence[tuple[object, ...]]) -> Any:
        """INSERT … SELECT of the links to the targets with these keys that do not exist yet."""
        link, secondary = self.link, self.link.secondary
        assert secondary is not None
        columns: dict[Column[object], Any] = {
            column: literal(self.values[key], column.type) for key, column in link.parent
        }
        same: list[ColumnElement[bool]] = []
        for key, column in link.target:
            attribute = link.target_traits.attribute(key)
            if column in columns:
                same.append(attribute == columns[column])
            else:
                columns[column] = attribute
        if link.owner is not None and link.owner not in columns:
            columns[link.owner] = self._owner(link.owner)
        source = self._targets(list(columns.values()), keys).where(*same)
        if not link.is_unique:
            linked = [column == value for column, value in columns.items()]
            source = source.where(~exists(select(literal(1)).select_from(secondary).where(*linked)))
        statement = self.targets.dialect.insert(secondary).from_select(list(columns), source)
        return statement.on_conflict_do_nothing() if link.is_unique else statement

    def _owner(self, column: Column[object]) -> Any:
        """The tenant of a new link: the parent's, or else the target's."""
        tenant_key = self.link.target_traits.tenant
        if self.tenant is None or self.tenant is ALL_TENANTS:
            if tenant_key is None:
                raise MisuseError(f"{self.link.traits.name}.{self.link.name}: the tenant of the link is not known.")
            return self.link.target_traits.attribute(tenant_key)
        return literal(column_value(self.tenant, column), column.type)

    def delete(self, keys: Sequence[tuple[object, ...]], *, others: bool = False) -> Delete:
        """DELETE of the links to the targets with these keys, or to all ``others``."""
        link, secondary = self.link, self.link.secondary
        assert secondary is not None
        of_parent = [column == literal(self.values[key], column.type) for key, column in link.parent]
        columns = [column for _, column in link.target]
        attributes = [link.target_traits.attribute(key) for key, _ in link.target]
        place: Any = columns[0] if len(columns) == 1 else tuple_(*columns)
        chosen: ColumnElement[bool] = place.in_(self._targets(attributes, keys))
        if others:
            chosen = and_(place.in_(self._targets(attributes, None)), ~chosen)
        if link.owner is not None and self.tenant is not None and self.tenant is not ALL_TENANTS:
            of_parent.append(link.owner == literal(column_value(self.tenant, link.owner), link.owner.type))
        return delete_from(secondary).where(*of_parent, chosen)

    def _targets(self, columns: Sequence[Any], keys: Sequence[tuple[object, ...]] | None) -> Select[object]:
        """The SELECT of columns of the targets with these keys, or of all targets, in the scope."""
        bound = targets_of(self.targets, columns, keys)
        statement: Select[object] = with_values(bound.statement, bound.parameters)
        return statement


def targets_of(reader: Reader, columns: Sequence[Any], keys: Sequence[tuple[object, ...]] | None) -> Bound:
    """The SELECT of columns of the rows with these keys, or of all rows, in the reader's scope."""
    statement: Any = select(*columns).where(*reader.scope.root(reader.traits))
    if keys is None:
        return Bound(statement, dict(reader.scope.parameters))
    own: list[Any] = [reader.traits.attribute(name) for name in reader.traits.primary_key]
    statement = statement.where(reader.dialect.row_among(own, KEYS))
    return Bound(statement, {**reader.scope.parameters, **reader.dialect.row_parameters(own, KEYS, keys)})
