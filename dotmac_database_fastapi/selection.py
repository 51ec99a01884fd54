"""Which fields and relationships a request selects: the parameters ``fields`` and ``include``, and what they allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from difflib import get_close_matches

from pydantic import BaseModel, RootModel
from sqlalchemy import inspect

from dotmac_database import Traits, ValidationError, traits_of

from .bounds import QueryErrors, Values, shown
from .pages import ParameterDoc
from .readable import field_of, read_from, schemas_in
from .schemas import read_schema_of
from .variants import Schema, derived_schema, documented, paths_of, tree_of

_UNLOADABLE = ("dynamic", "write_only", "noload")
"""The values of ``lazy`` of relationships that no read can load."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What one request selects of each row, in the order of the allow-lists.

    ``fields`` are the names of fields; empty: all. ``include`` are dotted paths of relationships, each one after its
    beginning.
    """

    fields: tuple[str, ...] = ()
    include: tuple[str, ...] = ()


class SelectionParams:
    """The parameters ``fields`` and ``include`` of a router, each with the names that are allowed.

    Raises `ValidationError` for a field that the read schema does not have, or that is private, for a relationship
    that the class does not have, or that can't be loaded, and for a schema that can't be narrowed.
    """

    def __init__(
        self, model: type, read_schema: type | None, fields: Sequence[str] = (), include: Sequence[str] = ()
    ) -> None:
        traits: Traits[object] = traits_of(model)
        self.schema = read_schema_of(model) if read_schema is None else _narrowable(read_schema)
        self.fields = {name: _key_of(traits, self.schema, name) for name in fields}
        """The allowed names, each with the key of its field in the schema."""
        for path in include:
            _check_path(traits, self.schema, path)
        self.tree = tree_of(include)
        self.include = tuple(paths_of(self.tree))
        self.documented: type = documented(traits, self.schema, self.tree, fields=bool(fields))
        """The schema of a row with any selection, for OpenAPI."""
        named = {"fields": self.fields, "include": self.include}
        self.known = frozenset(name for name, allowed in named.items() if allowed)
        self.hidden: frozenset[str] = frozenset()
        """The parameters that this actor does not have, and that the route declares for others."""

    def without(self, hides: Callable[[str], bool]) -> SelectionParams:
        """The same parameters, without the fields that are read from what ``hides`` names."""
        shorter, schema = copy(self), self.schema
        shorter.fields = {
            name: key
            for name, key in self.fields.items()
            if key not in schema.model_fields or not any(map(hides, read_from(key, schema.model_fields[key])))
        }
        shorter.known = self.known if shorter.fields or not self.fields else self.known - {"fields"}
        shorter.hidden = self.known - shorter.known
        return shorter

    def read(self, values: Values, faults: QueryErrors) -> Selection:
        """The selection of a query string."""
        fields = _chosen("fields", self.fields, values, faults, "Rows have no field {} that can be selected")
        paths = _chosen("include", self.include, values, faults, "Rows have no relationship {} that can be included")
        wanted = set(paths_of(tree_of(paths)))  # with the beginnings of the paths
        return Selection(fields, tuple(path for path in self.include if path in wanted))

    def openapi(self) -> Iterator[ParameterDoc]:
        """Each parameter's name, schema and description."""
        if self.fields:
            text = "The fields of each row, separated by commas. Without this parameter, all are in the response."
            yield "fields", _array_of(self.fields), text
        if self.include:
            text = "The relationships to include in each row, separated by commas."
            yield "include", _array_of(self.include), text


def _array_of(allowed: Iterable[str]) -> dict[str, object]:
    return {"type": "array", "items": {"type": "string", "enum": list(allowed)}}


def _chosen(name: str, allowed: Iterable[str], values: Values, faults: QueryErrors, unknown: str) -> tuple[str, ...]:
    """The names in a parameter's values, in the order of ``allowed``. A parameter that is not allowed has none."""
    names = {part.strip() for text in values.get(name, ()) for part in text.split(",")} - {""}
    for part in sorted(names.difference(allowed)) if allowed else ():
        near = faults.nearest(part, allowed)
        hint = f"did you mean {near!r}?" if near else f"choose {', '.join(allowed)}."
        faults.add(name, f"{unknown.format(repr(shown(part)))}; {hint}", "enum", part)
    return tuple(each for each in allowed if each in names)


def _narrowable(schema: type) -> Schema:
    """The schema, if rows of it can be narrowed. Else raises `ValidationError`."""
    name = getattr(schema, "__name__", str(schema))
    is_mapped = inspect(schema, raiseerr=False) is not None
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)) or issubclass(schema, RootModel) or is_mapped:
        message = (
            f"{name} can't be narrowed: with fields or include, read_schema is a Pydantic class that is not mapped."
        )
        raise ValidationError(message, field="read_schema")
    if schema.__pydantic_decorators__.model_serializers:
        message = f"{name} has a model_serializer, whose result can't be narrowed by fields or include."
        raise ValidationError(message, field="read_schema")
    return schema


def _key_of(traits: Traits[object], schema: Schema, name: str) -> str:
    """The key of the field that clients know as ``name``: by its key in JSON or in the schema, or by its attribute."""
    fields, computed = schema.model_fields, schema.model_computed_fields
    aliases = {each.serialization_alias: key for key, each in fields.items() if each.serialization_alias}
    aliases |= {each.alias: key for key, each in computed.items() if each.alias}
    key = name if name in fields or name in computed else aliases.get(name) or field_of(schema, name)
    if name in traits.private or name.startswith("_") or (key is not None and _is_private(traits, schema, key)):
        raise ValidationError(f"{traits.name}.{name} is private: a client can't select it.", field=name)
    if key is None or (key in fields and fields[key].exclude is True):
        raise _unknown(f"{schema.__name__} has no field", name, [*fields, *computed])
    return key


def _is_private(traits: Traits[object], schema: Schema, key: str) -> bool:
    return any(field_of(schema, name) == key for name in traits.private)


def _check_path(traits: Traits[object], schema: Schema, path: str) -> None:
    """Raise `ValidationError` unless the path leads along relationships that can be loaded and shown."""
    name, _, rest = path.partition(".")
    relationship = traits.relationships.get(name)
    if relationship is None:
        public = [each for each in traits.relationships if not each.startswith("_")]
        raise _unknown(f"include: {traits.name} has no relationship", name, public)
    problem = None
    if name.startswith("_") or relationship.info.get("private"):
        problem = "is private: a client can't include it."
    elif relationship.lazy in _UNLOADABLE:
        problem = f"is a {relationship.lazy} relationship, which can't be included."
    elif name in schema.model_computed_fields:
        problem = f"can't be included, because {schema.__name__} computes a field of this name."
    if problem is not None:
        raise ValidationError(f"{traits.name}.{name} {problem}", field=name)
    if rest:
        target: Traits[object] = traits_of(relationship.mapper.class_)
        key = field_of(schema, name)
        rows = [derived_schema(target)] if key is None else schemas_in(schema.model_fields[key].annotation)
        inner = [each for each in rows if issubclass(each, BaseModel)]
        if not inner:
            message = f"include: {schema.__name__}.{key} has no Pydantic class to which {rest!r} could be added."
            raise ValidationError(message, field=name)
        for each in inner:
            _check_path(target, each, rest)


def _unknown(beginning: str, name: str, known: Sequence[str]) -> ValidationError:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known)) or 'none'}."
    return ValidationError(f"{beginning} {name!r}; {hint}", field=name)
