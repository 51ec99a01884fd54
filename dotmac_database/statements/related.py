"""Which relationships a read loads, and the SELECT of a relationship with options of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.orm import RelationshipProperty, aliased

from ..errors import MisuseError
from ..field_names import name_for, one_or_more
from ..models.traits import Traits, traits_of
from ..query import OptionsLike, QueryOptions, RelationshipsLike, options_of
from .keyset import order_by
from .ordering import Order, order_of
from .paths import relationship_of
from .reads import Bound, Reader
from .scope import RowRules

M = TypeVar("M")
Statement: TypeAlias = Any  # type checkers have an overload of select() for each number of columns


@dataclass
class Branch:
    """A relationship that a read loads: its options, and the relationships of the related rows, by name."""

    options: QueryOptions | None = None
    branches: dict[str, Branch] = field(default_factory=dict)

    @property
    def plain(self) -> Iterator[str]:
        """The dotted paths below that are loaded without options, up to the first relationship that has some."""
        for name, branch in self.branches.items():
            if branch.options is None:
                yield name
                yield from (f"{name}.{path}" for path in branch.plain)

    @property
    def has_options(self) -> bool:
        """Whether a relationship below has options."""
        return any(branch.options is not None or branch.has_options for branch in self.branches.values())


def branches_of(traits: Traits[M], relationships: RelationshipsLike, rules: RowRules | None = None) -> Branch:
    """The relationships that a read loads, as a tree. Raises `ValidationError` for options that make no sense.

    A relationship that ``rules`` hide is unknown.
    """
    root = Branch()
    _add(traits_of(traits.mapper.class_), root, relationships, rules)
    return root


def _add(traits: Traits[object], root: Branch, relationships: RelationshipsLike, rules: RowRules | None) -> None:
    by_path: Mapping[object, OptionsLike]
    by_path = relationships if isinstance(relationships, Mapping) else dict.fromkeys(one_or_more(relationships))
    for key, each in by_path.items():
        path = name_for(traits.model, key)
        first, *further = path.split(".")
        relationship = relationship_of(traits, first, path, rules)
        branch = root.branches.setdefault(first, Branch())
        for part in further:
            relationship = relationship_of(traits_of(relationship.mapper.class_), part, path, rules)
            branch = branch.branches.setdefault(part, Branch())
        options = options_of(each)
        _check(path, relationship, options)
        if options.filters or options.sorts or options.pagination or options.include_deleted:
            branch.options = options
        _add(traits_of(relationship.mapper.class_), branch, options.relationships, rules)


def _check(path: str, relationship: RelationshipProperty[object], options: QueryOptions) -> None:
    """Raise `ValidationError` for options that a relationship can't have."""
    if options.cursor_pagination is not None:
        raise MisuseError(f"{path}: related rows have no cursors; use pagination.", field=path)
    if not relationship.uselist and (options.sorts or options.pagination):
        raise MisuseError(f"{path} leads to one row, so that it has no sorts and no pagination.", field=path)
    if options != QueryOptions() and relationship.lazy in ("dynamic", "write_only", "noload"):
        raise MisuseError(f"{path} is a {relationship.lazy} relationship, which can't be loaded.", field=path)


def order_of_related(reader: Reader, options: QueryOptions) -> Order:
    """The total order of the related rows of one parent."""
    return order_of(reader.traits, options.sorts, rules=reader.scope.rules)


def related(
    reader: Reader,
    parent: Reader,
    relationship: RelationshipProperty[object],
    options: QueryOptions,
    keys: Sequence[tuple[object, ...]],
) -> Bound:
    """The SELECT of the related rows of some parents, each row with the key of its parent, in the parent's order.

    ``reader`` is that of the related class. The rows of each parent are numbered by a window function, so that one
    statement limits them within each parent.
    """
    analysis = reader.analysed(options.filters)
    order = order_of_related(reader, options)
    page = options.pagination

    def build() -> Statement:
        target, owner = reader.traits, aliased(parent.traits.model)
        columns: list[Any] = [getattr(owner, name) for name in parent.traits.primary_key]
        own = [target.attribute(name) for name in target.primary_key]
        number: Statement = func.row_number().over(
            partition_by=columns, order_by=order_by([each.term for each in reader.terms(order)])
        )
        labels: list[Any] = [each.label(f"k{place}") for place, each in enumerate(columns)]
        labels += [each.label(f"t{place}") for place, each in enumerate(own)]
        ranked: Statement = (
            select(*labels, number.label("n"))
            .select_from(owner)
            .join(getattr(owner, relationship.key))
            .where(parent.dialect.row_among(columns, "dotmac_keys"))
            .where(*parent.scope.of(parent.traits, owner), *reader.where(analysis))
            .subquery("dotmac_related")
        )
        same = [each == ranked.c[f"t{place}"] for place, each in enumerate(own)]
        statement: Statement = select(target.model, *(ranked.c[f"k{place}"] for place in range(len(columns))))
        statement = statement.join(ranked, and_(*same)).where(*reader.scope.of(target)).order_by(ranked.c.n)
        if page is not None:
            first = bindparam("dotmac_offset", type_=ranked.c.n.type)
            last = bindparam("dotmac_last", type_=ranked.c.n.type)
            statement = statement.where(ranked.c.n > first, ranked.c.n <= last)
        return statement

    parameters = {**reader.scope.parameters, **analysis.parameters, **reader.search_parameters(options.filters, order)}
    parent_key: list[Any] = [parent.traits.attribute(name) for name in parent.traits.primary_key]
    parameters |= parent.dialect.row_parameters(parent_key, "dotmac_keys", keys)
    if page is not None:
        parameters |= {"dotmac_offset": page.offset, "dotmac_last": page.offset + page.limit}
    belongs = (parent.traits.model, relationship.key, parent.scope.shape)
    return Bound(reader.cached(("related", analysis.shape, order, page is not None, belongs), build), parameters)
