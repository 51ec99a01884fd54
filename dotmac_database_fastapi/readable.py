"""The attributes of a row that a read schema contains: by default clients may filter and sort by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
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
        return {name: each.annotation for key, each in schema.model_fields.items() for name in _read_from(key, each)}
    if dataclasses.is_dataclass(schema) or is_typeddict(schema):
        return get_type_hints(schema)
    try:
        described = TypeAdapter(schema).json_schema(mode="serialization")
    except Exception:  # noqa: BLE001 - a type without a JSON Schema: nothing is known about its attributes
        return {}
    return dict.fromkeys(described.get("properties", ()), Any)


def _read_from(key: str, field: FieldInfo) -> Iterator[str]:
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


def deferred_in(traits: Traits[object], schema: Annotation) -> Iterator[str]:
    """Dotted paths to the deferred columns that a schema contains, of a row and of its related rows.

    If a schema contains anything but columns and relationships, it may compute that from any deferred column, so all
    are included.
    """
    shown = shown_by(schema)
    computes = not shown or any(
        name not in traits.columns and name not in traits.relationships for name in shown.keys() - traits.private
    )
    yield from (name for name in sorted(traits.deferred) if computes or name in shown)
    for name in shown.keys() & traits.relationships.keys():
        target: Traits[object] = traits_of(traits.relationships[name].mapper.class_)
        for each in schemas_in(shown[name]):
            inner = shown_by(each)
            yield from (f"{name}.{key}" for key in sorted(target.deferred) if key in inner)


def schemas_in(annotation: Annotation) -> Iterator[type]:
    """The schemas within an annotation: ``list[Author] | None`` has ``Author``."""
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation) or is_typeddict(annotation):
            yield annotation
        return
    for each in get_args(annotation):
        yield from schemas_in(each)
