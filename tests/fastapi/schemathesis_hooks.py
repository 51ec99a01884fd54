"""Hooks for schemathesis about dependencies between parameters, which JSON Schema can't express."""

from __future__ import annotations

from typing import Any

import schemathesis

PAGES = {"page", "per_page", "total"}
CURSORS = {"limit", "cursor"}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Remove parameters of a valid request that can't be combined, as their descriptions say."""
    query = case.query
    if not query or not case.meta.generation.mode.is_positive:
        return
    if not PAGES.isdisjoint(query):
        for name in CURSORS & query.keys():
            del query[name]  # a page has either a number or a cursor
    if str(query.get("page", "")).isdigit() and int(query["page"]) > 100:
        del query["page"]  # with 100 rows a page, it would skip more than 10,000 rows
    if "relevance" in str(query.get("sort")):
        del query["sort"]  # relevance requires the parameter q


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Skip lists of one empty text, because in a query string they look like empty lists."""
    return not {"", ("",)} & {tuple(each) if isinstance(each, list) else each for each in lists_of(case)}


def lists_of(case: Any) -> list[Any]:
    """The values of a case's parameters with a schema of type array."""
    declared = {each.name: each.definition.get("schema", {}) for each in case.operation.query}
    query = case.query or {}
    return [query[name] for name, schema in declared.items() if name in query and schema.get("type") == "array"]
