"""The sizes of all caches of the toolkit, and the bounds that they must not exceed."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from sqlalchemy import Engine, event

from dotmac_database import known_methods
from dotmac_database.execution import compiling, driver
from dotmac_database.models import traits as traits_module
from dotmac_database.models.traits import traits_of
from dotmac_database.tenancy.rls.verification import expectations
from dotmac_database_fastapi import internals

_PACKAGES = ("dotmac_database", "dotmac_database_fastapi")
_CONTAINERS = (dict, set, list, WeakKeyDictionary, WeakValueDictionary, WeakSet)
_CACHED_STATEMENTS = "dotmac_database.models.traits._CACHED_STATEMENTS"
_BOUNDS = {
    "dotmac_database.departures._KNOWN_BY_CLASS": known_methods.MAX_CLASSES,
    "dotmac_database.known_methods._CHECKED_CLASSES": known_methods.MAX_CLASSES,
    "dotmac_database.tenancy.rls.verification.expectations._PRINTED": expectations._LIMIT,
    "dotmac_database_fastapi.internals._KNOWN": internals._MOST_KEPT,
    "dotmac_database_fastapi.internals._DEPENDANTS": internals._MOST_KEPT,
}
"""The bounds of global dictionaries that are emptied when they are full."""


@dataclass(frozen=True)
class Size:
    """The number of entries of a cache, and the highest number that it may have.

    None: it has no bound of its own, because it has an entry for each class, function or engine of the app. Such a
    cache must not grow after the first quarter of a run.
    """

    entries: int
    bound: int | None


class Caches:
    """The caches that the calls on some engines with some mapped classes use."""

    def __init__(self, models: Collection[Any], engines: Collection[Engine]) -> None:
        self._models = models
        self._engines = engines
        self._records: list[Any] = []
        # Those of other classes, as in a test run.
        self._other_statements = len(traits_module._CACHED_STATEMENTS)
        for engine in engines:
            event.listen(engine, "connect", self._note)

    def close(self) -> None:
        """Forget the connections."""
        for engine in self._engines:
            event.remove(engine, "connect", self._note)

    def _note(self, _connection: Any, record: Any) -> None:
        self._records.append(record)

    _note.dotmac_observes = True  # type: ignore[attr-defined]  # the driver may still send statements

    def sizes(self) -> dict[str, Size]:
        """The sizes of all caches by their places."""
        sizes = dict(_of_modules())
        statements = 0
        for model in self._models:
            traits = traits_of(model)
            statements += len(traits.statements)
            sizes[f"statements of {model.__name__}"] = Size(len(traits.statements), traits_module.MAX_SHAPES)
            # Columns, relationships, synonyms and attributes with a setter: other tests of the process use them too.
            names = len(traits.mapper.all_orm_descriptors)
            sizes[f"fields of {model.__name__}"] = Size(len(traits.fields), names)
        for number, engine in enumerate(self._engines):
            own = vars(engine.dialect)
            compiled = len(own.get(compiling._COMPILED, ()))
            sizes[f"compiled statements of engine {number}"] = Size(compiled, compiling._MAX_COMPILED)
            # A statement lives as long as a cache refers to it: that of its class, that of the compiled statements of
            # any engine, or the last call.
            most = statements + len(self._engines) * (compiling._MAX_COMPILED + 1)
            sizes[f"driver's statements of engine {number}"] = Size(
                len(own.get(compiling._DRIVER_STATEMENTS, ())), most
            )
            sizes[_CACHED_STATEMENTS] = Size(sizes[_CACHED_STATEMENTS].entries, self._other_statements + most)
        for number, record in enumerate(self._records):
            entries = len(record.info.get(driver._PROCESSORS, ()))
            sizes[f"conversions of connection {number}"] = Size(entries, driver._MAX_PROCESSORS)
        return sizes

    def clear(self) -> None:
        """Empty the caches that are full or empty by chance, before the memory is measured."""
        for model in self._models:
            traits_of(model).statements.clear()
        for engine in self._engines:
            vars(engine.dialect).get(compiling._COMPILED, {}).clear()
            engine.clear_compiled_cache()
        for record in self._records:
            record.info.get(driver._PROCESSORS, {}).clear()


def _of_modules() -> Iterator[tuple[str, Size]]:
    """The caches of functions, and all containers that are global, or attributes of a class, in the packages."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] not in _PACKAGES:
            continue
        for key, value in sorted(vars(module).items()):
            if callable(value) and getattr(value, "__module__", name) != name:
                continue  # imported from the module that has it
            yield from _of_value(f"{name}.{key}", value)
            if isinstance(value, type):
                for attribute, part in sorted(vars(value).items()):
                    yield from _of_value(f"{name}.{key}.{attribute}", part)


def _of_value(place: str, value: Any) -> Iterator[tuple[str, Size]]:
    if place.rpartition(".")[2].startswith("__"):
        return
    if callable(getattr(value, "cache_info", None)):
        info = value.cache_info()
        yield place, Size(info.currsize, info.maxsize)
    elif isinstance(value, _CONTAINERS):
        yield place, Size(len(value), _BOUNDS.get(place))
