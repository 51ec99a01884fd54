"""The results of paginated reads.

An endpoint may return one of these results, and declare for example
``PaginationResult[UserRead]``: Pydantic converts the items, which may be entities, to ``UserRead``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn, NotRequired, Self, TypedDict, TypeVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema as cs

T = TypeVar("T")


class Estimate(int):
    """A total number of rows, which may be an estimate. ``exact``: all rows were counted, so it is no estimate."""

    exact: bool

    def __new__(cls, value: int, *, exact: bool) -> Self:
        """A total of ``value`` rows."""
        estimate = super().__new__(cls, value)
        estimate.exact = exact
        return estimate

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, bool]]:
        """The arguments of ``__new__`` with which `pickle` and `copy` make a copy."""
        return (int(self),), {"exact": self.exact}


class _Page(Generic[T]):
    """An immutable value, equal to another one with the same fields.

    It is no dataclass, because Pydantic would serialize only the fields of a generic dataclass, without the values that
    are computed.
    """

    items: list[T]
    has_next: bool
    has_prev: bool

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"A {type(self).__name__} can't be changed.")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a page has a list, so it can't be hashed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class _CountedPage(_Page[T]):
    """A page with the total number of rows."""

    total: int | None

    @property
    def total_is_exact(self) -> bool:
        """Whether ``total`` is an exact count."""
        return self.total is not None and getattr(self.total, "exact", True)


class PaginationResult(_CountedPage[T]):
    """One numbered page. A page beyond the last one has no items, and the right total.

    ``total`` and ``pages`` are None if no total was requested, and may be estimates if ``total_is_exact`` is False: see
    `PaginationParams`. ``has_next`` is always right: it is the argument ``more``, or follows from an exact total if
    ``more`` is None. The JSON includes ``total_is_exact`` unless the total is of the kind ``"exact"``.
    """

    page: int
    per_page: int
    pages: int | None

    def __init__(
        self, items: list[T], total: int | None, page: int, per_page: int, *, more: bool | None = None
    ) -> None:
        pages = None if total is None else math.ceil(total / per_page)
        has_next = page < (pages or 0) if more is None else more
        vars(self).update(
            items=items, total=total, page=page, per_page=per_page, pages=pages, has_next=has_next, has_prev=page > 1
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        """The schema of the page as an object with all its fields (a method that Pydantic calls)."""
        number, nullable = cs.int_schema(), cs.nullable_schema(cs.int_schema())
        rest = {"total": nullable, "page": number, "per_page": number, "pages": nullable}
        return _page_schema(source, handler, rest, _numbered_page_fields, _numbered_page, estimates=True)


class OffsetResult(_CountedPage[T]):
    """The rows after the first ``skip`` ones, at most ``limit``, and the total number of rows.

    If ``skip`` is beyond the last row, there are no items, and the total is right. ``total``, ``total_is_exact`` and
    ``more`` are as in `PaginationResult`.
    """

    skip: int
    limit: int

    def __init__(self, items: list[T], total: int | None, skip: int, limit: int, *, more: bool | None = None) -> None:
        has_next = skip + len(items) < (total or 0) if more is None else more
        vars(self).update(items=items, total=total, skip=skip, limit=limit, has_next=has_next, has_prev=skip > 0)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        """The schema of the page as an object with all its fields (a method that Pydantic calls)."""
        number = cs.int_schema()
        rest = {"total": cs.nullable_schema(number), "skip": number, "limit": number}
        return _page_schema(source, handler, rest, _offset_page_fields, _offset_page, estimates=True)


class CursorPaginationResult(_Page[T]):
    """One page between two cursors. A cursor is None if there are no rows in its direction."""

    next_cursor: str | None
    prev_cursor: str | None

    def __init__(self, items: list[T], next_cursor: str | None = None, prev_cursor: str | None = None) -> None:
        vars(self).update(
            items=items,
            next_cursor=next_cursor,
            prev_cursor=prev_cursor,
            has_next=next_cursor is not None,
            has_prev=prev_cursor is not None,
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> cs.CoreSchema:
        """The schema of the page as an object with all its fields (a method that Pydantic calls)."""
        cursor = cs.nullable_schema(cs.str_schema())
        return _page_schema(
            source, handler, {"next_cursor": cursor, "prev_cursor": cursor}, _cursor_page_fields, _cursor_page
        )


def _page_schema(
    source: Any,
    handler: GetCoreSchemaHandler,
    rest: Mapping[str, cs.CoreSchema],
    parts: Callable[[object], object],
    page: Callable[[Any], object],
    *,
    estimates: bool = False,
) -> cs.CoreSchema:
    """The Pydantic schema of a page: its fields are validated, then the page is constructed from them.

    ``estimates``: the total can be an estimate.
    """
    item = next(iter(get_args(source)), Any)
    fields = {
        "items": cs.typed_dict_field(cs.list_schema(handler.generate_schema(item))),
        **{name: cs.typed_dict_field(schema) for name, schema in rest.items()},
        "has_next": cs.typed_dict_field(cs.bool_schema()),
        "has_prev": cs.typed_dict_field(cs.bool_schema()),
    }
    if estimates:
        fields["total_is_exact"] = cs.typed_dict_field(cs.bool_schema(), required=False)
    whole = cs.typed_dict_schema(fields)
    kind = getattr(source, "__origin__", source)
    suffix = f"[{item.__module__}.{item.__qualname__}:{id(item)}]" if isinstance(item, type) else f"[{item!r}]"
    return cs.no_info_after_validator_function(
        page,
        cs.no_info_before_validator_function(parts, whole),
        serialization=cs.plain_serializer_function_ser_schema(parts, return_schema=whole),
        ref=f"{kind.__module__}.{kind.__qualname__}:{id(kind)}{suffix}",  # gives the OpenAPI component a name
    )


class _NumberedPage(TypedDict):
    """The validated fields of a numbered page."""

    items: list[object]
    total: int | None
    page: int
    per_page: int
    has_next: bool
    total_is_exact: NotRequired[bool]


class _OffsetPage(TypedDict):
    """The validated fields of a page after a number of rows."""

    items: list[object]
    total: int | None
    skip: int
    limit: int
    has_next: bool
    total_is_exact: NotRequired[bool]


class _CursorPage(TypedDict):
    """The validated fields of a page between two cursors."""

    items: list[object]
    next_cursor: str | None
    prev_cursor: str | None


def _numbered_page_fields(page: object) -> object:
    return _counted_page_fields(page) if isinstance(page, PaginationResult) else page


def _counted_page_fields(page: _CountedPage[object]) -> dict[str, object]:
    parts = vars(page)
    return parts if type(page.total) is int else {**parts, "total_is_exact": page.total_is_exact}


def _numbered_page(parts: _NumberedPage) -> PaginationResult[object]:
    return PaginationResult(parts["items"], _total(parts), parts["page"], parts["per_page"], more=parts["has_next"])


def _total(parts: _NumberedPage | _OffsetPage) -> int | None:
    total = parts["total"]
    if total is None or "total_is_exact" not in parts:
        return total
    return Estimate(total, exact=parts["total_is_exact"])


def _offset_page_fields(page: object) -> object:
    return _counted_page_fields(page) if isinstance(page, OffsetResult) else page


def _offset_page(parts: _OffsetPage) -> OffsetResult[object]:
    return OffsetResult(parts["items"], _total(parts), parts["skip"], parts["limit"], more=parts["has_next"])


def _cursor_page_fields(page: object) -> object:
    if not isinstance(page, CursorPaginationResult):
        return page
    return vars(page)


def _cursor_page(parts: _CursorPage) -> CursorPaginationResult[object]:
    return CursorPaginationResult(parts["items"], parts["next_cursor"], parts["prev_cursor"])
