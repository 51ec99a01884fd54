"""Validates the data of writes, and builds their INSERT, UPDATE and DELETE statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    bindparam,
    delete,
    func,
    insert,
    update,
)
from sqlalchemy.sql.elements import Null

from ..departures import CHANGE, INSERT, mapper_departure
from ..errors import MisuseError, TenantIsolationError, ValidationError
from ..field_names import is_attribute, named_twice
from ..models.expressions import default_value
from ..models.living import flag_value
from ..models.traits import VersionSource
from ..tenancy.context import ALL_TENANTS
from ..tenancy.related import tenant_of_related
from ..tenancy.values import same
from ..types import utc_now
from .coercion import Coercer
from .data import NewRow, Values, data_of, is_sql, new_data_of
from .filters import Analysis
from .reads import Bound
from .stamps import Stamps

_MISSING = object()
_NO_FIELDS: Mapping[object, tuple[str, Coercer | None]] = {}


@dataclass(frozen=True, slots=True)
class Writer(Stamps):
    """Validates values, and builds the write statements of one class for one tenant."""

    def for_create(self, data: object) -> NewRow:
        """The values of a new row: validated, converted, with tenant and audit columns. ``data`` is not changed."""
        traits = self.reader.traits
        fields, unset = new_data_of(traits, data)
        values = self.checked(fields, unset)
        if traits.tenant is not None and self.reader.scope.tenant is ALL_TENANTS:
            self._take_tenant_of_related(values, traits.tenant)
        columns = {key: [values[key]] for key in traits.set_automatically if key in values}
        self.stamp_new(columns, 1)
        for key, (value,) in columns.items():
            values[key] = value
        return NewRow(values, frozenset(self._fields[name][0] for name in unset) if unset else unset)

    def for_update(self, data: object) -> Values:
        """The values of an update, validated and converted. `stamped` adds the audit columns."""
        traits = self.reader.traits
        values = self.checked(data_of(traits, data))
        self.refuse_version(values)
        if traits.tenant in values and self.reader.scope.tenant is not ALL_TENANTS:
            self.refuse_tenants((values.pop(traits.tenant),))
        return values

    def stamped(self, values: Values) -> Values:
        """The changes of an update, with the audit columns. Audit columns that the changes contain are not replaced."""
        columns = {key: [values[key]] for key in self.traits.set_automatically if key in values}
        self.stamp_change(columns, 1)
        for key, (value,) in columns.items():
            values[key] = value
        return values

    def refuse_nulls(self, values: Values, *, new: bool, index: int | None = None) -> Values:
        """Return the values. Raises `ValidationError` for a None in a column that can't be NULL.

        None is accepted if a validator or listener of the class can still replace it. ``index`` is the position of the
        row in the data of a bulk method, for the message; None: there is only one row.
        """
        traits = self.reader.traits
        for key in traits.never_null:
            value = values.get(key, _MISSING)
            # In a new row, None means the column's default, if it has one. `Null` is the SQL NULL of a JSON column.
            null_ = type(value) is Null or (value is None and self.refuses_none(key, new=new))
            if null_ and not self._can_be_replaced(new):
                row = "" if index is None else f" (row {index})"
                if key in traits.private:
                    raise ValidationError(f"{traits.name}: a field can't be null{row}.")
                raise ValidationError(f"{traits.name}.{key} can't be null{row}.", field=key)
        return values

    def _can_be_replaced(self, new: bool) -> bool:
        """Whether a validator, constructor or listener of the class can replace a None by another value."""
        traits = self.reader.traits
        return traits.constructs or mapper_departure(traits.mapper, INSERT if new else CHANGE) is not None

    def checked(self, data: Mapping[object, object], unset: frozenset[str] = frozenset()) -> Values:
        """``data`` by attribute keys, with coerced values. Raises `ValidationError` that names the wrong field.

        The fields in ``unset`` only have a default of the app's, which may also be that of a column that is read-only.
        """
        values: Values = {}
        fields = self._fields if self.rules is None else _NO_FIELDS
        for name, value in data.items():
            key, coerce = fields.get(name) or (self._entry if name in unset else self.field)(name)
            if coerce is None:
                if key in self.traits.relationships:
                    self._check_related(key, value)
                values[key] = value
            elif value is None:
                values[key] = self.null(key)
            else:
                try:
                    values[key] = coerce(value)
                except ValueError as expected:
                    values[key] = self.expression(key, value, expected)
        if len(values) != len(data):
            self._refuse_twice(data)
        return values

    def _refuse_twice(self, data: Mapping[object, object]) -> None:
        """Raise `ValidationError` if the data names a field as a text and as an attribute. A synonym is accepted."""
        keys = set[str]()
        for name in data:
            key = self._entry(name)[0]
            if key in keys and any(is_attribute(each) for each in data):
                raise named_twice(self.traits.model, key)
            keys.add(key)

    def holds_sql(self, values: Values) -> bool:
        """Whether one of the values is an SQL expression. The NULL of a JSON column is not: it is sent like data."""
        return any(map(is_sql, values.values())) and any(self.is_expression(*item) for item in values.items())

    def _check_related(self, key: str, value: object) -> None:
        """Raise `TenantIsolationError` if the value of a relationship contains an object of another tenant."""
        tenant = self.reader.scope.tenant
        if tenant is None or tenant is ALL_TENANTS:
            return
        related = tenant_of_related(self.traits, {key: value})
        if related is not None and not same(related, tenant):
            raise TenantIsolationError(f"{self.traits.name}.{key}: a related object belongs to another tenant.")

    def _take_tenant_of_related(self, values: Values, key: str) -> None:
        related = tenant_of_related(self.traits, values)
        if related is None:
            return
        if values.get(key) is None:
            values[key] = self.coerced(key, related)
        elif not same(values[key], related):
            raise TenantIsolationError(f"{self.traits.name}: a related object belongs to another tenant.")

    def runs(self, rows: Sequence[Values], *, keep_none: bool = False) -> list[tuple[list[int], list[Values]]]:
        """The rows in groups with the same keys. Each group has the positions of its rows, and the rows.

        One statement can then insert a group, and the columns that it does not name get their defaults. As in the ORM's
        INSERT of one object, a None means the column's default, unless ``keep_none``; without a default it is NULL.
        """
        runs: dict[frozenset[str], tuple[list[int], list[Values]]] = {}
        defaulted = frozenset() if keep_none else self.traits.columns.keys() - self.traits.null_unless_set
        for place, row in enumerate(rows):
            if any(key in row and row[key] is None for key in defaulted):
                row = {key: value for key, value in row.items() if value is not None or key not in defaulted}
            places, members = runs.setdefault(frozenset(row), ([], []))
            places.append(place)
            members.append(row)
        return list(runs.values())

    def insert(self, *, returning: bool, in_order: bool = True) -> Any:
        """INSERT of many rows, which can return the objects: ``in_order`` of the given rows, or in any order."""
        # Without render_nulls, SQLAlchemy omits a None, and begins another statement whenever the columns change.
        statement = insert(self.traits.model).execution_options(render_nulls=True)
        if not returning:
            return statement
        return self.reader.whole(statement.returning(self.traits.model, sort_by_parameter_order=in_order))

    def insert_by_table(self, *, returning: bool, in_order: bool = True) -> Any:
        """As `insert`, for parameters by the keys of the table's columns. It returns columns instead of objects."""
        statement = insert(self.traits.tables[0])
        if not returning:
            return statement
        return statement.returning(*self.traits.columns.values(), sort_by_parameter_order=in_order)

    def insert_of(self, values: Values) -> Bound | None:
        """INSERT of one row, which returns the row, with the same values as an INSERT by the ORM.

        The caller has checked `Traits.direct_creates` or `Traits.inserts_constructed`. None if the ORM must insert the
        row, because of SQL expressions or of values that belong to no column.
        """
        traits = self.reader.traits
        if not values.keys() <= traits.columns.keys():
            return None
        defaulted = {key for key, value in values.items() if value is None and key not in traits.null_unless_set}
        row_values = {key: value for key, value in values.items() if key not in defaulted}
        if self.holds_sql(row_values):
            return None
        plain = self.reader.typed_defaults()
        for key, column in traits.columns.items():
            if key not in row_values and column.default is not None:
                value = plain[key] if key in plain else default_value(column.default)
                # The default is rounded to the column's scale, because the value would be read in this form.
                row_values[key] = self.coerced(key, value) if type(value) is Decimal else value
        names = tuple(row_values)

        def make() -> object:
            table = traits.tables[0]
            columns = [traits.columns[name] for name in names]
            row = {each: bindparam(f"v{place}", type_=each.type) for place, each in enumerate(columns)}
            return insert(table).values(row).returning(*traits.columns.values())

        parameters = {f"v{place}": value for place, value in enumerate(row_values.values())}
        return Bound(self.reader.cached(("insert", names), make, has_filters=False), parameters)

    def update_by_key(self, key: tuple[object, ...], values: Values, expected_version: object) -> Bound:
        """UPDATE of one row, which returns the row; no row if it is missing or has another version than expected."""
        traits, reader = self.traits, self.reader
        names = tuple(sorted(values))
        checks = expected_version is not None

        def changed(changes: Values) -> Any:
            statement = update(traits.model).where(*self._row(checks)).values({**changes, **self.next_version()})
            return reader.whole(statement.returning(traits.model))

        def make() -> object:
            changes = {name: bindparam(f"v_{name}", type_=traits.columns[name].type) for name in names}
            return changed(changes).execution_options(synchronize_session=False)

        parameters = self._row_parameters(key, expected_version)
        if self.holds_sql(values):
            return Bound(changed(values), parameters)
        parameters |= {f"v_{name}": value for name, value in values.items()}
        return Bound(reader.cached(("update", names, checks), make, has_filters=False), parameters)

    def delete_by_key(self, key: tuple[object, ...], expected_version: object) -> Bound:
        """DELETE of one row; of no row if it is missing or has another version than expected."""
        checks = expected_version is not None
        statement = self.reader.cached(("delete", checks), lambda: delete(self.traits.model).where(*self._row(checks)))
        return Bound(statement, self._row_parameters(key, expected_version))

    def _row(self, checks: bool) -> list[Any]:
        """The conditions that a row is in the scope, and has the primary key and (``checks``) the expected version."""
        conditions = [*self.reader.key_conditions(), *self.reader.scope.root(self.traits)]
        if checks and self.traits.version is not None:
            type_ = self.traits.columns[self.traits.version].type
            conditions.append(self.traits.attribute(self.traits.version) == bindparam("dotmac_version", type_=type_))
        return conditions

    def _row_parameters(self, key: tuple[object, ...], expected_version: object) -> Values:
        """The parameters of `_row`."""
        parameters = {**self.reader.scope.parameters, **self.reader.key_parameters(key)}
        return parameters if expected_version is None else {**parameters, "dotmac_version": expected_version}

    def next_version(self) -> Values:
        """The change that increments the version; empty if the class has no version, or if it is not a counter.

        A generated version (`VersionSource.GENERATOR`) depends on the row, so the unit of work sets it for each row.
        """
        version = self.traits.version
        if version is None or self.traits.version_source not in (VersionSource.TOOLKIT, VersionSource.MAPPER):
            return {}
        attribute = self.traits.attribute(version)
        current = func.coalesce(attribute, 0) if self.traits.columns[version].nullable else attribute
        return {version: current + 1}

    def expected(self, version: object) -> object:
        """An expected version, coerced to its column's type. Raises `ValidationError` if the class has no version."""
        key = self.traits.version
        if key is None:
            raise MisuseError(
                f"{self.traits.name} has no version, so expected_version can't be checked.", field="expected_version"
            )
        return self.coerced(key, version)

    def update_where(self, analysis: Analysis, values: Values) -> Bound:
        """UPDATE of all rows that match the filters."""
        where = self.reader.where(analysis)
        statement = update(self.traits.model).where(*where).values({**values, **self.next_version()})
        return self.reader.confined(Bound(statement, {**self.reader.scope.parameters, **analysis.parameters}))

    def delete_where(self, analysis: Analysis) -> Bound:
        """DELETE of all rows that match the filters."""
        statement = delete(self.traits.model).where(*self.reader.where(analysis))
        return self.reader.confined(Bound(statement, {**self.reader.scope.parameters, **analysis.parameters}))

    def deletion(self, *, deleted: bool = True) -> Values:
        """The values that mark a row as deleted or, with ``deleted=False``, as not deleted, with the audit columns."""
        traits = self.reader.traits
        values: Values = {}
        if traits.is_deleted is not None:
            values[traits.is_deleted] = flag_value(traits.columns[traits.is_deleted], deleted=deleted)
        if traits.deleted_at is not None:
            values[traits.deleted_at] = self.coerced(traits.deleted_at, utc_now()) if deleted else None
        return self.stamped(values)
