"""Repositories that read the rows as they were at a moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.sql.visitors import iterate

from ..errors import MisuseError
from ..history.past import Past
from ..models.traits import Traits, traits_of
from ..policies import Policy, Rules
from ..statements.history import history_table
from .core import _SESSIONS, RepositoryCore

M = TypeVar("M")
R = TypeVar("R", bound=RepositoryCore[Any, Any])


def as_of(repository: R, moment: datetime) -> R:
    """A copy of a repository that reads the rows as they were at a moment; see `HistoryMethods.as_of`."""
    history_table(repository.traits)  # raises if there is none
    present = repository._session if repository._past is None else repository._past.present
    past = Past.of(present, present.get_bind(repository.traits.mapper), moment)
    return repository._with(
        _past=past, _session=past.session, db=NoSession(), _strict=True, _rules=PastRules(repository._rules)
    )


class NoSession:
    """Stands in place of the ``db`` of a repository of the past: a statement of one's own would read the present."""

    def __getattr__(self, name: str) -> object:
        """Raise `MisuseError`."""
        raise MisuseError(f"The repository of as_of() has no session, so db.{name} can't be used.")


class PastRules(Rules):
    """Rules that also hide private columns, whose values of the past are in no history."""

    def __init__(self, rules: Rules | None) -> None:
        policies = () if rules is None else rules.policies
        super().__init__(
            policies, _SESSIONS if rules is None else rules.actor, required=rules is not None and rules.required
        )
        self._present = rules

    def replaced(self, policies: Iterable[Policy[Any]], actor: object) -> Rules:
        """As in `Rules`."""
        present = Rules((), actor) if self._present is None else self._present
        return PastRules(present.replaced(policies, actor))

    def hidden(self, traits: Traits[M]) -> frozenset[str]:
        """As in `Rules`, with private columns and the column properties that contain one."""
        return super().hidden(traits) | traits.private

    def reads_hidden(self, expression: Any) -> bool:
        """As in `Rules`."""
        private = any(each.info.get("private") for part in iterate(expression) for each in _columns(part))
        return private or super().reads_hidden(expression)

    def concern(self, traits: Traits[M]) -> bool:
        """As in `Rules`."""
        return super().concern(traits) or any(traits_of(each.class_).private for each in self.reachable(traits.mapper))


def _columns(part: Any) -> Iterable[Any]:
    return getattr(part, "base_columns", ())
