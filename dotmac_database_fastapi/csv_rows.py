"""Rows as CSV (RFC 4180), from their JSON values."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import get_args

from pydantic import BaseModel, RootModel
from pydantic_core import to_json
from typing_extensions import is_typeddict

from dotmac_database import Traits

from .aliases import Annotation
from .readable import read_from, shown_by

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a text begins with that a spreadsheet would run as a formula: https://owasp.org/www-community/attacks/CSV_Injection"""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(E[+-]?[0-9]+)?")


def columns_of(traits: Traits[object], schema: Annotation, keys: Sequence[str] = ()) -> dict[str, bool]:
    """The columns of a schema's rows in CSV, by their names in JSON, and whether a column can hold decimal numbers.

    Relationships are omitted. Empty: the rows are not of a kind whose fields are known. ``keys`` are the only fields of
    a Pydantic schema to include, in their order; empty: all.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel) and not issubclass(schema, RootModel):
        fields = {
            key: (field.serialization_alias or field.alias or key, field.annotation)
            for key, field in schema.model_fields.items()
            if field.exclude is not True and traits.relationships.keys().isdisjoint(read_from(key, field))
        }
        fields |= {key: (each.alias or key, each.return_type) for key, each in schema.model_computed_fields.items()}
        named = [fields[key] for key in keys or fields if key in fields]
        return {name: _holds_decimals(annotation) for name, annotation in named}
    if dataclasses.is_dataclass(schema) or is_typeddict(schema):
        return {
            name: _holds_decimals(annotation)
            for name, annotation in shown_by(schema).items()
            if name not in traits.relationships
        }
    return {}


def _holds_decimals(annotation: Annotation) -> bool:
    return annotation is Decimal or any(map(_holds_decimals, get_args(annotation)))


class CsvRows:
    """Writes rows with these columns. Lines end with CRLF.

    None is an empty cell, a bool is ``true`` or ``false``, and a list or an object is its JSON. A text that a
    spreadsheet would run as a formula is preceded by an apostrophe, unless ``formulas`` is True; numbers never are.
    """

    def __init__(self, columns: Mapping[str, bool], *, formulas: bool = False) -> None:
        self._columns = tuple(columns.items())
        self._formulas = formulas
        self.header = _written([[*columns]])

    def lines(self, rows: Iterable[Mapping[str, object]]) -> bytes:
        """The lines of the rows, whose values are those of their JSON."""
        return _written([self._cell(row.get(name), decimals) for name, decimals in self._columns] for row in rows)

    def _cell(self, value: object, decimals: bool) -> str | int | float:
        if isinstance(value, str):
            if self._formulas or not value.startswith(_FORMULA) or (decimals and _NUMBER.fullmatch(value)):
                return value
            return f"'{value}"
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return value if math.isfinite(value) else ""
        return value if isinstance(value, int) else to_json(value, inf_nan_mode="null").decode()


def _written(rows: Iterable[Sequence[str | int | float]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
