"""The columns that the arguments of a table name: texts, or the columns and attributes of the class themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from sqlalchemy import Column, Constraint, Table, event
from sqlalchemy.orm import Mapped, MappedColumn, Mapper, QueryableAttribute, class_mapper

from ..errors import MisuseError

ColumnName: TypeAlias = "str | Mapped[object] | Column[object]"
"""The name of a column, or the column: an attribute in the body of its class (``email``), or one of a mapped class.

A field of SQLModel is a text for type checkers. In the body of its class it has no name yet, so it is refused there.
"""


def column_in(table: Table, named: ColumnName, user: str) -> Column[object]:
    """The table's column that ``user``, as messages call it, names. Raises `MisuseError` for another table's column.

    A text is the name of a column.
    """
    if isinstance(named, str):
        if named not in table.c:
            raise MisuseError(f"{table.name} has no column {named!r} for {user}.", field=named)
        return table.c[named]
    column = plain_column(named, user)
    assert not isinstance(column, str)
    _check_table(table, named, column, user)
    return column


def plain_column(named: ColumnName, user: str) -> str | Column[object]:
    """A text as it is; otherwise the column. Raises `MisuseError` for what is neither."""
    if isinstance(named, (str, Column)):
        return named
    column: object = None
    if isinstance(named, MappedColumn):
        column = named.column
    elif isinstance(named, QueryableAttribute) and isinstance(named.class_, type):
        column = class_mapper(named.class_, configure=False).columns.get(named.key)
    if not isinstance(column, Column):
        raise MisuseError(
            f"{user} takes names of columns, or attributes that are columns, not {_shown(named)}. In the body of an "
            "SQLModel class, a field has no name yet: give the name."
        )
    return column


def own_column(named: ColumnName, user: str) -> str | Column[object]:
    """As `plain_column`, but the name of a column that has a table: a constraint of it would be added to that table."""
    column = plain_column(named, user)
    return column if isinstance(column, str) or column.table is None else column.key


def checked_at_table(constraint: Constraint, columns: Sequence[ColumnName], user: str) -> None:
    """Let the constraint raise `MisuseError` if it becomes that of a table to which one of ``columns`` is foreign.

    SQLAlchemy would accept the column of another table.
    """
    others = [each for each in columns if not isinstance(each, str)]
    if not others:
        return

    def check(_: object, table: Table) -> None:
        for each in others:
            column_in(table, each, user)

    event.listen(constraint, "before_parent_attach", check)


def _check_table(table: Table, named: ColumnName, column: Column[object], user: str) -> None:
    if column.table is table:
        return
    owner = "another class" if column.table is None else str(column.table)
    raise MisuseError(
        f"{_shown(named)} is a column of {owner}, not of {table.name}, so {user} can't name it there. Name a "
        "column of a mixin as a text.",
        field=column.key,
    )


def _shown(named: object) -> str:
    if isinstance(named, QueryableAttribute):
        return str(named)
    if isinstance(named, MappedColumn):
        return "the column" if named.column.key is None else repr(named.column.key)
    return str(named) if isinstance(named, Column) else type(named).__name__


def role_key(mapper: Mapper[Any], role: str) -> str | None:
    """What a class's ``__tenant_column__`` and its like name: the key or the name of a column. None: it names none.

    The value can be a text, or the column itself: of the class, of a mixin, or an attribute of a parent class. Raises
    `MisuseError` for a column of another class.
    """
    model: type = mapper.class_
    named: object = getattr(model, f"__{role}_column__", None)
    if named is None or isinstance(named, str):
        return named
    if isinstance(named, MappedColumn):
        own = next((key for key, column in mapper.columns.items() if column is named.column), None)
        inherited = (key for base in model.__mro__ for key, value in vars(base).items() if value is named)
        key = own or next((key for key in inherited if not key.startswith("__")), None)
        if key is not None:
            return key
    name = f"{model.__name__}.__{role}_column__"
    if isinstance(named, QueryableAttribute) and isinstance(named.class_, type):
        if issubclass(model, named.class_):
            return named.key
        raise MisuseError(f"{name} names {named}, which is not a column of {model.__name__}.", field=named.key)
    raise MisuseError(f"{name} takes the name of a column, or a column of the class, not {type(named).__name__}.")
