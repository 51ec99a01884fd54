"""The attributes of a row that a read schema contains: by default clients may filter and sort by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from pydantic import AliasChoices, AliasPath, BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from dotmac_database import Traits, traits_of

from .aliases import Annotation


@lru_cache(maxsize=1024)
def shown_by(schema: Annotation) -> dict[str, Annotation]:
    """The attributes that a schema reads and serializes, with their types in the schema."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return {name: each.annotation for key, each in schema.model_fields.items() for name in read_from(key, each)}
    if dataclasses.is_dataclass(schema) or is_typeddict(schema):
        return get_type_hints(schema)
    try:
        described = TypeAdapter(schema).json_schema(mode="serialization")
    except Exception:  # noqa: BLE001 - a type without a JSON Schema: nothing is known about its attributes
        return {}
    return dict.fromkeys(described.get("properties", ()), Any)


def field_reading(schema: Annotation, name: str) -> tuple[str, FieldInfo, type[BaseModel]] | None:
    """The field of a Pydantic schema that shows an attribute: its name, itself, and the schema. None: there is none."""
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return None
    for key, field in schema.model_fields.items():
        if name in read_from(key, field):
            return key, field, schema
    return None


def read_from(key: str, field: FieldInfo) -> Iterator[str]:
    """The names of the attributes that a field may be read from; none if it is excluded from serialization."""
    if field.exclude is True:
        return
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias or key]
    for choice in choices:
        name = choice.path[0] if isinstance(choice, AliasPath) else choice
        if isinstance(name, str):
            yield name
    yield key  # schemas with populate_by_name also read the field's own name


@lru_cache(maxsize=4096)
def shows(schema: Annotation, path: str) -> bool:
    """Whether the schema contains the target of a dotted path: a column, a related row's column, or a JSON value."""
    first, _, rest = path.partition(".")
    fields = shown_by(schema)
    if first not in fields:
        return False
    inner = list(schemas_in(fields[first]))
    return not rest or not inner or any(shows(each, rest) for each in inner)


def attribute_of(schema: type[BaseModel], key: str) -> str | None:
    """The attribute of a row from which a field is read first; None if it is excluded from serialization."""
    return next(read_from(key, schema.model_fields[key]), None)


def field_of(schema: type[BaseModel], attribute: str) -> str | None:
    """The schema's field that is read from this attribute of a row; None if there is none."""
    return next((key for key, each in schema.model_fields.items() if attribute in read_from(key, each)), None)


def relationships_in(traits: Traits[object], schema: Annotation) -> tuple[str, ...]:
    """Dotted paths to the relationships that a schema contains, and that the schemas of related rows contain."""
    return tuple(dict.fromkeys(_relationships(traits, schema, "", ())))


def _relationships(
    traits: Traits[object], schema: Annotation, way: str, outer: tuple[Annotation, ...]
) -> Iterator[str]:
    yield from (f"{way}{name}" for name in shown_by(schema) if name in traits.relationships)
    for name, target, each in _related(traits, schema, outer):
        yield from _relationships(target, each, f"{way}{name}.", (*outer, schema))


def deferred_in(
    traits: Traits[object], schema: Annotation, way: str = "", outer: tuple[Annotation, ...] = ()
) -> Iterator[str]:
    """Dotted paths to the deferred columns that a schema contains, of a row and of its related rows.

    If a schema contains anything but columns and relationships, it may compute that from any deferred column, so all
    are included. ``way`` is the beginning of the paths, and ``outer`` are the schemas that it has passed.
    """
    shown = shown_by(schema)
    computes = not shown or any(
        name not in traits.columns and name not in traits.relationships for name in shown.keys() - traits.private
    )
    yield from (f"{way}{name}" for name in sorted(traits.deferred) if computes or name in shown)
    for name, target, each in _related(traits, schema, outer):
        yield from deferred_in(target, each, f"{way}{name}.", (*outer, schema))


def on_each_path(traits: Traits[object], relationships: Iterable[str], deferred: Iterable[str]) -> frozenset[str]:
    """The dotted paths to these deferred columns, and to the same columns on the other paths to their classes.

    If two paths lead to one object, it is made of the row that the first of them reads.
    """
    owners = {"": traits}
    for path in relationships:
        way, _, name = path.rpartition(".")
        owners[path] = traits_of(owners[way].relationships[name].mapper.class_)
    columns = {(owners[way].mapper.base_mapper, key) for way, _, key in (path.rpartition(".") for path in deferred)}
    return frozenset(
        f"{way}.{key}" if way else key
        for way, owner in owners.items()
        for key in owner.deferred
        if (owner.mapper.base_mapper, key) in columns
    )


def _related(
    traits: Traits[object], schema: Annotation, outer: tuple[Annotation, ...]
) -> Iterator[tuple[str, Traits[object], type]]:
    """The relationships of a schema, each with the traits and the schema of its rows.

    A schema that contains itself is not followed: its rows could be nested to any depth.
    """
    for name, annotation in shown_by(schema).items():
        if name in traits.relationships:
            target: Traits[object] = traits_of(traits.relationships[name].mapper.class_)
            yield from ((name, target, each) for each in schemas_in(annotation) if each not in (*outer, schema))


def schemas_in(annotation: Annotation) -> Iterator[type]:
    """The schemas within an annotation: ``list[Author] | None`` has ``Author``."""
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation) or is_typeddict(annotation):
            yield annotation
        return
    for each in get_args(annotation):
        yield from schemas_in(each)
