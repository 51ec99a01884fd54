"""What a read schema shows of a row: what clients may filter and sort by, where nobody names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from pydantic import AliasChoices, AliasPath, BaseModel, TypeAdapter
from typing_extensions import is_typeddict

from dotmac_database import Traits, traits_of


@lru_cache(maxsize=1024)
def shown_by(schema: Any) -> dict[str, Any]:
    """The attributes that a schema reads and shows, with the types that it gives them."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return {name: each.annotation for key, each in schema.model_fields.items() for name in _read_from(key, each)}
    if dataclasses.is_dataclass(schema) or is_typeddict(schema):
        return get_type_hints(schema)
    try:
        described = TypeAdapter(schema).json_schema(mode="serialization")
    except Exception:  # noqa: BLE001 - of a type that says nothing about itself nothing is known to be shown
        return {}
    return dict.fromkeys(described.get("properties", ()), Any)


def _read_from(key: str, field: Any) -> Iterator[str]:
    """The names of the attributes that a field may have its value from; none where it is not shown."""
    if field.exclude is True:
        return
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias or key]
    for choice in choices:
        name = choice.path[0] if isinstance(choice, AliasPath) else choice
        if isinstance(name, str):
            yield name
    yield key  # by which it is found, too, where the schema is populated by name


@lru_cache(maxsize=4096)
def shows(schema: Any, path: str) -> bool:
    """Whether the schema shows what a dotted path leads to: a column, one of a related row, or a place in JSON."""
    first, _, rest = path.partition(".")
    fields = shown_by(schema)
    if first not in fields:
        return False
    inner: list[Any] = list(_schemas(fields[first]))
    return not rest or not inner or any(shows(each, rest) for each in inner)


def deferred_in(traits: Traits[Any], schema: Any) -> Iterator[str]:
    """Dotted paths to the deferred columns that a schema shows of a row, and of the rows related to it.

    A schema that shows more than columns and relationships may compute it from any of them.
    """
    shown = shown_by(schema)
    computes = not shown or any(
        name not in traits.columns and name not in traits.relationships for name in shown.keys() - traits.private
    )
    yield from (name for name in sorted(traits.deferred) if computes or name in shown)
    for name in shown.keys() & traits.relationships.keys():
        target: Traits[Any] = traits_of(traits.relationships[name].mapper.class_)
        for each in _schemas(shown[name]):
            inner = shown_by(each)
            yield from (f"{name}.{key}" for key in sorted(target.deferred) if key in inner)


def _schemas(annotation: Any) -> Iterator[Any]:
    """The schemas within an annotation: ``list[Author] | None`` has ``Author``."""
    if isinstance(annotation, type) and not get_args(annotation):
        if issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation) or is_typeddict(annotation):
            yield annotation
        return
    for each in get_args(annotation):
        yield from _schemas(each)
