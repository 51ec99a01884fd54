"""The fields of a class: their names, and the values that they take."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import null
from sqlalchemy.sql.elements import Null

from ..errors import MisuseError, ValidationError
from ..field_names import is_attribute, name_for
from ..models.traits import Traits
from ..policies import ModelRules
from .coercion import Coercer, coercer
from .data import is_sql
from .paths import is_json
from .reads import Reader
from .suggestions import shown, suggestion


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of the reader's class, for one tenant and one audit user."""

    reader: Reader
    actor: str | None = None
    rules: ModelRules | None = None
    """The rules of the actor who gives the data; None: there are none."""

    @property
    def traits(self) -> Traits[object]:
        """The class's traits."""
        return self.reader.traits

    @property
    def _fields(self) -> dict[object, tuple[str, Coercer | None]]:
        """A cache: for each name of a field, its key and the coercer of its column. None: the key is not a column's."""
        return self.reader.traits.fields

    def field(self, name: object) -> tuple[str, Coercer | None]:
        """The key of a field in the data, and the coercer of its column. None: the key is not a column's.

        Raises `ValidationError` if it is not a field's name, and `PermissionDeniedError` if the actor can't write it.
        """
        entry = self._entry(name)
        if self.rules is not None and self.rules.read_only:
            self._refuse_read_only(self.rules, name, entry[0])
        return entry

    def _refuse_read_only(self, rules: ModelRules, name: object, key: str) -> None:
        """Raise the error for a field that is hidden or read-only, or that writes such a column.

        An attribute with a setter could write any column, so it is read-only as soon as one column is.
        """
        if key in rules.hidden:
            raise self._unknown(name)
        if key in self.traits.relationships:
            mapper = self.traits.mapper
            local = (mapper.get_property_by_column(each) for each in self.traits.relationships[key].local_columns)
            written = {each.key for each in local} - {self.traits.tenant, *self.traits.primary_key}
            is_read_only = not written.isdisjoint(rules.read_only)
        else:
            is_read_only = key in rules.read_only or key not in self.traits.columns
        if is_read_only:
            raise rules.denied_field(key)

    def _entry(self, name: object) -> tuple[str, Coercer | None]:
        entry: tuple[str, Coercer | None] | None = self._fields.get(name)
        if entry is not None:
            return entry
        key = self._canonical(name)
        is_column = key in self.traits.columns
        entry = self._fields[name] = (key, coercer(self.traits.columns[key].type, storing=True) if is_column else None)
        return entry

    def refuses_none(self, key: str, *, new: bool) -> bool:
        """Whether a column can't store None. In a new row, None means the column's default, if it has one."""
        return key in self.traits.never_null and (not new or key in self.traits.required)

    def null(self, key: str) -> object:
        """The value that is stored as SQL NULL. (In a JSON column None would be stored as the JSON value ``null``.)"""
        type_ = self.traits.columns[key].type
        return null() if is_json(type_) and type_.should_evaluate_none else None

    def is_expression(self, key: str, value: object) -> bool:
        """Whether the value of a key is an SQL expression. The NULL of a JSON column is not."""
        return is_sql(value) and not (type(value) is Null and is_json(self.traits.columns[key].type))

    def canonical(self, name: object) -> str:
        """The key of a field's name, which can be a synonym. Raises `ValidationError` if it is not a field's name."""
        key = self._canonical(name)
        if self.rules is not None and key in self.rules.hidden:
            raise self._unknown(name)
        return key

    def _canonical(self, name: object) -> str:
        mapper = self.traits.mapper
        if is_attribute(name):
            name = name_for(self.traits.model, name)
        if isinstance(name, str):
            synonym = mapper.synonyms.get(name)
            key = synonym.name if synonym is not None else name
            if key in self.traits.columns or key in self.traits.relationships:
                return key
            descriptor = mapper.all_orm_descriptors.get(key)
            if key not in mapper.column_attrs and getattr(descriptor, "fset", None) is not None:
                return key
        raise self._unknown(name)

    def _unknown(self, name: object) -> MisuseError:
        """The error for a name that is not a field's, or that the actor must not know."""
        if is_attribute(name):
            name = name_for(self.traits.model, name)
        names = {*self.traits.columns, *self.traits.relationships} - self.traits.private
        if self.rules is not None:
            names -= self.rules.hidden
        hint = suggestion(name, names)
        return MisuseError(f"{self.traits.name} has no field {shown(name)!r}{hint}", field=shown(name))

    def coerced(self, key: str, value: object) -> object:
        """The value that is stored in a field. Raises `ValidationError` if the field does not take it."""
        _, coerce = self._entry(key)
        if coerce is None:
            return value
        try:
            return coerce(value)
        except ValueError as expected:
            return self.expression(key, value, expected)

    def expression(self, key: str, value: object, expected: ValueError) -> object:
        """A value that can't be coerced, if it is an SQL expression of the app. Otherwise raises `ValidationError`."""
        if is_sql(value):
            return value
        raise ValidationError(f"{self.traits.name}.{key} takes {expected}.", field=key) from None
