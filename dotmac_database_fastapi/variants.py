"""Variants of a read schema: without relationships that a request did not ask for, or with others added.

A variant is a subclass of the schema, so that the validators, serializers and computed fields of the schema still work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields as fields_in
from functools import partial
from types import UnionType, new_class
from typing import Annotated, TypeAlias, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic import GetJsonSchemaHandler as Handler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from dotmac_database import MisuseError, Traits, traits_of

from .aliases import Annotation, JsonObject
from .hiding import NOTHING, Hidden
from .readable import field_of, read_from
from .schemas import read_schema_of

Tree: TypeAlias = "dict[str, Tree]"
"""Relationships by name, each with those of its class: ``author.team`` is ``{"author": {"team": {}}}``."""

Schema: TypeAlias = type[BaseModel]
Declared: TypeAlias = dict[str, tuple[Annotation, FieldInfo]]
"""Fields by name, each with its type, as `create_model` takes them."""

_UNREADABLE = "dotmac_database: not included"
"""The name of an attribute that no row has."""


def tree_of(paths: Iterable[str]) -> Tree:
    """The tree of some dotted paths. Each beginning of a path is in it, too."""
    tree: Tree = {}
    for path in paths:
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    return tree


def paths_of(tree: Tree, way: str = "") -> Iterator[str]:
    """The dotted paths of a tree, each one after its beginning."""
    for name, below in tree.items():
        yield f"{way}{name}"
        yield from paths_of(below, f"{way}{name}.")


def including(traits: Traits[object], schema: Schema, allowed: Tree, included: Tree) -> Schema:
    """The schema with those of the ``allowed`` relationships that are ``included``, and without the others.

    The attributes of the others are not read. Relationships that are not ``allowed`` stay as they are in the schema. A
    relationship that the schema does not have is added, with the derived schema of its rows.
    """
    declared: Declared = {}
    for name, below in allowed.items():
        if name in included:
            related = partial(including, allowed=below, included=included[name])
            declared |= _related(traits, schema, name, related if below else None)
        elif (key := field_of(schema, name)) is not None:
            options: JsonObject = {"default": None, "validation_alias": _UNREADABLE, "exclude": True}
            declared[key] = Annotation, Field(**options)
    if any(field_of(schema, name) is not None for name in allowed.keys() - included.keys()):
        schema, declared = _by_alias_alone(schema, declared)
    return _subclass(schema, f"{schema.__name__}Row", declared) if declared else schema


def documented(traits: Traits[object], schema: Schema, allowed: Tree, *, fields: bool = False) -> Schema:
    """The schema of the rows with any of the ``allowed`` relationships, for OpenAPI.

    The relationships are not required in it. With ``fields``, nothing is: the request can choose the fields.
    """
    if not (allowed or fields):
        return schema
    declared: Declared = {}
    for name, below in allowed.items():
        declared |= _related(traits, schema, name, partial(documented, allowed=below) if below else None)

    def optional(variant: Schema) -> frozenset[str]:
        keys = variant.model_fields.keys() if fields else {field_of(variant, name) for name in allowed}
        computed = variant.model_computed_fields.items() if fields else ()
        names = {each.serialization_alias or key for key, each in variant.model_fields.items() if key in keys}
        return frozenset(names | {each.alias or key for key, each in computed})

    description = f"What a request has selected of a row: {traits.name}."
    return _subclass(_with_optional(schema, optional), f"{traits.name}Selection", declared, description)


def optional_fields(schema: Schema) -> Schema:
    """The schema with a default for each field, so that it accepts a part of a row."""
    redeclared = {
        key: _redeclared(each, each.annotation, default=None, validate_default=False)
        for key, each in schema.model_fields.items()
    }
    return _subclass(schema, schema.__name__, redeclared)


def runs_code(schema: Schema) -> bool:
    """Whether code of the schema's class may use several values of a row at once: validators, computed fields, ….

    What is in the metadata of one field, such as an ``AfterValidator``, uses the value of this field alone.
    """
    decorators = schema.__pydantic_decorators__
    has_any = any(getattr(decorators, kind.name) for kind in fields_in(decorators))
    return has_any or schema.__pydantic_custom_init__ or schema.__pydantic_post_init__ is not None


def _related(
    traits: Traits[object],
    schema: Schema,
    name: str,
    change: Callable[[Traits[object], Schema], Schema] | None,
) -> Declared:
    """The field of an included relationship; nothing if the schema has it as it should be.

    ``change`` changes the schema of the related rows.
    """
    relationship = traits.relationships[name]
    target: Traits[object] = traits_of(relationship.mapper.class_)
    key = field_of(schema, name)
    if key is None:
        row = derived_schema(target)
        row = row if change is None else change(target, row)
        many: Annotation = Annotated[list[row], BeforeValidator(members_of)]  # type: ignore[valid-type]  # known at run time
        options: JsonObject = {"validation_alias": name}  # whatever name the schema's alias_generator would give it
        return {name: (many if relationship.uselist else row | None, Field(**options))}
    if change is None:
        return {}
    field = schema.model_fields[key]
    return {key: _redeclared(field, _substituted(field.annotation, partial(change, target)))}


def derived_schema(traits: Traits[object], hidden: Hidden = NOTHING) -> Schema:
    """The derived read schema of a class's rows, without the hidden columns."""
    model: type = traits.model
    schema, names = read_schema_of(model), hidden.of(traits)
    if names.isdisjoint(schema.model_fields):
        return schema
    fields: Declared = {
        key: _redeclared(each, each.annotation) for key, each in schema.model_fields.items() if key not in names
    }
    options: JsonObject = {"__config__": schema.model_config, "__module__": schema.__module__, **fields}
    shorter: Schema = create_model(schema.__name__, **options)
    return shorter


