"""Statements that write many rows: an UPDATE that joins VALUES, and UPDATEs and INSERTs from arrays of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, SelectBase, bindparam, column, func, insert, select, update, values
from sqlalchemy import types as sa
from sqlalchemy.dialects.postgresql import INTERVAL

from ..dialects.base import Dialect
from ..models.expressions import makes_value
from ..types import UTCDateTime
from .data import Values
from .new_keys import defaults_of, is_read_as_written
from .reads import Bound
from .rows import Rows
from .writes import Writer

BATCH = 10_000
"""The most rows that one statement writes from arrays."""

_ARRAY_TYPES = (
    sa.Integer,
    sa.String,
    sa.Boolean,
    sa.Uuid,
    sa.DateTime,
    sa.Date,
    sa.Time,
    sa.Float,
    sa.Numeric,
    sa.LargeBinary,
    sa.JSON,
    INTERVAL,
)
"""The types for which every driver sends an array like single values; `Enum` is a subclass of `String`.

Not the arrays themselves, since PostgreSQL's ``unnest`` takes an array of arrays apart down to the single values.
"""


def update_many(writer: Writer, keys: Sequence[tuple[object, ...]], changes: Rows) -> Iterator[Bound]:
    """UPDATE … FROM (VALUES …) for rows that all have the same fields.

    It yields as many statements as the dialect's limit of parameters requires. Each statement returns the primary keys
    of the rows that it has updated.
    """
    traits, reader = writer.traits, writer.reader
    names, rows = sorted(changes.columns), changes.dicts()
    fields = [*traits.primary_key, *names]
    size = max(1, reader.dialect.max_parameters // len(fields) - 1)
    columns = [column(f"n{place}", traits.columns[name].type) for place, name in enumerate(fields)]
    width = len(traits.primary_key)
    for start in range(0, len(keys), size):
        data = [
            tuple(
                bindparam(None, value, type_=each.type, unique=True)
                for value, each in zip((*key, *(row[name] for name in names)), columns, strict=True)
            )
            for key, row in zip(keys[start : start + size], rows[start : start + size], strict=True)
        ]
        table = values(*columns, name="dotmac_rows").data(data).cte("dotmac_changes")
        new_values = [reader.dialect.typed(each, each.type) for each in table.c]
        matches = [traits.attribute(name) == new_values[place] for place, name in enumerate(traits.primary_key)]
        values_of_row = {name: new_values[width + place] for place, name in enumerate(names)}
        statement = (
            update(traits.model)
            .where(*matches, *reader.scope.root(traits))
            .values({**values_of_row, **writer.next_version()})
            .returning(*(traits.attribute(name) for name in traits.primary_key))
        )
        yield Bound(statement, dict(reader.scope.parameters))


def update_by_arrays(writer: Writer, keys: Sequence[tuple[object, ...]], rows: Rows) -> Iterator[Bound]:
    """As `update_many`, by UPDATE … FROM unnest(…): one array for each column, one statement for each batch.

    The statement depends only on the fields, so that it is built once. `updates_by_arrays` says whether it is possible.
    """
    names = tuple(sorted(rows.columns))
    statement = writer.reader.cached(("update by arrays", names), lambda: _update(writer, names), has_filters=False)
    lists = [*map(list, zip(*keys, strict=True)), *(rows.columns[name] for name in names)]
    for start in range(0, len(keys), BATCH):
        arrays = {f"dotmac_{place}": values[start : start + BATCH] for place, values in enumerate(lists)}
        yield Bound(statement, {**writer.reader.scope.parameters, **arrays})


def _update(writer: Writer, names: Sequence[str]) -> Any:
    """The statement of `update_by_arrays`."""
    traits = writer.traits
    columns = [traits.columns[name] for name in (*traits.primary_key, *names)]
    array_of = writer.reader.dialect.array_of
    table = _unnested(
        columns, [bindparam(f"dotmac_{place}", type_=array_of(each.type)) for place, each in enumerate(columns)]
    )
    fields = list(table.c)
    matches = [traits.attribute(name) == field for name, field in zip(traits.primary_key, fields, strict=False)]
    changes = dict(zip(names, fields[len(matches) :], strict=False))
    return (
        update(traits.model)
        .where(*matches, *writer.reader.scope.root(traits))
        .values({**changes, **writer.next_version()})
        .returning(*(traits.attribute(name) for name in traits.primary_key))
    )


def update_each(writer: Writer, names: Sequence[str]) -> Any:
    """UPDATE of one row by its key, which is sent with a list of `each_parameters`. It returns nothing."""
    traits = writer.traits

    def make() -> object:
        changes = {
            traits.columns[name]: bindparam(f"v{place}", type_=traits.columns[name].type)
            for place, name in enumerate(names)
        }
        versions = {traits.columns[name]: version for name, version in writer.next_version().items()}
        where = [*writer.reader.key_conditions(), *writer.reader.scope.root(traits)]
        return update(traits.tables[0]).where(*where).values({**changes, **versions})

    return writer.reader.cached(("update each", tuple(names)), make, has_filters=False)


def each_parameters(
    writer: Writer, names: Sequence[str], keys: Sequence[tuple[object, ...]], rows: Rows
) -> list[Values]:
    """The parameters of `update_each` for each row."""
    scope, reader = writer.reader.scope.parameters, writer.reader
    fields = [*reader.key_parameters(keys[0]), *(f"v{place}" for place in range(len(names)))]
    values = zip(*(rows.columns[name] for name in names), strict=True)
    return [
        {**scope, **dict(zip(fields, (*key, *row), strict=True))}
        for key, row in zip((reader.key_parameters(key).values() for key in keys), values, strict=True)
    ]


def updates_by_arrays(writer: Writer, names: Iterable[str]) -> bool:
    """Whether an UPDATE can get the keys and the values of these fields as arrays.

    A key must be read as it was written, since a row is found by it.
    """
    columns = writer.traits.columns
    return (
        writer.reader.dialect.has_arrays
        and all(is_read_as_written(columns[key].type) for key in writer.traits.primary_key)
        and all(_has_array_type(writer, columns[name]) for name in (*writer.traits.primary_key, *names))
    )


def _unnested(columns: Sequence[Column[Any]], arrays: Sequence[Any]) -> Any:
    """The table of the rows in these arrays, with the columns ``c0``, ``c1``, … and their ``place``."""
    fields: list[Any] = [column(f"c{place}", each.type) for place, each in enumerate(columns)]
    return func.unnest(*arrays).table_valued(*fields, with_ordinality="place", name="dotmac_rows").render_derived()


@dataclass(frozen=True, slots=True)
class RowArrays:
    """Rows to insert as the parameters of a SELECT: an array for each column, or one value if it is that of all rows.

    ``repeated`` says which columns have one value.
    """

    columns: Sequence[Column[object]]
    repeated: Sequence[bool]
    parameters: Values
    dialect: Dialect

    @property
    def shape(self) -> tuple[tuple[str, bool], ...]:
        """What determines the text of the SELECT."""
        return tuple(zip((each.key for each in self.columns), self.repeated, strict=True))

    def into(self, statement: Any) -> Any:
        """The INSERT with a SELECT of the rows in the given order, in which the database then assigns serial keys."""
        # With "auto", the ORM would take the arrays for the values of a row.
        statement = statement.execution_options(dml_strategy="orm")
        return statement.from_select(self.columns, self._select(), include_defaults=False)

    def _select(self) -> SelectBase:
        pairs = list(enumerate(zip(self.columns, self.repeated, strict=True)))
        arrays = [
            bindparam(f"dotmac_{place}", type_=self.dialect.array_of(each.type))
            for place, (each, is_repeated) in pairs
            if not is_repeated
        ]
        table = _unnested([each for _, (each, is_repeated) in pairs if not is_repeated], arrays)
        fields = iter(table.c)
        selected = [
            bindparam(f"dotmac_{place}", type_=each.type) if is_repeated else next(fields)
            for place, (each, is_repeated) in pairs
        ]
        return select(*selected).order_by(table.c.place)


class Unnested:
    """INSERT … SELECT FROM unnest(…) for rows with the same fields: one array for each column, for any number of rows.

    Unlike COPY, it obeys row-level security. ``possible`` is True if the dialect and the columns' types support it.
    """

    def __init__(self, writer: Writer, names: Iterable[str]) -> None:
        self.writer = writer
        self.names = sorted(names)
        traits = writer.traits
        self.columns: list[Column[object]] = [traits.columns[name] for name in self.names]
        self.defaults = [
            (key, each.default)
            for key, each in traits.columns.items()
            if key not in self.names and each.default is not None
        ]
        self.possible = (
            writer.reader.dialect.has_arrays
            and len(traits.tables) == 1
            and all(_has_array_type(writer, each) for each in self.columns)
            and all(
                makes_value(default) and _has_array_type(writer, traits.columns[key]) for key, default in self.defaults
            )
        )

    def lists(self, rows: Rows) -> tuple[list[Column[object]], list[list[object]]]:
        """The columns, and for each column the list of its values. A default's function is called for each row."""
        columns = [*self.columns, *(self.writer.traits.columns[key] for key, _ in self.defaults)]
        lists = [rows.columns[name] for name in self.names]
        return columns, [*lists, *(defaults_of(default, len(rows)) for _, default in self.defaults)]

    def arrays(self, rows: Rows) -> RowArrays:
        """The rows as parameters.

        A value that the toolkit or a default sets in all rows is sent once. Values of the data are not compared, since
        each set of columns with equal values would need another statement.
        """
        columns, lists = self.lists(rows)
        traits = self.writer.traits
        can_repeat = traits.set_alike | {key for key, default in self.defaults if default.is_scalar}
        keys = [*self.names, *(key for key, _ in self.defaults)]
        repeated = [key in can_repeat and _are_same(values) for key, values in zip(keys, lists, strict=True)]
        if all(repeated):
            repeated[0] = False  # the length of an array says how many rows there are
        parameters = {
            f"dotmac_{place}": values[0] if is_repeated else values
            for place, (values, is_repeated) in enumerate(zip(lists, repeated, strict=True))
        }
        return RowArrays(columns, repeated, parameters, self.writer.reader.dialect)


