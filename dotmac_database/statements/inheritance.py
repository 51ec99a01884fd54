"""Statements for joined inheritance, where an entity has a row in each of several tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, bindparam, delete, false, select, tuple_
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import ColumnElement

from ..errors import MisuseError
from ..models.inheritance import joined_columns
from ..models.traits import Traits
from .filters import Analysis
from .reads import Bound, Reader

KEYS = "dotmac_keys"

BATCH = 5_000
"""The most keys of one statement. `batch_of` reduces it to the driver's limit of parameters."""


@dataclass(frozen=True, slots=True)
class Level:
    """One table of a class with joined inheritance.

    ``model`` is the class that is mapped to this table itself. ``key`` are the columns that equal the root's primary
    key.
    """

    model: type[object]
    table: Table
    key: tuple[Column[object], ...]


def root_of(mapper: Mapper[object]) -> Mapper[object]:
    """The topmost class whose table contains a part of the entity. A concrete class is the root of its own tree."""
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper


def levels_of(traits: Traits[Any]) -> tuple[Level, ...]:
    """The tables that can contain rows of the class's entities, children first. Joined inheritance has more than one.

    The tables of subclasses are included, because an entity that is read as its parent's class has rows there, too.
    Raises `ValidationError` if a table is joined to its parent's by columns other than the primary key.
    """
    return traits.cached(("levels", len(list(traits.mapper.self_and_descendants))), lambda: _levels(traits.mapper))


def spreads(traits: Traits[Any]) -> bool:
    """Whether entities of the class or its subclasses have rows in several tables."""
    return len(levels_of(traits)) > 1


def keys_of(reader: Reader, where: Sequence[ColumnElement[bool]]) -> object:
    """SELECT … FOR UPDATE of the primary keys of the matching rows. The parameter ``dotmac_limit`` limits their number.

    A SELECT finds the keys, because the ORM joins the tables of a class in a SELECT, but not in an UPDATE or DELETE.
    """
    traits = reader.traits
    keys = [traits.attribute(key) for key in traits.primary_key]
    statement = select(*keys).where(*where).limit(bindparam("dotmac_limit"))
    return statement.with_for_update(of=list(traits.tables))


def matching(reader: Reader, analysis: Analysis) -> Bound:
    """`keys_of` for the rows that match the filters, with the limit `batch_of`."""
    parameters = {**reader.scope.parameters, **analysis.parameters, "dotmac_limit": batch_of(reader)}
    return Bound(
        reader.cached(("key set", analysis.shape), lambda: keys_of(reader, reader.where(analysis))), parameters
    )


def of_key(reader: Reader, key: tuple[object, ...]) -> Bound:
    """`keys_of` for the row with a primary key. It finds no row if the row is not in the scope."""
    where = [*reader.key_conditions(), *reader.scope.root(reader.traits)]
    parameters = {**reader.scope.parameters, **reader.key_parameters(key), "dotmac_limit": 1}
    return Bound(reader.cached(("key set of one",), lambda: keys_of(reader, where)), parameters)


def batch_of(reader: Reader) -> int:
    """The most keys of one statement. It leaves room for 100 parameters that a guarded session can add."""
    return max(1, min(BATCH, reader.dialect.max_parameters // len(reader.traits.primary_key) - 100))


def deletions(reader: Reader, keys: Sequence[tuple[object, ...]]) -> Iterator[Bound]:
    """For each table the DELETE of the rows with these keys, children first.

    Each DELETE is of the class that is mapped to this table itself, so that a guarded session can confine it.
    """
    traits = reader.traits
    single = len(traits.primary_key) == 1
    values = [key[0] for key in keys] if single else [tuple(key) for key in keys]
    for place, level in enumerate(levels_of(traits)):

        def make(level: Level = level) -> object:
            target: Any = level.key[0] if single else tuple_(*level.key)
            parameter = bindparam(KEYS, type_=level.key[0].type if single else None, expanding=True)
            return delete(level.model).where(target.in_(parameter))

        yield Bound(reader.cached(("delete keys", place), make), {KEYS: values})


def nothing(reader: Reader) -> object:
    """A DELETE that matches no row. It takes the write lock of a database that has only one (SQLite)."""
    if reader.traits.takes_statements and not spreads(reader.traits):
        return delete(reader.traits.model).where(*reader.scope.root(reader.traits), false())
    root = root_of(reader.traits.mapper)
    return delete(root.class_ if isinstance(root.local_table, Table) else reader.traits.tables[0]).where(false())


def _levels(mapper: Mapper[object]) -> tuple[Level, ...]:
    root = root_of(mapper)
    keys: dict[Any, tuple[Any, ...]] = {}
    owners: dict[object, type[object]] = {}
    for each in (*reversed(list(_upwards(mapper, root))), *_downwards(mapper, root)):
        table = each.local_table
        if not isinstance(table, Table) or table in keys:
            continue
        owners[table] = each.class_
        parent = each.inherits
        if each is root or parent is None:
            keys[table] = tuple(each.primary_key)
            continue
        own_columns = joined_columns(each)
        try:
            keys[table] = tuple(own_columns[column] for column in keys[parent.local_table])
        except KeyError:
            raise MisuseError(
                f"{each.class_.__name__} is joined to {parent.class_.__name__} by columns other than the primary key, "
                "so its rows can't be deleted by key."
            ) from None
    return tuple(Level(owners[table], table, key) for table, key in reversed(keys.items()))


def _upwards(mapper: Mapper[object], root: Mapper[object]) -> Iterator[Mapper[object]]:
    """The class and its parents, up to the root."""
    for each in mapper.iterate_to_root():
        yield each
        if each is root:
            return


def _downwards(mapper: Mapper[object], root: Mapper[object]) -> Iterator[Mapper[object]]:
    """The subclasses, parents before their children.

    Concrete subclasses are left out, because the root's table contains nothing of their rows.
    """
    for each in mapper.self_and_descendants:
        if each is not mapper and root_of(each) is root:
            yield each
