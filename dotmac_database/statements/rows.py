"""Many rows with the same fields, as one list of values for each column, and how rows are validated in this form.

A pass over one column costs a fraction of what the same work costs row by row: most columns have values of one type,
and one comparison shows that none of them has to be converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import types as sa

from ..errors import DatabaseError
from ..models.traits import Traits
from ..tenancy.context import ALL_TENANTS
from ..types import undecorated
from .coercion import Coercer, binds_by_itself, coercer
from .data import DATA_TYPES, Values, data_of, new_data_of
from .writes import Writer


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with the same fields. ``places`` are their positions in the data of the call, in ascending order."""

    places: Sequence[int]
    columns: dict[str, list[Any]]
    """For each field, by attribute key, the list of its values."""

    def __len__(self) -> int:
        return len(self.places)

    def dicts(self) -> list[Values]:
        """The values of each row."""
        names = tuple(self.columns)
        if not names:
            return [{} for _ in self.places]
        return [dict(zip(names, row)) for row in zip(*self.columns.values(), strict=True)]  # noqa: B905 - one for each name

    def by_table(self, traits: Traits[Any]) -> list[Values]:
        """As `dicts`, but by the keys of the table's columns."""
        return Rows(self.places, {traits.columns[key].key: values for key, values in self.columns.items()}).dicts()

    def batches(self, size: int) -> Iterator[Rows]:
        """The rows in batches of at most ``size`` rows."""
        if len(self) <= size:
            yield self
            return
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Rows(self.places[part], {key: values[part] for key, values in self.columns.items()})

    def with_columns(self, columns: dict[str, list[Any]]) -> Rows:
        """The same rows with these columns, too."""
        return Rows(self.places, {**self.columns, **columns}) if columns else self


def rows_of(places: Sequence[int], members: Sequence[Values]) -> Rows:
    """Rows from dicts that all have the same keys."""
    return Rows(places, {key: [row[key] for row in members] for key in members[0]})


class _OneByOneError(Exception):
    """Rows that must be prepared one by one, for example because one of them is refused."""


def new_rows(writer: Writer, data: Sequence[object], first: int, *, new: bool = True) -> list[Rows] | None:
    """New rows, validated as `Writer.for_create` and `Writer.refuse_nulls` do it, in groups with the same fields.

    ``first`` is the position of the first row. As in `Writer.runs`, a None means the column's default. ``new`` is False
    for an upsert, which writes the None, and which needs to know the defaults of Pydantic classes. Returns None if the
    rows must be prepared one by one, which then raises the error for the first row that is refused.
    """
    groups: dict[tuple[object, ...], tuple[list[int], list[Any]]] = {}
    try:
        for place, row in enumerate(data, first):
            fields, unset = (row, None) if type(row) is dict else new_data_of(writer.traits, row)
            if unset and (writer.rules is not None or not new):
                return None
            _add(groups, place, fields)
        parts = [_Rows(writer, *names_and_rows, new=new).rows() for names_and_rows in groups.items()]
    except (_OneByOneError, DatabaseError, ValueError):
        return None
    return _merged([part for rows in parts for part in _without_defaulted(writer, rows)] if new else parts)


Key: TypeAlias = tuple[object, ...]


def changed_rows(writer: Writer, data: Sequence[object]) -> list[tuple[list[Key], Rows]] | None:
    """The changes of many rows, validated as `Writer.for_update` and `Writer.refuse_nulls` do it.

    They are in groups with the same fields, each with the primary keys of its rows. Rows with nothing but their key are
    left out. Returns None if the rows must be prepared one by one, as for `new_rows`.
    """
    groups: dict[tuple[object, ...], tuple[list[int], list[Any]]] = {}
    keys = set[Key]()
    changes = list[tuple[list[Key], Rows]]()
    try:
        for place, row in enumerate(data):
            _add(groups, place, data_of(writer.traits, row))
        for names, rows in groups.items():
            group = _Rows(writer, names, rows, new=False)
            changed = group.changes()
            own = group.keys()
            keys.update(own)
            if changed.columns:
                writer.stamp_change(changed.columns, len(changed))
                changes.append((own, changed))
    except (_OneByOneError, DatabaseError, ValueError):
        return None
    fields = {frozenset(rows.columns) for _, rows in changes}
    return changes if len(keys) == len(data) and len(fields) == len(changes) else None


def _add(
    groups: dict[tuple[object, ...], tuple[list[int], list[Any]]], place: int, fields: Mapping[Any, object]
) -> None:
    """Add a row to the group of the rows that have the same fields in the same order."""
    names = tuple(fields)
    group = groups.get(names)
    if group is None:
        group = groups[names] = ([], [])
    group[0].append(place)
    group[1].append(fields)