def hiding(traits: Traits[object], schema: Annotation, hidden: Hidden) -> Schema:
    """The schema without the fields that are read from hidden columns, in its own rows and in those of related ones.

    They are neither read nor in the JSON; code of the schema's class sees None in them. Raises `MisuseError` for a
    schema of another kind than a Pydantic class.
    """
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)) or hasattr(schema, "__table__"):
        raise MisuseError(
            f"A policy hides columns of {traits.name}, so its read_schema must be a Pydantic class that is not mapped."
        )
    declared: Declared = {}
    leaves_out = False
    for key, field in schema.model_fields.items():
        attributes = [*read_from(key, field)]
        if any(hidden.hides(traits, name) for name in attributes):
            options: JsonObject = {"default": None, "validation_alias": _UNREADABLE, "exclude": True}
            declared[key], leaves_out = (Annotation, Field(**options)), True
            continue
        name = next((each for each in attributes if each in traits.relationships), None)
        if name is not None:
            target: Traits[object] = traits_of(traits.relationships[name].mapper.class_)
            changed = _substituted(field.annotation, partial(hiding, target, hidden=hidden))
            if changed != field.annotation:
                declared[key] = _redeclared(field, changed)
    if leaves_out:
        schema, declared = _by_alias_alone(schema, declared)
    return _subclass(schema, schema.__name__, declared) if declared else schema


def members_of(collection: Iterable[object]) -> list[object]:
    """The rows in a relationship's collection, which may be a dict."""
    return [*(collection.values() if isinstance(collection, Mapping) else collection)]


def _substituted(annotation: Annotation, change: Callable[[Schema], Schema]) -> Annotation:
    """An annotation whose schemas are changed: ``list[Author]`` becomes ``list[AuthorRow]``."""
    inner = get_args(annotation)
    if not inner:
        is_schema = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return change(annotation) if is_schema else annotation
    origin: Annotation = get_origin(annotation)
    changed = tuple(_substituted(each, change) for each in inner)
    return (Union if origin is UnionType else origin)[changed]


def _redeclared(field: FieldInfo, annotation: Annotation, **changes: object) -> tuple[Annotation, FieldInfo]:
    """The same field with another type and some other options, to be declared in a subclass."""
    options: JsonObject = {name: getattr(field, name) for name in _OPTIONS}
    default = "default_factory" if field.default_factory and "default" not in changes else "default"
    options[default] = getattr(field, default)
    options |= changes
    return Annotated[(annotation, *field.metadata)] if field.metadata else annotation, Field(**options)


_OPTIONS = (
    "validation_alias", "serialization_alias", "title", "description", "examples", "exclude", "discriminator",
    "deprecated", "json_schema_extra",
)  # fmt: skip
"""The options of a field that are neither its type nor in its metadata."""


def _by_alias_alone(schema: Schema, declared: Declared) -> tuple[Schema, Declared]:
    """The schema with a configuration by which no field is read by its name if it has an alias.

    A field that is left out has an alias that no row has, and would else be read by its name, in a lazy load. The other
    fields get their name as a second alias.
    """
    config = schema.model_config
    if not (config.get("validate_by_name") or config.get("populate_by_name")):
        return schema, declared
    for key, field in schema.model_fields.items():
        if field.validation_alias is not None and key not in declared:
            alias = field.validation_alias
            choices: list[str | AliasPath] = alias.choices if isinstance(alias, AliasChoices) else [alias]
            choices = [] if config.get("validate_by_alias") is False else choices
            declared[key] = _redeclared(field, field.annotation, validation_alias=AliasChoices(*choices, key))
    namespace = {"model_config": ConfigDict(validate_by_name=False, populate_by_name=False, validate_by_alias=True)}
    base: Schema = new_class(schema.__name__, (schema,), {}, lambda own: own.update(namespace))
    return base, declared


def _with_optional(schema: Schema, optional: Callable[[Schema], frozenset[str]]) -> Schema:
    """The schema, whose JSON Schema does not require the keys that ``optional`` returns."""

    class Described(schema):  # type: ignore[misc,valid-type]  # a base that is known at run time only
        """A base of variants."""

        @classmethod
        def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: Handler) -> JsonObject:
            described: JsonObject = super().__get_pydantic_json_schema__(core, handler)
            own, names = handler.resolve_ref_schema(described), optional(cls)
            own["required"] = [key for key in own.get("required", ()) if key not in names]
            if not own["required"]:
                del own["required"]
            return described

    return Described


def _subclass(schema: Schema, name: str, declared: Declared, doc: str | None = None) -> Schema:
    # The module distinguishes two schemas of one name in OpenAPI.
    options: JsonObject = {"__base__": schema, "__module__": schema.__module__, "__doc__": doc, **declared}
    variant: Schema = create_model(name, **options)
    return variant
