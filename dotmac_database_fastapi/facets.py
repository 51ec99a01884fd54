"""The parameter ``facets`` of a list: how many of its rows have each value of a field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import cached_property
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python
from sqlalchemy import types as sa

from dotmac_database import QueryOptions, SortField, SortOrder, Traits, traits_of
from dotmac_database import ValidationError as RefusedError

from .aliases import Annotation, JsonObject, Repository
from .binary import AnyJsonValue
from .bounds import MAX_FACET_VALUES, QueryErrors, Values, shown
from .declared import converts, plain_type
from .fields import fields_of
from .json_types import json_type
from .pages import ParameterDoc
from .readable import field_reading, shown_by
from .schemas import read_schema_of

T = TypeVar("T")
Write: TypeAlias = Callable[[object], object]
"""Makes the JSON value of a column's value that is not None."""

_COUNT = "number of rows"
"""The name of the measure. It differs from the names of all attributes."""

_MOST_FIRST = SortField(_COUNT, SortOrder.DESC)
_UNGROUPED = (sa.JSON, sa.ARRAY, sa.LargeBinary, sa.PickleType)


class FacetParams:
    """The parameter ``facets=status,region``: names of fields, among those that the router allows.

    ``schema`` is the schema of the list's rows (None: the derived one), as which the values are shown. Raises
    `ValidationError` for a field that is missing, private, or of another class, and for JSON, arrays and bytes.
    """

    known = frozenset({"facets"})

    def __init__(self, model: type, names: Sequence[str], schema: type | None = None) -> None:
        fields = fields_of(model, names)
        for name, each in fields.items():
            if each.through or each.in_json or isinstance(plain_type(each.type), _UNGROUPED):
                raise RefusedError(
                    f"{model.__name__}.{name} can't be a facet: name a field of the class itself, with single values.",
                    field=name,
                )
        self.names = tuple(fields)
        self._types = {name: _type_of(model, schema, name) for name in fields}
        self._write = {name: _writer(schema, name, annotation) for name, annotation in self._types.items()}
        self._model = model

    def without(self, hides: Callable[[str], bool]) -> FacetParams | None:
        """The same parameter, without the fields that ``hides`` names; None: no field is left."""
        shorter = copy(self)
        shorter.names = tuple(name for name in self.names if not hides(name))
        return shorter if shorter.names else None

    def read(self, values: Values, faults: QueryErrors) -> list[str]:
        """The names in the query string, each once, in its order."""
        chosen: dict[str, None] = {}
        for text in values.get("facets", ()):
            for part in text.split(",") if text else ():
                name = part.strip()
                if name in self.names:
                    chosen[name] = None
                    continue
                near = faults.nearest(name, self.names)
                hint = f"did you mean {near!r}?" if near else f"choose {', '.join(self.names)}."
                faults.add("facets", f"There is no facet {shown(name)!r}; {hint}", "enum", part)
        return list(chosen)

    async def counted(self, repository: Repository, options: QueryOptions, names: Sequence[str]) -> bytes:
        """The JSON of the facets: for each name the values of the matching rows with their numbers, most first.

        The page of the options has no effect. At most `MAX_FACET_VALUES` values; values with the same number are in
        ascending order. One statement for each facet.
        """
        facets: dict[str, list[dict[str, object]]] = {}
        for name in names:
            groups = await repository.aggregate(
                {_COUNT: "count"}, options.filters, group_by=name, sorts=_MOST_FIRST, limit=MAX_FACET_VALUES
            )
            write = self._write[name]
            facets[name] = [
                {"value": None if group[name] is None else write(group[name]), "count": group[_COUNT]}
                for group in groups
            ]
        return to_json(facets, inf_nan_mode="null")

    def openapi(self) -> Iterator[ParameterDoc]:
        """The parameter's name, schema and description."""
        choices = {"type": "string", "enum": list(self.names)}
        yield (
            "facets",
            {"type": "array", "items": choices},
            (
                "Fields whose values are counted among all rows that match the filters and the search: names, "
                f"separated by commas. Of each, at most {MAX_FACET_VALUES} values, the most frequent first."
            ),
        )

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The schema of the facets, as OpenAPI documents it. Each of them is there if it was requested."""
        own, module = self._model.__name__, self._model.__module__
        documented: Any = {}
        for name, annotation in self._types.items():
            title = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
            value = create_model(
                f"{own}{title}Facet", __module__=module, value=(annotation | None, ...), count=(int, ...)
            )
            documented[name] = list[value], Field(default=None, json_schema_extra=_optional)  # type: ignore[valid-type]  # known at run time
        return create_model(f"{own}Facets", __module__=module, **documented)


def with_facets(page: bytes, facets: bytes) -> bytes:
    """The JSON of a page, with the facets as its last member."""
    return b'%b,"facets":%b}' % (page[:-1], facets)


def _optional(schema: JsonObject) -> None:
    schema.pop("default", None)


def _type_of(model: type, schema: type | None, name: str) -> Annotation:
    """The type of a field's values in the schema of the rows; if that does not show it, the column's JSON type."""
    if schema is not None:
        field = field_reading(schema, name)
        shown_type = shown_by(schema).get(name) if field is None else _whole(field[1])
        if shown_type is not None:
            return shown_type
    derived = read_schema_of(model).model_fields.get(name)
    if derived is not None:
        return _whole(derived)
    traits: Traits[object] = traits_of(model)
    column = traits.columns.get(name)
    return AnyJsonValue if column is None or converts(column.type) else json_type(column.type, written=False)


def _whole(field: FieldInfo) -> Annotation:
    """A field's type with its metadata, such as serializers."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _writer(schema: type | None, name: str, annotation: Annotation) -> Write:
    adapter: TypeAdapter[object] = TypeAdapter(annotation)

    def plain(value: object) -> object:
        """As a row of a derived schema: without validation, or if that fails, with it."""
        for validate in (lambda each: each, adapter.validate_python):
            try:
                return adapter.dump_python(validate(value), mode="json", warnings="error")
            except (PydanticSerializationError, ValidationError):
                continue
        return to_jsonable_python(value, fallback=str, bytes_mode="base64")

    if schema is None:
        return plain
    field = field_reading(schema, name)

    def validated(value: object) -> object:
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json")
        except (PydanticSerializationError, ValidationError):
            return plain(value)

    if field is None or hasattr(schema, "__table__"):
        return validated
    key, model = field[0], field[2]

    def by_model(value: object) -> object:
        """As a row of the user's schema, whose validators and serializers may belong to the class."""
        row = model.model_construct()
        try:
            model.__pydantic_validator__.validate_assignment(row, key, value)
            return row.model_dump(mode="json", include={key}, warnings=False)[key]
        except Exception:  # noqa: BLE001 - code of the user's, which may need the other fields of the row
            return validated(value)

    return by_model
