"""Updates that are sent with the fields that nobody can change, because the client sends back the whole row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache

from pydantic import AliasChoices, AliasPath, BaseModel, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from .aliases import Annotation, JsonObject
from .readable import read_from, shown_by


def without_read_only(schema: type[BaseModel], row: Annotation) -> type[BaseModel]:
    """The schema of an update, changed to ignore the fields that ``row``, the read schema, shows and it does not have.

    A field that it has by another name is not ignored, since the change would be lost. OpenAPI shows them as
    ``readOnly``.
    """
    own = {name for key, field in schema.model_fields.items() for name in _read_as(key, field)}
    if schema.model_config.get("populate_by_name") or schema.model_config.get("validate_by_name"):
        own |= schema.model_fields.keys()
    ignored = (name for name, attributes in _shown(row) if schema.model_fields.keys().isdisjoint(attributes))
    return _ignoring(schema, frozenset(ignored) - own)


def aliases_of(key: str, field: FieldInfo) -> list[str | AliasPath]:
    """The names that a field has in the JSON of a request, and the paths to it."""
    alias = field.validation_alias or field.alias or key
    return alias.choices if isinstance(alias, AliasChoices) else [alias]


def _read_as(key: str, field: FieldInfo) -> Iterator[str]:
    for each in aliases_of(key, field):
        yield each if isinstance(each, str) else str(each.path[0])


def _shown(row: Annotation) -> Iterator[tuple[str, Iterable[str]]]:
    """The names that the fields of a read schema have in its JSON, each with the attributes that it may show."""
    if not (isinstance(row, type) and issubclass(row, BaseModel)):
        yield from ((name, (name,)) for name in shown_by(row))
        return
    for key, field in row.model_fields.items():
        if not field.exclude:
            yield field.serialization_alias or key, read_from(key, field)
    for key, computed in row.model_computed_fields.items():
        yield computed.alias or key, ()


@lru_cache(maxsize=1024)
def _ignoring(schema: type[BaseModel], names: AbstractSet[str]) -> type[BaseModel]:
    if not names:
        return schema

    def ignore(_cls: type, sent: object) -> object:
        return {name: value for name, value in sent.items() if name not in names} if isinstance(sent, dict) else sent

    def describe(cls: Annotation, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonObject:
        parent: Annotation = super(changed, cls)
        described: JsonObject = parent.__get_pydantic_json_schema__(core, handler)
        shown = {name: {"readOnly": True, "description": "Ignored."} for name in sorted(names)}
        handler.resolve_ref_schema(described).setdefault("properties", {}).update(shown)
        return described

    before: Annotation = model_validator(mode="before")
    members = {
        "__module__": schema.__module__,
        "__qualname__": schema.__qualname__,
        "ignore_read_only": before(classmethod(ignore)),
        "__get_pydantic_json_schema__": classmethod(describe),
    }
    make: Annotation = type(schema)
    changed: type[BaseModel] = make(schema.__name__, (schema,), members)
    return changed
