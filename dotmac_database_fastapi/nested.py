"""Children in the body of a POST: they are created with their parent, in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model
from sqlalchemy import BindParameter
from sqlalchemy.orm import RelationshipDirection
from sqlalchemy.orm.exc import UnmappedColumnError
from sqlalchemy.sql.visitors import iterate

from dotmac_database import (
    ALL_TENANTS,
    MisuseError,
    Policy,
    Traits,
    ValidationError,
    create_async_repository,
    traits_of,
)

from .aliases import Data, JsonObject, Repository, Schema
from .bounds import MAX_ROWS
from .hidden_bodies import refuse_hidden
from .hiding import NOTHING, Hidden
from .references import References
from .refused_rows import rows_of, written_together
from .rendering import Renderer
from .row_data import member, with_values, without_fields
from .schemas import child_schema_of, list_of
from .session_callers import session_actor

Children = Mapping[str, Sequence[Any]]
"""For each relationship, the data of the children, or their entities, in the order of the request."""


class Nested:
    """The one-to-many relationships whose children a POST of their parent may contain. False if there are none.

    Raises `ValidationError` for a relationship that is none of the class's, or by which no children can be created:
    one that is to-one, many-to-many or viewonly, that has a condition of its own, or that leads from a class without a
    tenant to rows of tenants.
    """

    def __init__(self, traits: Traits[object], names: Sequence[str], policy: Policy[Any] | None = None) -> None:
        """``policy`` is that of the router, which also rules children of the same class."""
        self.traits = traits
        self._all = {name: replace(_relationship(traits, name), policy=policy) for name in names}

    def __bool__(self) -> bool:
        return bool(self._all)

    def create_schema(self, schema: Schema) -> Schema:
        """The schema of a new row with its children. A field of the relationship's name in ``schema`` is kept."""
        fields: JsonObject = {
            name: (Annotated[list_of(each.schema), Field(max_length=MAX_ROWS)], [])
            for name, each in self._all.items()
            if name not in schema.model_fields
        }
        if not fields:
            return schema
        return create_model(_with(schema, fields), __base__=schema, __module__=schema.__module__, **fields)

    def read_schema(self, renderer: Renderer) -> Schema:
        """The schema of the response to the POST: a derived read schema, and the children. Others stay as they are."""
        if not self or renderer.columns is None:
            return renderer.schema
        fields: JsonObject = {name: (list_of(each.renderer.schema), ...) for name, each in self._all.items()}
        return create_model(
            _with(renderer.schema, fields), __base__=renderer.schema, __module__=self.traits.model.__module__, **fields
        )

    def split(self, data: Data, sent: Data) -> tuple[Data, Children]:
        """The data of the parent alone, and those of the children.

        ``data`` may be what a hook has made of ``sent``. Children that it does not mention are those that were sent.
        """
        children: JsonObject = {name: member(data, name, member(sent, name, ())) or () for name in self._all}
        return without_fields(data, frozenset(self._all)), children

    async def create(self, repository: Repository, parent: object, children: Children) -> Children:
        """Create the children of a row, and return their entities in the order of the data.

        One INSERT for each relationship, and one statement for each foreign key of the children to other rows of
        tenants. An error has the ``index`` of the child, and fields such as ``lines.sku``.
        """
        return {
            name: await each.create(repository, parent, children[name]) if children.get(name) else []
            for name, each in self._all.items()
        }

    def refuse_hidden(self, data: Data, hidden: Hidden) -> None:
        """Raise `RefusedRequestError` for children with data of columns that are hidden from the actor."""
        for name, each in self._all.items():
            refuse_hidden(each.traits, member(data, name, ()), hidden, ("body", name))

    def shown(self, renderer: Renderer, body: bytes, created: Children, hidden: Hidden = NOTHING) -> bytes:
        """The JSON of the parent with that of its children, as `read_schema` describes it."""
        if not created or renderer.columns is None:
            return body
        members = [
            b"%s:%s" % (json.dumps(name).encode(), self._all[name].renderer_for(hidden).many(rows))
            for name, rows in created.items()
        ]
        return b",".join([body[:-1], *members]) + b"}"


