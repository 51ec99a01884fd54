"""The columns that policies hide from the actor of a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy.sql.visitors import iterate

from dotmac_database import Traits, traits_of

from .aliases import Repository


@dataclass(frozen=True)
class Hidden:
    """The hidden columns of some classes, as pairs of a class and an attribute.

    ``is_ruled``: a policy rules which rows of the list's class the actor can read. Then its totals can't be estimated
    by the planner, whose estimate is one of all rows. False without any columns: no policy changes what is shown.
    """

    columns: frozenset[tuple[type, str]] = frozenset()
    is_ruled: bool = False

    def __bool__(self) -> bool:
        return self.is_ruled or bool(self.columns)

    def of(self, traits: Traits[object]) -> frozenset[str]:
        """The hidden columns of one class."""
        return frozenset(name for model, name in self.columns if model is traits.model)

    def hides(self, traits: Traits[object], path: str) -> bool:
        """Whether a dotted path from a class leads to a hidden column, into its JSON, or to what is computed of it."""
        owner = traits
        for part in path.split("."):
            synonym = owner.mapper.synonyms.get(part)
            name = part if synonym is None else synonym.name
            if (owner.model, name) in self.columns:
                return True
            if name not in owner.relationships:
                return name not in owner.columns and self._computes(owner, name)
            owner = traits_of(owner.relationships[name].mapper.class_)
        return False

    def _computes(self, owner: Traits[object], name: str) -> bool:
        """Whether an expression reads a hidden column of any of the classes, also under an alias of its table."""
        expression = owner.public_expression(name) if self._read else None
        if expression is None:
            return False
        return any(not self._read.isdisjoint(getattr(part, "base_columns", ())) for part in iterate(expression))

    @cached_property
    def _read(self) -> frozenset[object]:
        """The hidden columns as expressions have them."""
        attributes = (traits_of(model).mapper.column_attrs[name] for model, name in self.columns)
        return frozenset(column for each in attributes for column in each.columns)


NOTHING = Hidden()


def hidden_from(repository: Repository, models: Iterable[type]) -> Hidden:
    """What the policies of a repository hide of these classes from its actor. No I/O."""
    columns = frozenset((model, name) for model in models for name in repository.hidden_columns(model))
    return Hidden(columns, repository.is_ruled)


def models_on(traits: Traits[object], paths: Iterable[str]) -> frozenset[type]:
    """The class itself, and the classes to which dotted paths from it lead."""
    models = {traits.model}
    for path in paths:
        owner = traits
        for part in path.split("."):
            if part not in owner.relationships:
                break
            owner = traits_of(owner.relationships[part].mapper.class_)
            models.add(owner.model)
    return frozenset(models)
