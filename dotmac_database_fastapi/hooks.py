"""Hooks of the user's, which are called before and after each row that a generated endpoint writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import isawaitable
from typing import Any

from pydantic import BaseModel
from sqlalchemy import inspect as sa_inspect

from dotmac_database import MisuseError, ValidationError

from .aliases import Data, Endpoint, Repository

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
                similar = get_close_matches(name, NAMES, 1)
                meant = f"Did you mean {similar[0]!r}?" if similar else f"There are: {', '.join(NAMES)}."
                raise ValidationError(f"hooks: there is no hook {name!r}. {meant}", field="hooks")

    def has(self, operation: str) -> bool:
        """Whether there is a hook before or after this operation: ``create``, ``update`` or ``delete``."""
        return f"before_{operation}" in self._hooks or f"after_{operation}" in self._hooks

    async def before_create(self, data: Data, repository: Repository) -> Data:
        """The data of a new row."""
        return await self._data("before_create", data, data, repository)

    async def before_update(self, key: object, data: Data, repository: Repository) -> Data:
        """The data of a change of the row with this primary key."""
        return await self._data("before_update", data, key, data, repository)

    async def before_delete(self, key: object, repository: Repository) -> None:
        """Call the hook before the row with this primary key is deleted."""
        await self._call("before_delete", key, repository)

    async def after(self, operation: str, subjects: Sequence[object], repository: Repository) -> None:
        """Call the hook after an operation, for each of the entities, or for each of the deleted primary keys.

        What the hook has changed in the session is flushed, so that the entities have their new values.
        """
        name = f"after_{operation}"
        if name not in self._hooks:
            return
        for subject in subjects:
            await self._call(name, subject, repository)
        session, columns = repository.db, repository.traits.columns.keys()
        await session.flush()
        for entity in subjects if operation != "delete" else ():
            state: Any = sa_inspect(entity)
            expired = state.expired_attributes & columns
            if expired and state.persistent:
                await session.refresh(entity, list(expired))

    async def _data(self, name: str, data: Data, *arguments: object) -> Data:
        if name not in self._hooks:
            return data
        changed = await self._call(name, *arguments)
        if isinstance(changed, (BaseModel, Mapping)):
            return changed
        raise MisuseError(f"The hook {name} must return the data to write: a dict or a Pydantic object.")

    async def _call(self, name: str, *arguments: object) -> object:
        hook = self._hooks.get(name)
        result: object = None if hook is None else hook(*arguments)
        return await result if isawaitable(result) else result
