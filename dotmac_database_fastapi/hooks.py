"""Hooks of the user's, which are called before and after each row that a generated endpoint writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import isawaitable
from typing import Any

from pydantic import BaseModel
from sqlalchemy import inspect as sa_inspect

from dotmac_database import MisuseError, ValidationError, named_values

from .aliases import Data, Endpoint, Repository
from .refused_rows import row_at

NAMES = ("before_create", "after_create", "before_update", "after_update", "before_delete", "after_delete")


class Hooks:
    """The hooks of one router, taken from an object of the user's that has any of these methods, async or not:

    - ``before_create(data, repository) -> data``, ``after_create(entity, repository)``
    - ``before_update(entity_id, data, repository) -> data``, ``after_update(entity, repository)``
    - ``before_delete(entity_id, repository)``, ``after_delete(entity_id, repository)``

    Each is called once for each row, in the request's transaction. ``data`` is the object of the schema, and a hook
    returns the data to write: the same object, another one, or a dict. What a hook raises rolls back the request.
    ``hooks`` None: there are none. Raises `ValidationError` for a class, and for an attribute whose name begins like
    that of a hook and is none.
    """

    def __init__(self, hooks: object | None) -> None:
        if isinstance(hooks, type):
            raise ValidationError(f"hooks: an object was expected, not the class {hooks.__name__}.", field="hooks")
        self._hooks: dict[str, Endpoint] = {}
        for name in () if hooks is None else dir(hooks):
            if name in NAMES:
                hook = getattr(hooks, name)
                if not callable(hook):
                    raise ValidationError(f"hooks: {name} is not a function.", field="hooks")
                self._hooks[name] = hook
            elif name.startswith(("before_", "after_")):
                known = ", ".join(NAMES)
                raise ValidationError(f"hooks: there is no hook {name!r}. There are: {known}.", field="hooks")

    def has(self, operation: str) -> bool:
        """Whether there is a hook before or after this operation: ``create``, ``update`` or ``delete``."""
        return f"before_{operation}" in self._hooks or f"after_{operation}" in self._hooks

    def has_after(self, operation: str) -> bool:
        """Whether there is a hook after this operation."""
        return f"after_{operation}" in self._hooks

    async def before_create(self, data: Data, repository: Repository) -> Data:
        """The data of a new row."""
        return await self._data("before_create", repository, data, data, repository)

    async def before_update(self, key: object, data: Data, repository: Repository) -> Data:
        """The data of a change of the row with this primary key."""
        return await self._data("before_update", repository, data, key, data, repository)

    async def before_delete(self, key: object, repository: Repository) -> None:
        """Call the hook before the row with this primary key is deleted."""
        await self._call("before_delete", key, repository)

    async def after(self, operation: str, subject: object, repository: Repository) -> None:
        """Call the hook after an operation on the entity, or on the deleted primary key.

        What the hook has changed in the session is flushed, so that the entity has its new values.
        """
        if self.has_after(operation):
            await self._call(f"after_{operation}", subject, repository)
            await self._flush([] if operation == "delete" else [subject], repository)

    async def after_many(self, operation: str, entities: Sequence[object], repository: Repository) -> None:
        """As `after`, for each of many entities. An error of the toolkit has the ``index`` of its row."""
        if self.has_after(operation):
            for index, entity in enumerate(entities):
                with row_at(index):
                    await self._call(f"after_{operation}", entity, repository)
            await self._flush(entities, repository)

    async def _flush(self, entities: Sequence[object], repository: Repository) -> None:
        session, columns = repository.db, repository.traits.columns.keys()
        await session.flush()
        for entity in entities:
            state: Any = sa_inspect(entity)
            expired = (state.expired_attributes & columns) - repository.hidden_columns(type(entity))
            if expired and state.persistent:
                await session.refresh(entity, list(expired))

    async def _data(self, name: str, repository: Repository, data: Data, *arguments: object) -> Data:
        if name not in self._hooks:
            return data
        changed = await self._call(name, *arguments)
        if isinstance(changed, BaseModel):
            return changed
        if isinstance(changed, Mapping):
            return named_values(repository.model_class, changed)
        raise MisuseError(f"The hook {name} must return the data to write: a dict or a Pydantic object.")

    async def _call(self, name: str, *arguments: object) -> object:
        hook = self._hooks.get(name)
        result: object = None if hook is None else hook(*arguments)
        return await result if isawaitable(result) else result
