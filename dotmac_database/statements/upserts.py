"""Builds INSERT … ON CONFLICT DO UPDATE: which conflicting rows it can update, and with which values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Index,
    PrimaryKeyConstraint,
    Table,
    UnaryExpression,
    UniqueConstraint,
    and_,
    bindparam,
    false,
    null,
    or_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.visitors import replacement_traverse

from ..errors import MisuseError
from ..field_names import FieldName, names_for
from ..models.expressions import default_value
from ..models.living import flag_value, living_condition
from ..models.traits import VersionSource
from ..sqlalchemy_internals import without_annotations
from ..tenancy.context import ALL_TENANTS
from .bulk import RowArrays
from .data import Values
from .writes import Writer


class VersionStep(NamedTuple):
    """The version of a row before an update (``last``), and after it (``next``)."""

    last: object
    next: object


class _OfConflicting(ColumnElement[Any]):
    """A column of the conflicting row. A subselect does not take its table into its own FROM, as it would a column's.

    SQLAlchemy correlates a subselect with the statements around it, but not with an INSERT.
    """

    inherit_cache = False

    def __init__(self, column: Any) -> None:
        self.column, self.type = column, column.type


@compiles(_OfConflicting)
def _compiled(element: _OfConflicting, compiler: SQLCompiler, **_: object) -> str:
    return str(compiler.process(element.column, include_table=True))


def on_conflicting(condition: Any, table: Table) -> Any:
    """A condition on the class as a condition on the conflicting row of an upsert."""

    def replaced(part: Any, **_: object) -> Any:
        is_own = isinstance(part, Column) and without_annotations(part.table) is table
        return _OfConflicting(table.c[part.key]) if is_own else None

    traverse: Any = replacement_traverse  # its overloads take none of SQLAlchemy's own base classes
    return traverse(condition, {}, replaced)


def conflict_columns(writer: Writer, fields: Iterable[FieldName], argument: str = "conflict_fields") -> list[Any]:
    """The columns of the unique constraint on ``fields``, or on ``fields`` and the tenant column.

    Raises `ValidationError` if there is no such constraint. ``argument`` is the fields' name in the message.
    """
    keys = [writer.canonical(name) for name in names_for(writer.traits.model, fields)]
    unknown = next((key for key in keys if key not in writer.traits.columns), None)
    if unknown is not None or not keys:
        raise MisuseError(f"{writer.traits.name}: {argument} must name columns.", field=unknown)
    columns = {writer.traits.columns[key] for key in keys}
    uniques = _uniques(writer)
    if frozenset(columns) in uniques:
        return [writer.traits.columns[key] for key in keys]
    if writer.traits.tenant is not None:
        tenant = writer.traits.columns[writer.traits.tenant]
        if frozenset(columns | {tenant}) in uniques:
            return [tenant, *(writer.traits.columns[key] for key in keys)]
    constraints = "; ".join(sorted(", ".join(sorted(c.name for c in unique)) for unique in uniques))
    raise MisuseError(
        f"{writer.traits.name}: no unique constraint is on {', '.join(keys)}; there are: {constraints}.", field=keys[0]
    )


def _uniques(writer: Writer) -> set[frozenset[Any]]:
    uniques: set[frozenset[object]] = set()
    for table in writer.traits.tables:
        for constraint in table.constraints:
            if isinstance(constraint, (UniqueConstraint, PrimaryKeyConstraint)):
                uniques.add(frozenset(constraint.columns))
        for index in table.indexes:
            is_for_all = not _partial(index) or living_condition(index) is not None
            if index.unique and is_for_all and is_on_columns(index):
                uniques.add(frozenset(index.columns))
        uniques |= {frozenset([column]) for column in table.columns if column.unique}
    return uniques


def is_on_columns(index: Index) -> bool:
    """Whether the values of an index are those of its columns, and not those of an expression such as ``lower(email)``.

    The order of a column (DESC, NULLS FIRST) makes no difference.
    """
    return all(isinstance(_without_order(each), Column) for each in index.expressions)


def _without_order(expression: object) -> object:
    while isinstance(expression, UnaryExpression) and expression.modifier is not None:
        expression = expression.element
    return expression


def upsert_many(
    writer: Writer,
    fields: Iterable[str],
    conflict: Sequence[Any],
    arrays: RowArrays | None = None,
    *,
    by_table: bool,
    rules: Sequence[Any] = (),
) -> Any:
    """As `upsert`, for the rows of ``arrays``, or for a list of parameters. ``fields`` are the fields to update.

    The statement is built once for each shape, unless a function makes the new version of a conflicting row, or there
    are ``rules``, which contain the actor's values.
    """
    names = tuple(sorted(fields))

    def make() -> Any:
        statement = upsert(writer, names, conflict, by_table=by_table, rules=rules)
        return statement if arrays is None else arrays.into(statement)

    onupdate = _onupdate(writer, names)
    if rules or (onupdate is not None and onupdate.is_callable):
        return make()
    on = tuple(column.key for column in conflict)
    shape = ("upsert", names, on, None if arrays is None else arrays.shape, by_table)
    return writer.reader.cached(shape, make, has_filters=False)


def upsert(
    writer: Writer,
    row_keys: Sequence[str],
    conflict: Sequence[Any],
    *,
    by_table: bool = False,
    step: VersionStep | None = None,
    rules: Sequence[Any] = (),
) -> Any:
    """INSERT … ON CONFLICT DO UPDATE. A conflicting row of another tenant is not changed.

    A conflicting row that is soft-deleted is updated and restored. ``step`` is for a class with generated versions
    (`VersionSource.GENERATOR`): a conflicting row is updated only if its version is ``step.last``. ``by_table``: it
    returns the columns of the table instead of objects. ``rules`` are further conditions on a conflicting row.
    """
    traits = writer.traits
    statement = writer.reader.dialect.insert(traits.tables[0] if by_table else traits.model)
    changes = _changes(writer, statement.excluded, row_keys, conflict) | _next_version_on_conflict(
        writer, row_keys, step
    )
    if not changes:
        first = next(iter(conflict))
        changes = {first.name: statement.excluded[first.name]}
    statement = statement.on_conflict_do_update(
        index_elements=list(conflict),
        index_where=_living_among(traits.tables[0], conflict),
        set_=changes,
        where=_can_be_updated(writer, statement.excluded, step, rules),
    )
    if by_table:
        return statement.returning(*traits.columns.values())
    if not traits.returned:
        return statement.returning(*(traits.attribute(key) for key in traits.primary_key))
    return writer.reader.whole(statement.returning(traits.model))


def changed_fields(writer: Writer, fields: Iterable[str], conflict: Sequence[Any]) -> frozenset[str]:
    """The attributes that an upsert changes in a conflicting row."""
    traits = writer.traits
    unchanged = {*traits.primary_key, traits.discriminator, traits.tenant, traits.created_at, traits.created_by}
    conflicting = {column.key for column in conflict}
    marks = {each for each in (traits.is_deleted, traits.deleted_at, traits.version) if each is not None}
    own = {key for key in fields if key not in unchanged and traits.columns[key].key not in conflicting}
    return frozenset(own | marks)


def _changes(writer: Writer, excluded: Any, row_keys: Sequence[str], conflict: Sequence[Any]) -> Values:
    """The changes of a conflicting row, by column name: the new values, and those that restore a soft-deleted row."""
    traits = writer.traits
    unchanged = {
        *traits.primary_key,
        traits.discriminator,
        traits.tenant,
        traits.created_at,
        traits.created_by,
        traits.version if traits.version_source is not VersionSource.DATABASE else None,
    }
    conflicting = {column.key for column in conflict}
    changes: Values = {
        traits.columns[key].name: excluded[traits.columns[key].name]
        for key in row_keys
        if key not in unchanged and traits.columns[key].key not in conflicting
    }
    # SQLAlchemy would treat a bound None as a value of each single row, and send a statement for each row.
    if traits.is_deleted is not None:
        mark = traits.columns[traits.is_deleted]
        changes[mark.name] = flag_value(mark, deleted=False)
    if traits.deleted_at is not None:
        changes[traits.columns[traits.deleted_at].name] = null()
    return changes


def _can_be_updated(writer: Writer, excluded: Any, step: VersionStep | None, rules: Sequence[Any]) -> object:
    """The condition that a conflicting row has the right class, tenant and version; None if there is no condition."""
    traits, table = writer.traits, writer.traits.tables[0]
    conditions = [_of_class(writer)]
    if traits.tenant is not None and writer.reader.scope.tenant is not ALL_TENANTS:
        column = traits.columns[traits.tenant]
        conditions.append(table.c[column.key] == excluded[column.name])
    if step is not None and traits.version is not None:
        conditions.append(table.c[traits.columns[traits.version].key].is_not_distinct_from(step.last))
    conditions += [on_conflicting(each, table) for each in rules]
    needed = [condition for condition in conditions if condition is not None]
    return and_(*needed) if needed else None


def meets_living_only(writer: Writer, conflict: Sequence[object]) -> bool:
    """Whether only rows that are not soft-deleted can conflict, because soft-deleted rows can have the same values."""
    return _living_among(writer.traits.tables[0], conflict) is not None


def _next_version_on_conflict(writer: Writer, row_keys: Sequence[str], step: VersionStep | None) -> Values:
    """The next version of a conflicting row, by column name; empty if the statement does not set a version."""
    key = writer.traits.version
    if key is None:
        return {}
    column = writer.traits.columns[key]
    if step is not None:
        return {column.name: bindparam(None, step.next, type_=column.type, unique=True)}
    onupdate = _onupdate(writer, row_keys)
    if onupdate is not None:
        # SQLAlchemy does not apply the onupdate of a column in ON CONFLICT DO UPDATE.
        return {column.name: default_value(onupdate)}
    changes = writer.next_version()
    return {column.name: changes[key]} if changes else {}


def _onupdate(writer: Writer, row_keys: Sequence[str]) -> Any:
    """The ``onupdate`` of the column, if it makes the next version of a conflicting row."""
    key, traits = writer.traits.version, writer.traits
    if key is None or traits.version_source is not VersionSource.DATABASE or key in row_keys:
        return None
    return traits.columns[key].onupdate


def _of_class(writer: Writer) -> Any:
    """The condition that a conflicting row is of the class or a subclass; None if every row of the table is."""
    mapper = writer.traits.mapper
    if not mapper.single or mapper.polymorphic_on is None:
        return None
    identities = [each.polymorphic_identity for each in mapper.self_and_descendants]
    # OR instead of IN: SQLAlchemy can't expand the parameter of IN in a statement for many rows.
    return or_(false(), *(mapper.polymorphic_on == each for each in identities if each is not None))


def _living_among(table: Table, conflict: Sequence[object]) -> object:
    """The condition of the partial unique index on these columns; None if they are unique without a condition."""
    columns = set(conflict)
    indexes = [
        index for index in table.indexes if index.unique and set(index.columns) == columns and is_on_columns(index)
    ]
    if not indexes or any(living_condition(index) is None for index in indexes):
        return None
    constraints = (each for each in table.constraints if isinstance(each, (UniqueConstraint, PrimaryKeyConstraint)))
    return None if any(set(each.columns) == columns for each in constraints) else living_condition(indexes[0])


def _partial(index: Index) -> bool:
    return any(options.get("where") is not None for options in index.dialect_options.values())