def insert_from(writer: Writer, arrays: RowArrays, *, by_table: bool = False, returning: bool) -> Bound:
    """INSERT … SELECT of the rows of the arrays. It is built once for each shape.

    With ``returning`` it returns objects or, ``by_table``, the columns of the table.
    """
    traits, reader = writer.traits, writer.reader

    def make() -> object:
        statement = arrays.into(insert(traits.tables[0] if by_table else traits.model))
        if not returning:
            return statement
        return reader.whole(statement.returning(*(traits.columns.values() if by_table else (traits.model,))))

    shape = ("insert by arrays", arrays.shape, by_table, returning)
    return Bound(reader.cached(shape, make, has_filters=False), arrays.parameters)


def _are_same(values: Sequence[object]) -> bool:
    """Whether the values are one and the same object. Not None: in an array, a NULL always has a type."""
    first = values[0]
    return first is not None and first is values[-1] and len(set(map(id, values))) == 1


def _has_array_type(writer: Writer, column: Column[object]) -> bool:
    """Whether a list of the column's values can be sent as an array: see `_ARRAY_TYPES`."""
    each: sa.TypeEngine[object] = column.type
    while isinstance(each, sa.TypeDecorator) and not isinstance(each, UTCDateTime):
        if type(each).process_bind_param is not sa.TypeDecorator.process_bind_param:
            return False  # it is unknown which values the driver would get
        if type(each).bind_expression is not sa.TypeDecorator.bind_expression:
            return False  # SQLAlchemy does not apply the expression to the items of an array
        each = each.impl_instance
    stored = writer.reader.dialect.underlying(column.type)
    has_expression = type(stored).bind_expression is not sa.TypeEngine.bind_expression
    return isinstance(stored, _ARRAY_TYPES) and not has_expression
