"""Reads and serializes rows as requests select them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any, Protocol

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticSerializationError

from dotmac_database import (
    AsyncRepository,
    EntityNotFoundError,
    QueryFilter,
    QueryOptions,
    Traits,
    traits_of,
)

from .aliases import Annotation, AnyPage, JsonObject, Repository
from .derived_rows import DerivedRows
from .hiding import NOTHING, Hidden
from .readable import attribute_of, field_of, on_each_path
from .rendering import Renderer, Shape, dump, kind_of, with_items
from .selection import Selection, SelectionParams
from .variants import Schema, hiding, including, optional_fields, runs_code, tree_of

MAX_VARIANTS = 64
"""The most variants of a read schema that a router keeps: one for each combination of included relationships."""


class RowRenderer(Protocol):
    """What reads and serializes the rows of one request: a `Renderer`, or a part of one."""

    @property
    def relationships(self) -> Sequence[str]:
        """The dotted paths of the relationships that the rows need."""
        ...

    @property
    def columns(self) -> Sequence[str] | None:
        """The only columns that the rows need, which may be dicts then; None if they must be entities."""
        ...

    @property
    def of_row_alone(self) -> bool:
        """Whether the JSON of a row depends on its own columns alone."""
        ...

    def loading(self, repository: Repository) -> Repository:
        """The repository, changed to load the deferred columns that the rows need."""
        ...

    async def get(self, repository: Repository, key: object) -> object:
        """The row with a primary key. Raises `EntityNotFoundError`."""
        ...

    def one(self, entity: object, *, committed: bool = False) -> bytes:
        """The JSON of one row."""
        ...

    def values(self, entity: object) -> Mapping[str, object]:
        """The JSON of one row, as Python values."""
        ...

    def page(self, page: AnyPage) -> bytes:
        """The JSON of a page."""
        ...


def reads_plainly(repository: Repository, *methods: str) -> bool:
    """Whether rows can be read as dicts: no override of these methods or listener of the user's needs entities."""
    if not isinstance(repository, AsyncRepository) or repository.traits.listens_to_loads:
        return False
    own = type(repository)
    for name in methods:  # noqa: SIM110 - a generator would add calls to each request
        if getattr(own, name) is not getattr(AsyncRepository, name):
            return False
    return True


class SelectionRenderers:
    """The renderers of a router whose requests select fields and relationships.

    ``base`` renders rows without the allowed relationships, such as those of writes.
    """

    def __init__(
        self, model: type, read_schema: type | None, params: SelectionParams, hidden: Hidden = NOTHING
    ) -> None:
        self.traits: Traits[object] = traits_of(model)
        self.params = params
        self.variant = lru_cache(maxsize=MAX_VARIANTS)(self._variant)
        self._derived = DerivedRows(self.traits, params.tree, hidden) if read_schema is None else None
        self._hidden = hidden
        self.base = Renderer(model, None, hidden) if read_schema is None else self.variant(()).renderer

    def of(self, selection: Selection) -> RowRenderer:
        """The renderer of a request's rows."""
        keys = tuple(self.params.fields[name] for name in selection.fields)
        if self._derived is not None:
            if not (keys or selection.include):
                return self.base
            return _DerivedRenderer(self, self._derived, keys or self._derived.keys, selection.include)
        variant = self.variant(selection.include)
        return _NarrowedRenderer(self.traits, variant, keys, selection.include) if keys else variant.renderer

    @cached_property
    def shape(self) -> Shape:
        """The adapters of rows by derived schemas, with any selection."""
        assert self._derived is not None
        return Shape(self._derived.type)

    def _variant(self, include: tuple[str, ...]) -> Variant:
        schema = including(self.traits, self.params.schema, self.params.tree, tree_of(include))
        if self._hidden.columns:
            schema = hiding(self.traits, schema, self._hidden)
        return Variant(self.traits.model, schema)


class Variant:
    """A read schema with the relationships of one request, and the adapters that validate and serialize its rows."""

    def __init__(self, model: type, schema: Schema) -> None:
        self._model = model
        self.schema = schema
        self._keys = frozenset((*schema.model_fields, *schema.model_computed_fields))

    @cached_property
    def renderer(self) -> Renderer:
        """The renderer of whole rows."""
        return Renderer(self._model, self.schema)

    @cached_property
    def whole(self) -> TypeAdapter[list[BaseModel]]:
        """The adapter of lists of entities."""
        return _lists_of(self.schema)

    @cached_property
    def parts(self) -> TypeAdapter[list[BaseModel]]:
        """The adapter of lists of dicts, each of which has some of the fields."""
        return _lists_of(optional_fields(self.schema))

    def values(
        self, adapter: TypeAdapter[list[BaseModel]], rows: Sequence[object], keys: Sequence[str]
    ) -> list[JsonObject]:
        """The JSON values of these rows, with these keys of the schema alone."""
        omitted: JsonObject = {"__all__": self._keys.difference(keys)}
        validated = adapter.validate_python(rows, from_attributes=True)
        values: list[JsonObject] = adapter.dump_python(
            validated, mode="json", by_alias=True, warnings="error", exclude=omitted
        )
        return values


def _lists_of(schema: Schema) -> TypeAdapter[list[BaseModel]]:
    lists: Annotation = list[schema]  # type: ignore[valid-type]  # known at run time
    return TypeAdapter(lists)


