"""Makes objects of a dataclass or a Pydantic class from rows that are dicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import pydantic
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from sqlalchemy import inspect

from ..errors import MisuseError
from ..query import error_text

T = TypeVar("T")


class RowClass(Generic[T]):
    """A class whose objects can be made from rows.

    ``fields`` are the names of its fields, each with whether the field needs a value. Raises `ValidationError` for any
    other class, and for a mapped class.
    """

    def __init__(self, class_: type[T]) -> None:
        self.name = class_.__name__
        self._class = class_
        is_model = issubclass(class_, pydantic.BaseModel)
        if not (is_model or dataclasses.is_dataclass(class_)) or inspect(class_, raiseerr=False) is not None:
            raise MisuseError(
                f"{self.name} can't hold the values of a row: it is no dataclass or Pydantic class, or it is mapped.",
                field=self.name,
            )
        if issubclass(class_, pydantic.BaseModel):
            infos = class_.model_fields
            self.fields: Mapping[str, bool] = {name: info.is_required() for name, info in infos.items()}
            by_name = class_.model_config.get("populate_by_name") or class_.model_config.get("validate_by_name")
            self._keys = {} if by_name else {name: _key(name, info) for name, info in infos.items()}
        else:
            self.fields = {each.name: _is_required(each) for each in _fields(class_) if each.init}
            self._keys = {}

    def make(self, row: Mapping[str, Any]) -> T:
        """The object of a row. Raises `ValidationError` if the Pydantic class refuses a value."""
        keys = self._keys
        try:
            return self._class(**{keys.get(name, name): value for name, value in row.items()})
        except pydantic.ValidationError as error:
            raise MisuseError(f"{self.name} refuses the values of a row: {error_text(error)}") from None


def _fields(class_: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(class_)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    if isinstance(field.default, FieldInfo):  # of a Pydantic dataclass
        return field.default.is_required()
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _key(name: str, info: FieldInfo) -> str:
    """The name by which the constructor of a Pydantic class takes the field."""
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        alias = next((each for each in alias.choices if isinstance(each, str)), None)
    return alias if isinstance(alias, str) else name
