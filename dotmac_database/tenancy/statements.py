"""What a statement touches: tenants' tables, and text that no one can see through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Select, Table
from sqlalchemy.orm import Mapper, configure_mappers
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import SelectBase, TableClause, TextualSelect

from ..models.registered import mappers
from ..models.traits import traits_of

# A name, a number or a star can carry no condition and no subselect.
_HARMLESS = re.compile(
    r"\s*(?:\*|-?\d+|'[\w ]*'(?:::[a-z]+(?:\[\])?)?|'\{\}'::text\[\]|[A-Za-z_][\w.]*(?:\s+(?:asc|desc))?)\s*\Z",
    re.IGNORECASE,
)
_SUSPECT_OPERATOR = re.compile(r"[()';]|--|/\*|\b(?:or|and|union|select)\b", re.IGNORECASE)


class TenantTables:
    """The tables of tenant-scoped classes, kept up to date as classes are mapped."""

    def __init__(self) -> None:
        self._mappers = 0
        self._tables: dict[Table, Mapper[Any] | None] = {}
        self._names: frozenset[str] = frozenset()
        self._roots: tuple[Mapper[Any], ...] = ()

    def _refresh(self) -> None:
        known = mappers()
        if len(known) == self._mappers:
            return
        configure_mappers()
        tables: dict[Table, Mapper[Any] | None] = {}
        roots: list[Mapper[Any]] = []
        for mapper in known:
            if traits_of(mapper.class_).tenant is None:
                continue
            tables.update((table, mapper) for table in mapper.tables if isinstance(table, Table))
            for relationship in mapper.relationships:
                if isinstance(relationship.secondary, Table):
                    tables.setdefault(relationship.secondary, None)
            if mapper.inherits is None or traits_of(mapper.inherits.class_).tenant is None:
                roots.append(mapper)
        self._tables, self._roots, self._mappers = tables, tuple(roots), len(known)
        self._names = frozenset(table.name for table in tables)

    @property
    def roots(self) -> tuple[Mapper[Any], ...]:
        """The mappers that own a tenant column, the topmost of each inheritance tree."""
        self._refresh()
        return self._roots

    def owns(self, element: Any) -> str | None:
        """The name of the tenants' table that ``element`` is, or None."""
        self._refresh()
        if isinstance(element, Table):
            plain = element._deannotate() if element._annotations else element
            return element.name if plain in self._tables else None
        if isinstance(element, TableClause) and element.name in self._names:
            return str(element.name)
        return None


TABLES = TenantTables()
_TOUCHED: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


_OF_THE_ORM = frozenset(("parententity", "parentmapper", "remote", "local", "foreign"))


def written(statement: Any) -> Iterator[tuple[Any, bool]]:
    """Every element as it was written, without the tables that SQLAlchemy derives from the columns of a SELECT,
    and whether it is in a statement inside of the statement.
    """
    waiting = [(statement, False)]
    while waiting:
        element, inner = waiting.pop()
        yield element, inner
        inner = inner or (isinstance(element, SelectBase) and element is not statement)
        children = (
            super(Select, element).get_children(omit_attrs=("_correlate", "_correlate_except"))
            if isinstance(element, Select)
            else element.get_children()
        )
        waiting.extend((child, inner) for child in children)


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


def text_in(statement: Any) -> bool:
    """Whether a statement has a fragment of text that could carry a condition or a subselect."""
    for element in parts(statement):
        if isinstance(element, TextualSelect):
            return True
        if isinstance(element, TextClause) and not _HARMLESS.match(element.text):
            return True
        if isinstance(element, ColumnClause) and element.is_literal and not _HARMLESS.match(str(element.name)):
            return True
        operator = getattr(element, "operator", None)
        if isinstance(operator, custom_op) and _SUSPECT_OPERATOR.search(operator.opstring):
            return True
    return False


def core_tables(statement: Any, mappers: Iterable[Mapper[Any]] = ()) -> str | None:
    """A tenants' table that a statement names by itself, rather than through its class; None: there is none.

    A column of the table of ``mappers``, the classes that the statement is about, is as good as the class's own, except
    in a subquery, which may be about other rows.
    """
    about = {table for mapper in mappers for table in mapper.tables}
    for element, inner in written(statement):
        if not _OF_THE_ORM.isdisjoint(getattr(element, "_annotations", ())):
            continue
        table = getattr(element, "table", None) if isinstance(element, ColumnClause) else element
        name = TABLES.owns(table)
        if name is not None and (inner or table not in about):
            return name
    return None


def touched(compiled: Any) -> str | None:
    """A tenants' table in the statement as it is sent, after the ORM has added its joins; None: there is none."""
    if compiled in _TOUCHED:
        return _TOUCHED[compiled]
    state = getattr(compiled, "compile_state", None)
    statement = getattr(state, "statement", None)
    statement = compiled.statement if statement is None else statement
    found = next((name for name in map(TABLES.owns, parts(statement)) if name is not None), None)
    _TOUCHED[compiled] = found
    return found
