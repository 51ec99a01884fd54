"""What a statement touches: tenants' tables, and text that no one can see through.

Read once per compiled statement, as SQLAlchemy caches those by shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import CTE, Select, Table
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import visitors
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnClause, Extract, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import (
    Alias,
    AliasedReturnsRows,
    Join,
    SelectBase,
    Subquery,
    TableSample,
    TextualSelect,
)

from ..dialects.explain import Explain
from .tables import TABLES

# A name, a number or a star can carry no condition and no subselect.
_HARMLESS = re.compile(
    r"\s*(?:\*|-?\d+|'[\w ]*'(?:::[a-z]+(?:\[\])?)?|'\{\}'::text\[\]|[A-Za-z_][\w.]*(?:\s+(?:asc|desc))?)\s*\Z",
    re.IGNORECASE,
)
_SUSPECT_OPERATOR = re.compile(r"[()';]|--|/\*|\b(?:or|and|union|select)\b", re.IGNORECASE)
# PostgreSQL's functions that run the SQL, or read the table, that their argument names.
_RUNS_SQL = re.compile(
    r"(?:query|table|schema|database|cursor)_to_xml|dblink|set_config|pg_read_|lo_|ts_stat|crosstab|connectby"
)
_OF_THE_ORM = frozenset(("parententity", "parentmapper", "remote", "local", "foreign"))


@dataclass(frozen=True, slots=True)
class Facts:
    """What a compiled statement is made of.

    ``touched`` are the tenants' tables in it, ``named`` one that it names by itself rather than through its class, if
    any, ``within`` one so named in a subquery or a common table expression; ``text`` says that it has a fragment that
    could carry a condition or a subselect.
    """

    touched: frozenset[Table]
    named: str | None
    within: str | None
    text: bool


_FACTS: WeakKeyDictionary[Any, tuple[int, Facts]] = WeakKeyDictionary()


def facts_of(compiled: Any) -> Facts:
    """The facts of a compiled statement, kept for as long as SQLAlchemy keeps it."""
    version = TABLES.current()
    kept = _FACTS.get(compiled)
    if kept is not None and kept[0] == version:
        return kept[1]
    state = getattr(compiled, "compile_state", None)
    final = getattr(state, "statement", None)
    given = compiled.statement.statement if isinstance(compiled.statement, Explain) else compiled.statement
    facts = read(given, given if final is None else final)
    _FACTS[compiled] = version, facts
    return facts


def read(given: Any, final: Any) -> Facts:
    """The facts of a statement, as it was ``given`` and as it is in the end, after the ORM has added its joins."""
    about = _subjects(given)
    touched = {table for table in map(TABLES.table, parts(final)) if table is not None}
    touched |= {table for table in map(TABLES.table, parts(given)) if table is not None}
    text = text_in(given) or (final is not given and text_in(final))
    options = list(_options(given))
    return Facts(
        touched=frozenset(touched),
        named=core_table(given, about),
        within=core_table(given, about, within=True)
        or next((name for each in options for name in (core_table(each, about),) if name), None),
        text=text or any(map(text_in, options)),
    )


def _subjects(statement: Any) -> set[Any]:
    """The tables of the classes that a statement is about, whose own columns are as good as the classes'."""
    found: set[Any] = set()
    for element in (*_entities(statement), getattr(statement, "table", None)):
        entity = getattr(element, "_annotations", {}).get("parententity")
        mapper: Mapper[Any] | None = getattr(entity, "mapper", None)
        if mapper is not None and not getattr(entity, "is_aliased_class", False):
            found.update(mapper.tables)
    return found


def _entities(statement: Any) -> Iterable[Any]:
    if not isinstance(statement, Select):
        return ()
    return (*statement._raw_columns, *statement._from_obj)


def parts(statement: Any) -> Iterator[Any]:
    """Every element of a statement, those beside its clauses too."""
    yield from visitors.iterate(statement)
    for name in ("_prefixes", "_suffixes", "_hints", "_statement_hints"):
        for fragment in getattr(statement, name, None) or ():
            first = fragment[0] if isinstance(fragment, tuple) else fragment
            if hasattr(first, "__visit_name__"):
                yield from visitors.iterate(first)
            elif isinstance(fragment, tuple):
                yield from (TextClause(str(part)) for part in fragment if isinstance(part, str) and part != "*")


