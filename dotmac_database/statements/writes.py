"""A user's data → the values to write, and the INSERT, UPDATE and DELETE statements that write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy import (
    Column,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    and_,
    bindparam,
    delete,
    insert,
    null,
    update,
)
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.elements import Null

from ..errors import TenantIsolationError, TenantRequiredError, ValidationError
from ..models.living import living_condition
from ..models.traits import Traits, traits_of
from ..tenancy.context import ALL_TENANTS
from ..types import UTCDateTime, utc_now
from .coercion import Coercer, coercer
from .filters import Analysis
from .paths import is_json
from .reads import Bound, Reader
from .suggestions import shown, suggestion

Values = dict[str, Any]

_DATA = frozenset((str, int, float, bool, type(None), UUID, datetime, date, Decimal, bytes, dict, list))
"""What rows are mostly made of: no SQL expression has such a type."""


def is_sql(value: Any) -> bool:
    """Whether a value is an SQL expression, the programmer's own, rather than data."""
    return type(value) not in _DATA and (isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"))


def data_of(traits: Traits[Any], data: Any) -> Mapping[Any, Any]:
    """The fields that were set in a dict, a Pydantic object or an entity."""
    if type(data) is dict or isinstance(data, Mapping):
        return data
    if isinstance(data, BaseModel):
        return {name: getattr(data, name) for name in data.model_fields_set} | (data.model_extra or {})
    if isinstance(data, traits.model):
        held: dict[str, Any] = sa_inspect(data).dict
        return {key: held[key] for key in (*traits.columns, *traits.relationships) if key in held}
    raise ValidationError(f"{traits.name}: a dict or a Pydantic object was expected, not {type(data).__name__}.")


def _fills_itself(column: Column[Any]) -> bool:
    """Whether something fills the column where nobody gives a value: a default, a key's sequence."""
    return column.default is not None or column.server_default is not None or column.primary_key


@dataclass(frozen=True, slots=True)
class Writer:
    """Prepares the values and builds the writing statements of one class for one tenant."""

    reader: Reader
    actor: str | None = None
    _fields: dict[Any, tuple[str, Coercer | None]] = field(default_factory=dict, compare=False)
    """Each name that was given so far, with its key and the coercion of its column; None: it is no column."""

    @property
    def traits(self) -> Traits[Any]:
        """The class's traits."""
        return self.reader.traits

    def for_create(self, data: Any) -> Values:
        """The values of a new row: checked, coerced and stamped. The caller's data is not changed."""
        traits = self.traits
        values = self.checked(data_of(traits, data))
        for key in [key for key, value in values.items() if type(value) is Null and not _has_default(traits, key)]:
            del values[key]
        self._stamp_tenant(values)
        self._stamp_class(values)
        if traits.created_at is not None or traits.updated_at is not None:
            now = utc_now()
            self._stamp(values, traits.created_at, now)
            self._stamp(values, traits.updated_at, now)
        if self.actor is not None:
            self._stamp(values, traits.created_by, self.actor)
            self._stamp(values, traits.updated_by, self.actor)
        for part, first in ((traits.is_deleted, False), (traits.version, 1)):
            if part is not None and part not in values and traits.columns[part].default is None:
                self._stamp(values, part, first)
        made = traits.makes_uuid
        if made is not None and values.get(made) is None:
            values[made] = self._coerced(made, uuid4())
        return values

    def for_update(self, data: Any) -> Values:
        """The values to change, checked and coerced; `stamped` adds who and when."""
        traits = self.traits
        given = data_of(traits, data)
        if traits.version is not None and traits.version in given:
            raise ValidationError(
                f"{traits.name}.{traits.version} counts by itself; pass expected_version= to check it.",
                field=traits.version,
            )
        values = self.checked(given)
        if traits.tenant is not None:
            self._check_tenant(values.get(traits.tenant))
            if self.reader.scope.tenant is not ALL_TENANTS:
                values.pop(traits.tenant, None)
        return values

    def stamped(self, values: Values) -> Values:
        """Changes with the audit columns of an update, unless they name their own."""
        self._stamp(values, self.traits.updated_at, utc_now())
        if self.actor is not None:
            self._stamp(values, self.traits.updated_by, self.actor)
        return values

    def checked(self, given: Mapping[Any, Any]) -> Values:
        """``given`` with known keys only and coerced values; raises `ValidationError` naming what is wrong."""
        values: Values = {}
        fields = self._fields
        for name, value in given.items():
            key, coerce = fields.get(name) or self._field(name)
            if coerce is None:
                if key in self.traits.relationships:
                    self._check_related(key, value)
                values[key] = value
            elif value is None:
                values[key] = self._null(key)
            else:
                try:
                    values[key] = coerce(value)
                except ValueError as expected:
                    values[key] = self._expression(key, value, expected)
        return values

    def _field(self, name: Any) -> tuple[str, Coercer | None]:
        key = self._canonical(name)
        known = key in self.traits.columns
        found = self._fields[name] = (key, self._coercer(key) if known else None)
        return found

    def _coercer(self, key: str) -> Coercer:
        return self.reader.kept(("store", key), lambda: coercer(self.traits.columns[key].type, storing=True))

    def _null(self, key: str) -> Any:
        """NULL, which a JSON column must be told apart from the JSON value ``null``."""
        type_ = self.traits.columns[key].type
        return null() if is_json(type_) and type_.should_evaluate_none else None

    def _canonical(self, name: object) -> str:
        mapper = self.traits.mapper
        if isinstance(name, str):
            synonym = mapper.synonyms.get(name)
            key = synonym.name if synonym is not None else name
            if key in self.traits.columns or key in self.traits.relationships:
                return key
            descriptor = mapper.all_orm_descriptors.get(key)
            if key not in mapper.column_attrs and getattr(descriptor, "fset", None) is not None:
                return key
        known = {*self.traits.columns, *self.traits.relationships} - self.traits.private
        hint = suggestion(name, known)
        raise ValidationError(f"{self.traits.name} has no field {shown(name)!r}{hint}", field=shown(name))

    def _coerced(self, key: str, value: Any) -> Any:
        _, coerce = self._fields.get(key) or self._field(key)
        return value if coerce is None else self._stored(key, coerce, value)

    def _stored(self, key: str, coerce: Coercer, value: Any) -> Any:
        try:
            return coerce(value)
        except ValueError as expected:
            return self._expression(key, value, expected)

    def _expression(self, key: str, value: Any, expected: ValueError) -> Any:
        """What no coercion takes: an SQL expression, which is the programmer's own. Anything else is refused."""
        if is_sql(value):
            return value
        raise ValidationError(f"{self.traits.name}.{key} takes {expected}.", field=key) from None

    def _stamp(self, values: Values, key: str | None, value: Any) -> None:
        """Fill a part's column where the user gave nothing."""
        if key is None or key in values:
            return
        type_ = self.traits.columns[key].type
        if isinstance(value, datetime) and not isinstance(type_, UTCDateTime):
            value = self._coerced(key, value)
        values[key] = value

    def _check_related(self, key: str, value: Any) -> None:
        """Refuse entities of another tenant as a new row's neighbours."""
        tenant = self.reader.scope.tenant
        if tenant is None or tenant is ALL_TENANTS or value is None:
            return
        target = traits_of(self.traits.relationships[key].mapper.class_)
        if target.tenant is None:
            return
        members = value.values() if isinstance(value, Mapping) else value if hasattr(value, "__iter__") else (value,)
        for member in members:
            held = sa_inspect(member).dict.get(target.tenant)
            if held is not None and held != tenant:
                raise TenantIsolationError(f"{self.traits.name}.{key}: {target.name} belongs to another tenant.")

    def _stamp_tenant(self, values: Values) -> None:
        key = self.traits.tenant
        if key is None:
            return
        tenant = self.reader.scope.tenant
        if tenant is ALL_TENANTS:
            if values.get(key) is None:
                raise TenantRequiredError(f"{self.traits.name}.{key} must say whose row it is.", field=key)
            return
        self._check_tenant(values.get(key, tenant))
        values[key] = tenant

    def _stamp_class(self, values: Values) -> None:
        """Say which class of its inheritance the new row is of; INSERT … SELECT and COPY don't do it by themselves."""
        traits = self.traits
        if traits.abstract:
            names = [each.class_.__name__ for each in traits.mapper.self_and_descendants if each is not traits.mapper]
            raise ValidationError(f"{traits.name} is abstract: create one of {', '.join(sorted(names))}.")
        key = traits.discriminator
        if key is None:
            return
        identity = traits.mapper.polymorphic_identity
        given = values.get(key)
        if given is None and identity is not None:
            values[key] = identity
        elif given is not None and (is_sql(given) or given != identity):
            raise ValidationError(f"{traits.name}.{key}: the data names another class.", field=key)

    def _of_class(self) -> Any:
        """The condition that a row in an upsert's way is of the class or one below; None: every row of the table is."""
        mapper = self.traits.mapper
        if not mapper.single or mapper.polymorphic_on is None:
            return None
        return mapper.polymorphic_on.in_([each.polymorphic_identity for each in mapper.self_and_descendants])

    def _check_tenant(self, given: Any) -> None:
        tenant = self.reader.scope.tenant
        if tenant is not ALL_TENANTS and given is not None and given != tenant:
            raise TenantIsolationError(f"{self.traits.name}: the data names another tenant.")

    def runs(self, rows: Sequence[Values], *, keep_none: bool = False) -> list[tuple[list[int], list[Values]]]:
        """The rows by equal keys, with their places, so that each run is one statement and no default is lost.

        As in a single INSERT of the ORM, None leaves a column to its default, unless ``keep_none``; where there is
        no default it is a NULL.
        """
        runs: dict[frozenset[str], tuple[list[int], list[Values]]] = {}
        columns = {} if keep_none else self.traits.columns
        defaulted = [key for key, column in columns.items() if _fills_itself(column)]
        for place, row in enumerate(rows):
            if any(key in row and row[key] is None for key in defaulted):
                row = {key: value for key, value in row.items() if value is not None or key not in defaulted}
            places, members = runs.setdefault(frozenset(row), ([], []))
            places.append(place)
            members.append(row)
        return list(runs.values())

    def insert(self, *, returning: bool) -> Any:
        """INSERT of many rows; returned rows come in the order of the given ones."""
        # Without render_nulls SQLAlchemy leaves None out and begins another statement wherever the columns change.
        statement = insert(self.traits.model).execution_options(render_nulls=True)
        return statement.returning(self.traits.model, sort_by_parameter_order=True) if returning else statement

    def insert_of(self, values: Values) -> Bound | None:
        """INSERT of one row, giving it back, as the ORM would insert it; None where Python can't make it alone."""
        traits = self.traits
        if not traits.direct_creates or any(key not in traits.columns for key in values):
            return None
        filled = {key for key, value in values.items() if value is None and _fills_itself(traits.columns[key])}
        given = {key: value for key, value in values.items() if key not in filled}
        if any(map(is_sql, given.values())):
            return None
        plain = self.reader.typed_defaults()
        for key, column in traits.columns.items():
            default: Any = column.default
            if key not in given and default is not None:
                given[key] = default.arg(None) if default.is_callable else plain.get(key, default.arg)
        names = tuple(given)

        def make() -> Any:
            table = traits.tables[0]
            columns = [traits.columns[name] for name in names]
            row = {each: bindparam(f"v{place}", type_=each.type) for place, each in enumerate(columns)}
            return insert(table).values(row).returning(*traits.columns.values())

        parameters = {f"v{place}": value for place, value in enumerate(given.values())}
        return Bound(self.reader.kept(("insert", names), make), parameters)

    def update_by_key(self, key: tuple[Any, ...], values: Values, expected_version: int | None) -> Bound:
        """UPDATE of one row, giving it back; no row where it is missing, or its version is another."""
        traits, reader = self.traits, self.reader
        names = tuple(sorted(values))
        checks = expected_version is not None

        def make() -> Any:
            where = [*reader.key_conditions(), *reader.scope.root(traits)]
            if checks and traits.version is not None:
                where.append(traits.attribute(traits.version) == bindparam("dotmac_version"))
            changes = {name: bindparam(f"v_{name}", type_=traits.columns[name].type) for name in names}
            changed = update(traits.model).where(*where).values({**changes, **self.next_version()})
            return changed.returning(traits.model).execution_options(synchronize_session=False)

        plain = not any(map(is_sql, values.values()))
        if plain:
            statement = reader.kept(("update", names, checks), make)
        else:
            where = [*reader.key_conditions(), *reader.scope.root(traits)]
            statement = (
                update(traits.model).where(*where).values({**values, **self.next_version()}).returning(traits.model)
            )
        parameters = {**reader.scope.parameters, **reader.key_parameters(key)}
        if plain:
            parameters |= {f"v_{name}": value for name, value in values.items()}
        if checks:
            parameters["dotmac_version"] = expected_version
        return Bound(statement, parameters)

    def next_version(self) -> Values:
        """The change that counts a version up; nothing for a class without one."""
        version = self.traits.version
        return {} if version is None else {version: self.traits.attribute(version) + 1}

    def update_where(self, found: Analysis, values: Values) -> Bound:
        """UPDATE of all rows that match."""
        where = self.reader.where(found)
        statement = update(self.traits.model).where(*where).values({**values, **self.next_version()})
        return self.reader.confined(Bound(statement, {**self.reader.scope.parameters, **found.parameters}))

    def delete_where(self, found: Analysis) -> Bound:
        """DELETE of all rows that match."""
        statement = delete(self.traits.model).where(*self.reader.where(found))
        return self.reader.confined(Bound(statement, {**self.reader.scope.parameters, **found.parameters}))

    def deletion(self, *, deleted: bool = True) -> Values:
        """The values that mark a row as deleted, or as not."""
        traits = self.traits
        values: Values = {}
        if traits.is_deleted is not None:
            values[traits.is_deleted] = deleted
        if traits.deleted_at is not None:
            self._stamp(values, traits.deleted_at, utc_now() if deleted else None)
        return self.stamped(values)

    def conflict_columns(self, fields: Sequence[str]) -> list[Any]:
        """The columns of the unique constraint that ``fields`` name, with the tenant's where it belongs to it."""
        names = [fields] if isinstance(fields, str) else list(fields)
        keys = [self._canonical(name) for name in names]
        unknown = next((key for key in keys if key not in self.traits.columns), None)
        if unknown is not None or not keys:
            raise ValidationError(f"{self.traits.name}: conflict_fields must name columns.", field=unknown)
        columns = {self.traits.columns[key] for key in keys}
        uniques = self._uniques()
        if frozenset(columns) in uniques:
            return [self.traits.columns[key] for key in keys]
        if self.traits.tenant is not None:
            tenant = self.traits.columns[self.traits.tenant]
            if frozenset(columns | {tenant}) in uniques:
                return [tenant, *(self.traits.columns[key] for key in keys)]
        told = "; ".join(sorted(", ".join(sorted(c.name for c in unique)) for unique in uniques))
        raise ValidationError(
            f"{self.traits.name}: no unique constraint is on {', '.join(keys)}; there are: {told}.", field=keys[0]
        )

    def _uniques(self) -> set[frozenset[Any]]:
        uniques: set[frozenset[Any]] = set()
        for table in self.traits.tables:
            for constraint in table.constraints:
                if isinstance(constraint, (UniqueConstraint, PrimaryKeyConstraint)):
                    uniques.add(frozenset(constraint.columns))
            for index in table.indexes:
                if index.unique and (not _partial(index) or living_condition(index) is not None):
                    uniques.add(frozenset(index.columns))
            uniques |= {frozenset([column]) for column in table.columns if column.unique}
        return uniques

    def upsert(self, row_keys: Sequence[str], conflict: Sequence[Any], *, returning: bool = True) -> Any:
        """INSERT … ON CONFLICT DO UPDATE, which leaves a row of another tenant alone.

        A soft-deleted row in the way is changed and restored.
        """
        traits = self.traits
        table = traits.tables[0]
        statement = self.reader.dialect.insert(traits.model)
        kept = {
            *traits.primary_key,
            traits.discriminator,
            traits.tenant,
            traits.created_at,
            traits.created_by,
            traits.version,
        }
        conflicting = {column.key for column in conflict}
        changes: Values = {
            traits.columns[key].name: statement.excluded[traits.columns[key].name]
            for key in row_keys
            if key not in kept and traits.columns[key].key not in conflicting
        }
        changes |= {traits.columns[key].name: value for key, value in self.next_version().items()}
        for key, value in ((traits.is_deleted, False), (traits.deleted_at, None)):
            if key is not None:
                changes[traits.columns[key].name] = value
        if not changes:
            first = next(iter(conflict))
            changes = {first.name: statement.excluded[first.name]}
        where = self._of_class()
        if traits.tenant is not None and self.reader.scope.tenant is not ALL_TENANTS:
            column = traits.columns[traits.tenant]
            own = table.c[column.key] == statement.excluded[column.name]
            where = own if where is None else and_(where, own)
        among = _living_among(table, conflict)
        statement = statement.on_conflict_do_update(
            index_elements=list(conflict), index_where=among, set_=changes, where=where
        )
        written = [traits.model] if traits.returned else [traits.attribute(key) for key in traits.primary_key]
        return statement.returning(*written) if returning else statement


def _living_among(table: Table, conflict: Sequence[Any]) -> Any:
    """The condition of the partial index that alone makes these columns unique; None: it is unique without one."""
    wanted = set(conflict)
    found = [index for index in table.indexes if index.unique and set(index.columns) == wanted]
    if not found or any(living_condition(index) is None for index in found):
        return None
    constraints = (each for each in table.constraints if isinstance(each, (UniqueConstraint, PrimaryKeyConstraint)))
    return None if any(set(each.columns) == wanted for each in constraints) else living_condition(found[0])


def _partial(index: Index) -> bool:
    return any(options.get("where") is not None for options in index.dialect_options.values())


def _has_default(traits: Traits[Any], key: str) -> bool:
    column = traits.columns[key]
    return column.default is not None or column.server_default is not None
