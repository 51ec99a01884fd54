"""Makes the objects and the values of new rows, by the class's constructor and validators."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import null
from sqlalchemy.orm.base import instance_dict
from sqlalchemy.sql.elements import Null

from ..errors import MisuseError, ValidationError
from ..statements.data import NewRow, Values
from ..statements.writes import Writer
from .core import RepositoryCore, SyncDb

M = TypeVar("M")


class ObjectMaker(RepositoryCore[M, SyncDb]):
    """New objects of the repository's class. All its methods are private, and send nothing."""

    def _new_object(self, values: Values) -> M:
        """A new entity. Values that the class's constructor does not accept are set afterwards."""
        values = {**self._reader().typed_defaults(), **values}
        nulls = [key for key, value in values.items() if type(value) is Null]
        # A JSON column without a value gets SQL NULL anyway. If it has a default, or if the constructor has set a
        # value, NULL is set below.
        values = {key: value for key, value in values.items() if type(value) is not Null}
        accepted = self.traits.constructor_keys
        arguments = {key: value for key, value in values.items() if accepted is None or key in accepted}
        for key in self.traits.constructor_needs - arguments.keys():
            if key not in self.traits.columns or key in self.traits.required:
                raise ValidationError(f"{self.traits.name}.{key} must be given.", field=key)
            arguments[key] = None
        entity = self.model_class(**arguments)
        for key in values:
            if key not in arguments:
                setattr(entity, key, values[key])
        for key in nulls:
            if key not in self.traits.null_unless_set or key in instance_dict(entity):
                assign(entity, key, null())
        return entity

    def _new_row(self, writer: Writer, data: object, index: int | None = None, *, new: bool = True) -> NewRow:
        """The values of one row in a statement for many rows, as the class's constructor and validators change them.

        ``new`` is False if the row may already exist: then None is written even if the column has a default. Raises
        `ValidationError` for relationships and SQL expressions, which are not possible in such a statement.
        """
        values, unset = writer.for_create(data)
        values = writer.refuse_nulls(self.values_for_create(values), new=new, index=index)
        for key, value in values.items():
            if key not in self.traits.columns or writer.is_expression(key, value):
                raise MisuseError(
                    f"{self.traits.name}.{key} can't be written so: create() and update() alone take relationships and "
                    "SQL expressions.",
                    field=key,
                )
        if self.traits.constructs:
            constructed = self._constructed(values)
            unset |= constructed.keys() - values.keys()
            values = constructed
        return NewRow(values, unset - self.traits.stamped if unset else unset)

    def _constructed(self, values: Values) -> Values:
        """The values as the class's constructor and validators change them, read from an object without a session."""
        return self._values_of(self._new_object(values), values)

    def _values_of(self, entity: M, values: Values) -> Values:
        """The values of an object's columns, which was constructed with these ``values``."""
        held = instance_dict(entity)
        constructed: Values = {}
        for key in self.traits.columns:
            # The default of a mapped dataclass is a class attribute, not in the object's own dict.
            value = held[key] if key in held else getattr(entity, key)
            if value is not None or key in values:
                constructed[key] = value
        for key, value in values.items():
            if type(value) is Null and constructed[key] is None:
                constructed[key] = value
        return constructed


def assign(entity: object, key: str, value: object) -> None:
    """Set an attribute. For SQL NULL in a JSON column, listeners and validators get None, since they expect None."""
    if type(value) is not Null:
        setattr(entity, key, value)
        return
    setattr(entity, key, None)
    instance_dict(entity)[key] = value
