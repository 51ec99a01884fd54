"""What a statement is about: the operation, the model and the table, in a bounded number of values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import Delete, Insert, Select, Table, Update
from sqlalchemy import inspect as sa_inspect

from ..observers import Statement
from ..sqlalchemy_internals import all_mappers
from .origin import origin
from .text import sanitised, verb

MAX_MODELS = 500
"""The most models and tables that are told apart. Beyond that, a name is ``other``."""

MAX_SUBJECTS = 1024
"""The most texts of statements whose subjects are remembered."""


@dataclass(frozen=True, eq=False, slots=True)
class Subject:
    """What a statement is about. The same one is used for all statements of a text from the same method.

    ``operation`` is the repository's method, or the statement's verb in lower case if no repository sends it. ``model``
    is the name of the mapped class, and ``table`` that of its table; the empty text if neither is known. ``sql`` is the
    text without literals.
    """

    operation: str
    verb: str
    model: str
    table: str
    sql: str


_Names: TypeAlias = tuple[str, str]
_SUBJECTS: dict[tuple[type | _Names, str, str], Subject] = {}
"""The subjects, by the model (its class, or its name and that of the table), the operation and the statement's text."""


def subject_of(statement: Statement) -> tuple[Subject, object]:
    """What a statement is about, and the tenant of the repository that sends it, or None.

    Call it in the thread or greenlet that sends the statement.
    """
    sender = origin()
    key: tuple[type | _Names, str, str]
    if sender is None:
        tenant: object = None
        key = ("", "") if statement.source is None else _subject_of_source(statement.source), "", statement.sql
    else:
        operation, repository = sender
        tenant = repository.tenant_id
        key = repository.model_class, operation, statement.sql
    return _SUBJECTS.get(key) or _new_subject(*key), tenant


def _new_subject(model: type | _Names, operation: str, sql: str) -> Subject:
    first = verb(sql)
    names = model if isinstance(model, tuple) else _names(model)
    subject = Subject(operation or first.lower(), first, *names, sanitised(sql))
    if len(_SUBJECTS) >= MAX_SUBJECTS:
        _SUBJECTS.clear()
    _SUBJECTS[model, operation, sql] = subject
    return subject


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
