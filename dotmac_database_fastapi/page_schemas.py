"""The OpenAPI schemas of a list's pages: one component for each kind of page, with a readable name."""

from __future__ import annotations

from functools import lru_cache

from pydantic import BaseModel, Field, create_model

from dotmac_database import TotalKind

from .aliases import Annotation, JsonObject
from .pages import Paging

_NAMES: dict[Paging | None, str] = {"cursor": "CursorPage", "offset": "OffsetPage"}


@lru_cache(maxsize=1024)
def page_schema_of(
    row: Annotation,
    model: type,
    paging: Paging | None,
    totals: tuple[TotalKind, ...],
    facets: type[BaseModel] | None = None,
) -> type[BaseModel]:
    """The schema of a page of rows, which OpenAPI shows; responses are not validated by it.

    The page of users is a ``UserPage``; a page by offset is a ``UserOffsetPage``, and one between cursors a
    ``UserCursorPage``. ``paging`` None: a page of one of two kinds, with the fields of both; the fields that only one
    kind has are optional. ``totals`` are the kinds of total that the list can have. ``facets`` is the schema of the
    facets that a client may request.
    """
    name = getattr(row, "__name__", model.__name__).removesuffix("Read")
    module = getattr(row, "__module__", model.__module__)
    fields = {name: (type_, field) for name, type_, field in _fields(paging, totals)}
    if facets is not None:
        fields["facets"] = facets, _optional("The values of the requested fields, with their numbers of rows.")
    # The module distinguishes two classes of one name in OpenAPI.
    make: Annotation = create_model  # type checkers need literal fields, and these are known only at run time
    schema: type[BaseModel] = make(
        f"{name}{_NAMES.get(paging, 'Page')}", __module__=module, items=(list[row], Field(description=_ITEMS)), **fields
    )
    return schema


_ITEMS = "The rows of the page."


def _fields(paging: Paging | None, totals: tuple[TotalKind, ...]) -> list[tuple[str, Annotation, object]]:
    """The fields besides the rows, with their types and their descriptions."""
    has_numbers, has_cursors = paging in (None, "page"), paging in (None, "cursor")
    of_numbers, of_cursors = (" Only of a numbered page.", " Only of a cursor page.") if paging is None else ("", "")
    counted: Annotation = int | None if "none" in totals else int
    uncounted = "; null if no total was requested" if "none" in totals else ""
    fields: list[tuple[str, Annotation, object]] = []

    def add(name: str, type_: Annotation, description: str, *, always: bool) -> None:
        fields.append((name, type_, Field(description=description) if always else _optional(description)))

    always = paging is not None
    if paging != "cursor":
        add("total", counted, f"The number of all matching rows{uncounted}.{of_numbers}", always=always)
    if has_numbers:
        add("page", int, f"The number of the page, counted from 1.{of_numbers}", always=always)
        add("per_page", int, f"The most rows of a page.{of_numbers}", always=always)
        add("pages", counted, f"The number of pages{uncounted}.{of_numbers}", always=always)
    if paging == "offset":
        add("skip", int, "The number of rows before the page.", always=True)
        add("limit", int, "The most rows of the page.", always=True)
    if has_cursors:
        add("next_cursor", str | None, f"The place of the next page; null on the last page.{of_cursors}", always=always)
        add(
            "prev_cursor",
            str | None,
            f"The place of the previous page; null on the first page.{of_cursors}",
            always=always,
        )
    add("has_next", bool, "Whether there are rows after the page.", always=True)
    add("has_prev", bool, "Whether there are rows before the page.", always=True)
    if paging != "cursor" and set(totals) != {"exact"}:
        add(
            "total_is_exact",
            bool,
            "Whether the total is an exact count. Missing if an exact total was requested, or there is none.",
            always=False,
        )
    return fields


def _optional(description: str) -> object:
    """A field that may be missing from the JSON."""
    return Field(default=None, description=description, json_schema_extra=_without_default)


def _without_default(schema: JsonObject) -> None:
    schema.pop("default", None)