class _Rows:
    """The validation of rows with the same fields."""

    def __init__(
        self, writer: Writer, names: Sequence[object], rows: tuple[list[int], list[Any]], *, new: bool
    ) -> None:
        self.writer, self.traits, self.names, self.new = writer, writer.traits, names, new
        self.places, self.members = rows
        self.columns: dict[str, list[Any]] = {}

    def rows(self) -> Rows:
        """New rows with all values that the toolkit sets."""
        self._read()
        self.writer.stamp_new(self.columns, len(self.members))
        return Rows(self.places, self.columns)

    def _read(self) -> None:
        """Make the columns of the given values."""
        for name in self.names:
            key, coerce = self.writer.field(name)
            if coerce is None or key in self.columns:
                raise _OneByOneError
            self.columns[key] = self._coerced(key, coerce, [row[name] for row in self.members])

    def changes(self) -> Rows:
        """The changes of rows, which still have their primary keys."""
        self._read()
        self.writer.refuse_version(self.columns)
        tenant = self.writer.reader.scope.tenant
        if self.traits.tenant is not None and tenant is not ALL_TENANTS:
            self.writer.refuse_tenants(self.columns.pop(self.traits.tenant, ()))
            if self.traits.tenant in self.traits.primary_key:
                self.columns[self.traits.tenant] = [tenant] * len(self.members)
        return Rows(self.places, self.columns)

    def keys(self) -> list[Key]:
        """The primary keys of the rows, which are removed from the columns."""
        parts = []
        for key in self.traits.primary_key:
            type_, values = self.traits.columns[key].type, self.columns.pop(key, [None])
            kinds = set(map(type, values))
            if type(None) in kinds:
                raise _OneByOneError
            parts.append(values if _is_coerced(type_, kinds, values) else list(map(coercer(type_), values)))
        return list(zip(*parts, strict=True))

    def _coerced(self, key: str, coerce: Coercer, values: list[Any]) -> list[Any]:
        """The converted values of a column."""
        kinds = set(map(type, values))
        type_ = self.traits.columns[key].type
        if type(None) in kinds:
            if self.writer.refuses_none(key, new=self.new):
                raise _OneByOneError
            if len(kinds) > 1 or type_.should_evaluate_none:
                values = [self.writer.null(key) if each is None else coerce(each) for each in values]
        elif not _is_coerced(type_, kinds, values):
            values = list(map(coerce, values))
        if not (kinds <= DATA_TYPES or set(map(type, values)) <= DATA_TYPES) and any(
            self.writer.is_expression(key, each) for each in values
        ):
            raise _OneByOneError
        return values


def _is_coerced(type_: sa.TypeEngine[Any], kinds: set[type], values: list[Any]) -> bool:
    """Whether a coercer that stores values of this type would return all of these unchanged. False if that is unknown.

    ``kinds`` are the types of the values.
    """
    if len(kinds) != 1 or (isinstance(type_, sa.TypeDecorator) and binds_by_itself(type_)):
        return False
    kind, plain = next(iter(kinds)), undecorated(type_)
    if kind is str and isinstance(plain, sa.String) and not isinstance(plain, sa.Enum):
        text = "".join(values)
        return (
            text.isascii()
            and "\x00" not in text
            and (plain.length is None or len(max(values, key=len)) <= plain.length)
        )
    if kind is int and isinstance(plain, sa.Integer):
        bits = 15 if isinstance(plain, sa.SmallInteger) else 63 if isinstance(plain, sa.BigInteger) else 31
        return bool(-(2**bits) <= min(values) and max(values) < 2**bits)
    if kind is bool:
        return isinstance(plain, sa.Boolean)
    return kind is UUID and isinstance(plain, sa.Uuid) and bool(plain.as_uuid)


def _without_defaulted(writer: Writer, rows: Rows) -> Iterable[Rows]:
    """The rows in groups that have no None in a column with a default: such a value is left out."""
    keys = [
        key
        for key, values in rows.columns.items()
        if key not in writer.traits.null_unless_set and type(None) in set(map(type, values))
    ]
    if not keys:
        return [rows]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for index, pattern in enumerate(zip(*([each is None for each in rows.columns[key]] for key in keys), strict=True)):
        groups.setdefault(pattern, []).append(index)
    parts = []
    for pattern, indexes in groups.items():
        dropped = {key for key, is_none in zip(keys, pattern, strict=True) if is_none}
        columns = {
            key: [values[index] for index in indexes] for key, values in rows.columns.items() if key not in dropped
        }
        parts.append(Rows([rows.places[index] for index in indexes], columns))
    return parts


def _merged(parts: Sequence[Rows]) -> list[Rows]:
    """Rows of which no two groups have the same fields, each group in the order of the places."""
    groups: dict[frozenset[str], list[Rows]] = {}
    for part in parts:
        groups.setdefault(frozenset(part.columns), []).append(part)
    merged = []
    for members in groups.values():
        if len(members) == 1:
            merged.append(members[0])
            continue
        places = [place for part in members for place in part.places]
        order = sorted(range(len(places)), key=places.__getitem__)
        columns = {}
        for key in members[0].columns:
            values = [value for part in members for value in part.columns[key]]
            columns[key] = [values[index] for index in order]
        merged.append(Rows([places[index] for index in order], columns))
    return merged
