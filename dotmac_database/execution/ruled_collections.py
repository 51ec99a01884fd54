"""Rules the statements of ``dynamic`` and ``write_only`` relationships, which the user extends and sends himself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState
from sqlalchemy.orm.base import instance_state

from ..errors import MisuseError
from .hiding import RULED_LOAD, HiddenAttribute, rules_of_object

_SELECT = "select"
"""The value of `RULED_LOAD` for statements that the user extends: what he makes of them writes without rules."""


@dataclass(frozen=True)
class RuledCollection:
    """Rules the statements of a ``dynamic`` or ``write_only`` relationship, which the user extends and sends."""

    key: str

    def __call__(self, entity: object, statement: Any) -> Any:
        """The statement with the rules of the entity. Raises `MisuseError` for one that writes rows with a policy."""
        state: InstanceState[object] = instance_state(entity)
        rules = rules_of_object(state)
        if rules is None:
            return statement
        if rules.hides_relationship(state.mapper, self.key):
            HiddenAttribute(state.class_.__name__, self.key).refuse()
        target = state.mapper.relationships[self.key].mapper
        if getattr(statement, "is_dml", False):
            if rules.rules_relationship(state.mapper, self.key):
                raise _unruled_write(target)
            return statement
        return statement.options(*rules.select_options(target)).execution_options(**{RULED_LOAD: _SELECT})


def refuse_write_of_select(execution: ORMExecuteState) -> None:
    """Raise `MisuseError` for an UPDATE or DELETE that was made of the `Query` of a ``dynamic`` relationship."""
    if execution.execution_options.get(RULED_LOAD) == _SELECT and execution.bind_mapper is not None:
        raise _unruled_write(execution.bind_mapper)


def _unruled_write(mapper: Mapper[Any]) -> MisuseError:
    name = mapper.class_.__name__
    return MisuseError(f"The rows of {name} are ruled by a policy: write them by a repository of {name}.")