def _options(statement: Any) -> Iterator[Any]:
    """The expressions in a statement's loader options: conditions of ``and_()``, of ``with_expression()``, …"""
    for option in getattr(statement, "_with_options", ()):
        if getattr(option, "where_criteria", None) is not None and hasattr(option, "deferred_where_criteria"):
            if option.deferred_where_criteria:
                for mapper in option._all_mappers():
                    yield option.where_criteria._resolve_with_args(mapper.entity)
            else:
                yield option.where_criteria
        for element in getattr(option, "context", ()):
            yield from getattr(element, "_extra_criteria", ())
            local = getattr(element, "local_opts", None) or {}
            yield from (value for value in local.values() if hasattr(value, "__visit_name__"))


def text_in(statement: Any) -> bool:
    """Whether a statement has a fragment of text that could carry a condition or a subselect."""
    return any(map(_opaque, parts(statement)))


def _opaque(element: Any) -> bool:
    if isinstance(element, TextualSelect):
        return True
    if isinstance(element, Select):
        return any(isinstance(source, TextClause) for source in element._from_obj)
    if isinstance(element, Join):
        return isinstance(element.left, TextClause) or isinstance(element.right, TextClause)
    if isinstance(element, TextClause):
        return not _harmless(element.text)
    if isinstance(element, ColumnClause):
        return element.is_literal and not _harmless(str(element.name))
    if isinstance(element, Extract):
        return not element.field.isidentifier()
    if isinstance(element, FunctionElement):
        return _RUNS_SQL.match(str(getattr(element, "name", "")).lower()) is not None
    operator = getattr(element, "operator", None)
    return isinstance(operator, custom_op) and _SUSPECT_OPERATOR.search(operator.opstring) is not None


def _harmless(text: str) -> bool:
    return _HARMLESS.match(text) is not None or text in TABLES.texts


def core_table(statement: Any, about: set[Any], *, within: bool = False) -> str | None:
    """A tenants' table that a statement names by itself, rather than through its class; None: there is none.

    A column of a table that the statement is ``about`` is as good as the class's own, except in a subquery, which may
    be about other rows. ``within``: only what is in subqueries counts.
    """
    for element, inner in _written(statement):
        if inner and isinstance(element, UpdateBase):
            name = TABLES.owns(element.table)
            if name is not None:
                return name  # the ORM does not confine what is written inside of another statement
        if (within and not inner) or _of_the_orm(element):
            continue
        table = _source(element) if isinstance(element, ColumnClause) else element
        name = TABLES.owns(table)
        if name is not None and (inner or table not in about):
            return name
    return None


def entities_beside(statement: Any) -> list[Any]:
    """The mappers and aliases in the statement itself, not in its subqueries, each once."""
    found: dict[Any, None] = {}
    for element, inner in _written(statement):
        entity = None if inner else getattr(element, "_annotations", {}).get("parententity")
        if entity is not None and hasattr(entity, "mapper"):
            found[entity] = None
    return list(found)


def tables_beside(statement: Any) -> set[Any]:
    """The tables whose columns are in the statement itself, not in its subqueries."""
    return {
        _source(element) for element, inner in _written(statement) if not inner and isinstance(element, ColumnClause)
    }


def _of_the_orm(element: Any) -> bool:
    return not _OF_THE_ORM.isdisjoint(getattr(element, "_annotations", ()))


def _source(column: Any) -> Any:
    """What a column is of: a table, also behind an alias, or a subquery."""
    source = column.table
    while isinstance(source, (Alias, TableSample)):
        source = source.element
    return source


def _written(statement: Any) -> Iterator[tuple[Any, bool]]:
    """Every element as it was written, without the tables that SQLAlchemy derives from the columns of a SELECT,
    and whether it is in a statement inside of the statement.
    """
    waiting = [(statement, False)]
    seen: set[tuple[int, bool]] = set()
    while waiting:
        element, inner = waiting.pop()
        inside = inner or (element is not statement and isinstance(element, (SelectBase, CTE, Subquery, UpdateBase)))
        if (id(element), inside) in seen:
            continue
        seen.add((id(element), inside))
        yield element, inside
        waiting.extend((child, inside) for child in _children(element))


def _children(element: Any) -> Iterator[Any]:
    if isinstance(element, (Join, Table, Alias)) and _of_the_orm(element):
        return  # a class's own selectable
    if isinstance(element, ColumnClause):
        source = _source(element)
        if isinstance(source, AliasedReturnsRows):
            yield source  # a subquery or common table expression, which SQLAlchemy finds by its columns
    if isinstance(element, Select):
        yield from super(Select, element).get_children(omit_attrs=("_correlate", "_correlate_except"))
    else:
        yield from element.get_children()
