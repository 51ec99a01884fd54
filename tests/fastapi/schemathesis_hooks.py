"""What JSON Schema cannot say of a request: which of its parameters depend on each other."""

from __future__ import annotations

from typing import Any

import schemathesis

PAGES = {"page", "per_page", "total"}
CURSORS = {"limit", "cursor"}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Take away of a valid request what goes with nothing else of it, as the parameters' descriptions say."""
    query = case.query
    if not query or not case.meta.generation.mode.is_positive:
        return
    if not PAGES.isdisjoint(query):
        for name in CURSORS & query.keys():
            del query[name]  # a page has a number or a cursor
    if str(query.get("page", "")).isdigit() and int(query["page"]) > 100:
        del query["page"]  # with 100 rows on it, it would skip more than 10,000
    if "relevance" in str(query.get("sort")):
        del query["sort"]  # relevance is that to the words of q


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """A list of one empty text is written as an empty list is."""
    return not {"", ("",)} & {tuple(each) if isinstance(each, list) else each for each in lists_of(case)}


def lists_of(case: Any) -> list[Any]:
    """The values of a case's parameters that are lists by their schemas."""
    declared = {each.name: each.definition.get("schema", {}) for each in case.operation.query}
    query = case.query or {}
    return [query[name] for name, schema in declared.items() if name in query and schema.get("type") == "array"]