_JSON = Shape(Any)
"""Serializes rows that are JSON values already, and pages of them."""


class _SelectedRenderer:
    """What the renderers of selected rows have in common."""

    relationships: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    of_row_alone: bool = False
    traits: Traits[object]

    def loading(self, repository: Repository) -> Repository:
        """The repository, changed to load the deferred columns that the rows need."""
        raise NotImplementedError

    async def get(self, repository: Repository, key: object) -> object:
        """The row with a primary key: a dict of its selected columns and its version, or an entity."""
        columns, traits = self.columns, self.traits
        if columns is None or not reads_plainly(repository, "get_by_id", "get_by_id_or_raise", "first"):
            rows = self.loading(repository)
            return await rows.get_by_id_or_raise(key, relationships=self.relationships)
        parts = key if isinstance(key, tuple) else (key,)
        filters = [QueryFilter(name, value=part) for name, part in zip(traits.primary_key, parts, strict=True)]
        names = columns if traits.version is None else dict.fromkeys((*columns, traits.version))
        row = await repository.values(*names).first(QueryOptions(filters=filters))
        if row is None:
            raise EntityNotFoundError(f"There is no such {traits.name}.", model=traits.name)
        return row

    def one(self, entity: object, *, committed: bool = False) -> bytes:  # noqa: ARG002 - as `Renderer` has it
        """The JSON of one row."""
        return dump(_JSON.one, self._values([entity])[0])

    def values(self, entity: object) -> Mapping[str, object]:
        """The JSON of one row, as Python values."""
        return self._values([entity])[0]

    def page(self, page: AnyPage) -> bytes:
        """The JSON of a page."""
        return dump(_JSON.pages[kind_of(page)], with_items(page, self._values(page.items)))

    def _values(self, rows: Sequence[object]) -> list[JsonObject]:
        """The JSON values of validated rows."""
        raise NotImplementedError


class _DerivedRenderer(_SelectedRenderer):
    """Renders selected rows by the derived schemas. They are validated only if they can't be serialized without it."""

    def __init__(
        self, renderers: SelectionRenderers, derived: DerivedRows, keys: tuple[str, ...], include: tuple[str, ...]
    ) -> None:
        self.traits = renderers.traits
        self.relationships = include
        self.columns = None if include else keys
        self.of_row_alone = not include
        self._renderers, self._derived, self._keys, self._included = renderers, derived, keys, tree_of(include)

    def loading(self, repository: Repository) -> Repository:
        """The repository, changed to load the deferred columns that the rows need."""
        version = self.traits.deferred & {self.traits.version}
        deferred = version.union(self._derived.deferred(self._keys, self._included))
        paths = on_each_path(self.traits, self.relationships, deferred)
        return repository.undefer(*paths) if paths else repository

    def one(self, entity: object, *, committed: bool = False) -> bytes:
        """The JSON of one row."""
        with suppress(PydanticSerializationError):
            return dump(self._renderers.shape.one, self._dicts([entity])[0])
        return super().one(entity, committed=committed)

    def page(self, page: AnyPage) -> bytes:
        """The JSON of a page."""
        with suppress(PydanticSerializationError):
            return dump(self._renderers.shape.pages[kind_of(page)], with_items(page, self._dicts(page.items)))
        return super().page(page)

    def _dicts(self, rows: Sequence[object], *, raw: bool = False) -> list[JsonObject]:
        return self._derived.read(_narrowed(rows, self._keys), self._keys, self._included, raw=raw)

    def _values(self, rows: Sequence[object]) -> list[JsonObject]:
        variant = self._renderers.variant(self.relationships)
        return variant.values(variant.parts, self._dicts(rows, raw=True), (*self._keys, *self._included))


class _NarrowedRenderer(_SelectedRenderer):
    """Renders some fields of the rows of a schema of the user's.

    Only their columns are read if no code of the schema's class needs more, and if the fields are columns.
    """

    def __init__(
        self, traits: Traits[object], variant: Variant, keys: tuple[str, ...], include: tuple[str, ...]
    ) -> None:
        schema, renderer = variant.schema, variant.renderer
        self.traits, self._variant = traits, variant
        self.relationships, self.of_row_alone = renderer.relationships, renderer.of_row_alone
        self._keys = (*keys, *(field_of(schema, name) or name for name in tree_of(include)))
        attributes = [attribute_of(schema, key) for key in keys if key in schema.model_fields]
        columns = tuple(name for name in attributes if name in traits.columns)
        if len(columns) == len(keys) and not (include or runs_code(schema)):
            self.columns, self.of_row_alone = columns, True

    def loading(self, repository: Repository) -> Repository:
        """The repository, changed to load the deferred columns that the schema contains."""
        return self._variant.renderer.loading(repository)

    def _values(self, rows: Sequence[object]) -> list[JsonObject]:
        variant, columns = self._variant, self.columns
        if columns is not None and rows and type(rows[0]) is dict:
            return variant.values(variant.parts, _narrowed(rows, columns), self._keys)
        return variant.values(variant.whole, rows, self._keys)


def _narrowed(rows: Sequence[object], keys: Sequence[str]) -> Sequence[object]:
    """Rows that are dicts, with these keys alone; entities as they are."""
    if rows and type(rows[0]) is dict:
        return [{key: row[key] for key in keys} for row in rows if isinstance(row, dict)]
    return rows
