"""The options of a read, in the words of a query string."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ..errors import MisuseError
from ..models import Traits
from ..query import FilterOperator, OffsetParams, PaginationParams, QueryFilter, QueryOptions, SortField, SortOrder
from ..statements.suggestions import shown, suggestion

_LISTS = (
    FilterOperator.IN,
    FilterOperator.NOT_IN,
    FilterOperator.BETWEEN,
    FilterOperator.CONTAINED_BY,
    FilterOperator.OVERLAPS,
)
_NULLS = (FilterOperator.IS_NULL, FilterOperator.IS_NOT_NULL)
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_OPERATORS = {each.value: each for each in FilterOperator}
_FOLDED = "__folded"
_NOT_EXPLAINED = ("cursor", "facets", "fields", "q", "total")
"""The parameters of a list that the CLI can't take: the router alone knows what they mean, or how they are signed."""


@dataclass(frozen=True)
class ReadWords:
    """What the command line says about a read: its options, each as a query string has it."""

    filters: tuple[str, ...] = ()
    sorts: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    numbers: dict[str, int] = field(default_factory=dict)
    """The values of page, per_page, limit and skip."""

    @classmethod
    def of_query(cls, query: str) -> ReadWords:
        """The words of a query string. Raises `MisuseError` for a parameter that is not part of a statement."""
        filters, sorts, include, numbers = list[str](), list[str](), list[str](), dict[str, int]()
        for name, value in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
            match name:
                case "sort":
                    sorts.append(value)
                case "include":
                    include.append(value)
                case "page" | "per_page" | "limit" | "skip":
                    numbers[name] = _number(name, value)
                case _ if name in _NOT_EXPLAINED:
                    raise MisuseError(f"--query: {name} can't be explained here; leave it out.", field="--query")
                case _:
                    filters.append(f"{name}={value}")
        return cls(tuple(filters), tuple(sorts), tuple(include), numbers)

    def __add__(self, other: ReadWords) -> ReadWords:
        return ReadWords(
            self.filters + other.filters,
            self.sorts + other.sorts,
            self.include + other.include,
            self.numbers | other.numbers,
        )

    def options(self, traits: Traits[Any], *, include_deleted: bool = False) -> QueryOptions[Any]:
        """The options for a class. Raises `MisuseError` for words that are no filter, sort or page."""
        sorts = [_sort(word) for word in _split(self.sorts)]
        return QueryOptions(
            filters=list(_filters(traits, self.filters)),
            sorts=sorts,
            pagination=self._page(),
            include_deleted=include_deleted,
            relationships=list(_split(self.include)),
        )

    def _page(self) -> PaginationParams | OffsetParams | None:
        numbers = self.numbers
        for name, value in numbers.items():
            if not (0 if name == "skip" else 1) <= value <= (1000 if name in ("limit", "per_page") else value):
                raise MisuseError(f"{name}: {value} is out of range.", field=name)
        limit = numbers.get("limit", numbers.get("per_page", 20))
        if "skip" in numbers:
            return OffsetParams(skip=numbers["skip"], limit=limit)
        return PaginationParams(page=numbers.get("page", 1), per_page=limit) if numbers else None


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise MisuseError(f"{name}: {shown(value)!r} is no number.", field=name)
    return int(value)


def _split(words: Iterable[str]) -> Iterator[str]:
    return (part.strip() for word in words for part in word.split(",") if part.strip())


def _sort(word: str) -> SortField:
    name = word.removeprefix("-").removeprefix("+")
    order = SortOrder.DESC if word.startswith("-") else SortOrder.ASC
    if name.endswith(_FOLDED):
        return SortField(name.removesuffix(_FOLDED), order, by="folded")
    return SortField(name, order)


def _filters(traits: Traits[Any], words: Iterable[str]) -> Iterator[QueryFilter]:
    """The filters. The values of one list that are in several words belong together, and may contain commas."""
    values: dict[tuple[str, FilterOperator], list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise MisuseError(
                f"--filter {shown(word)!r}: it must be field=value or field__operator=value.", field="--filter"
            )
        values.setdefault(_condition(traits, name.strip()), []).append(value)
    for (name, operator), texts in values.items():
        if operator in _LISTS:
            yield QueryFilter(
                name, operator, texts if len(texts) > 1 else [each for each in texts[0].split(",") if each]
            )
            continue
        for text in texts:
            yield QueryFilter(name, operator, _truth(name, operator, text) if operator in _NULLS else text)


def _condition(traits: Traits[Any], name: str) -> tuple[str, FilterOperator]:
    """The field and the operator. A word after the last ``__`` that is no operator is part of the field's name."""
    path, separator, word = name.rpartition("__")
    if not separator or name in traits.columns:
        return name, FilterOperator.EQ
    if word in _OPERATORS:
        return path, _OPERATORS[word]
    if path in traits.columns:
        raise MisuseError(f"There is no operator {shown(word)!r}{suggestion(word, _OPERATORS)}", field=path)
    return name, FilterOperator.EQ


def _truth(name: str, operator: FilterOperator, text: str) -> bool:
    truth = _TRUTH.get(text.lower())
    if truth is None:
        raise MisuseError(f"{name}__{operator}: it must be true or false, not {shown(text)!r}.", field=name)
    return truth
