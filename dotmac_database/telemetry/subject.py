"""What a statement is about: the operation, the model and the table, in a bounded number of values."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Delete, Insert, Select, Table, Update
from sqlalchemy import inspect as sa_inspect

from ..observers import Statement
from ..sqlalchemy_internals import all_mappers
from .origin import origin
from .text import verb

MAX_MODELS = 500
"""The most models and tables that are told apart. Beyond that, a name is ``other``."""


class Subject(NamedTuple):
    """What a statement is about.

    ``operation`` is the repository's method, or the statement's verb in lower case if no repository sends it. ``model``
    is the name of the mapped class, and ``table`` that of its table; the empty text if neither is known. ``tenant`` is
    that of the repository, or None.
    """

    operation: str
    verb: str
    model: str = ""
    table: str = ""
    tenant: object = None


def subject_of(statement: Statement) -> Subject:
    """What a statement is about. Call it in the thread or greenlet that sends the statement."""
    first = verb(statement.sql)
    source = origin()
    if source is not None:
        model, table = _names(source.model)
        return Subject(source.operation, first, model, table, source.tenant)
    model, table = ("", "") if statement.source is None else _subject_of_source(statement.source)
    return Subject(first.lower(), first, model, table)


@lru_cache(maxsize=MAX_MODELS)
def _names(model: type) -> tuple[str, str]:
    """The names of a mapped class and of its table."""
    table: object = sa_inspect(model).local_table
    return model.__name__, table.name if isinstance(table, Table) else ""


_SOURCES: WeakKeyDictionary[object, tuple[str, str]] = WeakKeyDictionary()
"""The names of the model and the table of SQLAlchemy's statements, which its cache of compiled statements keeps."""

_MODELS: WeakKeyDictionary[Table, str] = WeakKeyDictionary()
_NAMES: set[str] = set()


def _subject_of_source(source: object) -> tuple[str, str]:
    known = _SOURCES.get(source)
    if known is None:
        known = _SOURCES[source] = _read(source)
    return known


def _read(source: object) -> tuple[str, str]:
    if isinstance(source, Select):
        for column in source.column_descriptions:
            entity = column.get("entity")
            if isinstance(entity, type):
                return _names(entity)
        source = next(iter(source.get_final_froms()), None)
    elif isinstance(source, (Insert, Update, Delete)):
        entity = source.entity_description.get("entity")
        if isinstance(entity, type):
            return _names(entity)
        source = source.table
    return (_model_of(source), _bounded(source.name)) if isinstance(source, Table) else ("", "")


def _model_of(table: Table) -> str:
    """The name of the class that is mapped to a table, the base class if there are several."""
    if table not in _MODELS:
        for mapper in all_mappers():
            if isinstance(mapper.local_table, Table) and mapper.inherits is None:
                _MODELS.setdefault(mapper.local_table, mapper.class_.__name__)
        _MODELS.setdefault(table, "")
    return _MODELS[table]


def _bounded(name: str) -> str:
    """The name, or ``other`` if there are too many tables: an app can make tables while it runs."""
    if name in _NAMES:
        return name
    if len(_NAMES) >= MAX_MODELS:
        return "other"
    _NAMES.add(name)
    return name