def _with(schema: Schema, relationships: Iterable[str]) -> str:
    """The name of a schema with children: ``AuthorCreateWithBooks``."""
    words = "_".join(relationships).split("_")
    return f"{schema.__name__}With{''.join(word[:1].upper() + word[1:] for word in words)}"


@dataclass(frozen=True)
class _Relationship:
    """A relationship to children. ``filled``: the children's attributes, with the parent's that give their values."""

    name: str
    traits: Traits[object]
    filled: Mapping[str, str]
    schema: Schema
    references: References
    renderer: Renderer
    policy: Policy[Any] | None = None

    def renderer_for(self, hidden: Hidden) -> Renderer:
        """The renderer of the children without the hidden columns."""
        return Renderer(self.traits.model, None, hidden) if hidden.of(self.traits) else self.renderer

    async def create(self, repository: Repository, parent: object, children: Sequence[Data]) -> Sequence[object]:
        if not (isinstance(children, Sequence) and all(isinstance(each, BaseModel | Mapping) for each in children)):
            raise MisuseError(f"{self.name}: a list of Pydantic objects or dicts was expected, as the data of rows.")
        if len(children) > MAX_ROWS:
            raise ValidationError(f"{self.name}: there can be at most {MAX_ROWS:,} rows.", field=self.name)
        values = {child: getattr(parent, own) for child, own in self.filled.items()}
        tenant, key = repository.tenant_id, self.traits.tenant
        if tenant is ALL_TENANTS and key is not None:
            values[key] = getattr(parent, repository.traits.tenant or key)
        rows = [with_values(child, values) for child in children]
        own = create_async_repository(repository.db, self.traits.model, None if key is None else tenant)
        if self.policy is not None:
            own = own.with_policy(self.policy, actor=session_actor(repository.db))
        with rows_of(self.name, self.filled):
            checked = await self.references.before_create_many(own, rows)
            created: Sequence[object] = await written_together(
                own,
                rows,
                lambda: own.bulk_create(rows),
                lambda some: own.bulk_create(some, returning=False),
            )
            await self.references.after_many(own, created, checked, created=True)
        return created


def _relationship(traits: Traits[object], name: str) -> _Relationship:
    where = f"nested: {traits.name}.{name}"
    relationship = traits.relationships.get(name)
    if relationship is None:
        known = ", ".join(traits.relationships) or "none"
        raise ValidationError(f"{where} is no relationship. There are: {known}.", field="nested")
    model: type = relationship.mapper.class_
    child: Traits[object] = traits_of(model)
    has_condition = any(isinstance(each, BindParameter) for each in iterate(relationship.primaryjoin))
    is_one_to_many = relationship.direction is RelationshipDirection.ONETOMANY and relationship.uselist
    if not is_one_to_many or relationship.viewonly or has_condition:
        raise ValidationError(
            f"{where} must be a one-to-many relationship that can be written and has no condition.", field="nested"
        )
    if child.tenant is not None and traits.tenant is None:
        raise ValidationError(f"{where} leads to rows of tenants, and {traits.name} has no tenant.", field="nested")
    try:
        keys = [
            (traits.mapper.get_property_by_column(own).key, child.mapper.get_property_by_column(theirs).key)
            for own, theirs in relationship.local_remote_pairs or ()
        ]
    except UnmappedColumnError:
        raise ValidationError(f"{where} uses a column that is not mapped.", field="nested") from None
    filled = {theirs: own for own, theirs in keys if theirs != child.tenant}
    schema = child_schema_of(traits.mapper.class_, model, frozenset(filled))
    return _Relationship(name, child, filled, schema, References(child, filled), Renderer(model))
