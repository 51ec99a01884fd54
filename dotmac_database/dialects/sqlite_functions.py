"""SQL functions in Python for SQLite: PostgreSQL's JSON containment and word search."""

from __future__ import annotations

import json
from typing import Any

from .search_text import Text, alternatives

_MOST_CANDIDATES = 200
"""How many terms the index is asked for: FTS5's parser takes expressions of limited depth."""


def contains(document: Any, candidate: Any) -> bool:
    """Whether one JSON value contains another: https://www.postgresql.org/docs/current/datatype-json.html#JSON-CONTAINMENT"""
    if isinstance(document, dict) and isinstance(candidate, dict):
        return all(key in document and contains(document[key], value) for key, value in candidate.items())
    if isinstance(document, list):
        if isinstance(candidate, list):
            return all(any(_member(each, wanted) for each in document) for wanted in candidate)
        # An array contains a scalar, but not at a deeper level.
        return not isinstance(candidate, dict) and any(_equal(each, candidate) for each in document)
    return _equal(document, candidate)


def _member(each: Any, wanted: Any) -> bool:
    if isinstance(wanted, (dict, list)):
        return type(each) is type(wanted) and contains(each, wanted)
    return _equal(each, wanted)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return (type(one) is type(other) and bool(one == other)) or (
        isinstance(one, (int, float)) and isinstance(other, (int, float)) and one == other
    )


def _json_contains(document: str | None, candidate: str | None) -> int | None:
    if document is None or candidate is None:
        return None
    return int(contains(json.loads(document), json.loads(candidate)))


def _json_overlaps(document: str | None, other: str | None) -> int:
    if document is None or other is None:
        return 0
    mine, theirs = json.loads(document), json.loads(other)
    if not isinstance(mine, list) or not isinstance(theirs, list):
        return 0
    return int(any(_equal(each, wanted) or each == wanted for each in mine for wanted in theirs))


def _bytes(digits: str | None) -> bytes | None:
    """The bytes of hexadecimal digits; SQLite's ``unhex`` is younger than its oldest versions in use."""
    return None if digits is None else bytes.fromhex(digits)


def _rounded(number: float | None, digits: int) -> float | None:
    """A number as SQLAlchemy rounds it when it is read as a Decimal."""
    return None if number is None else float(f"{number:.{digits}f}")


def _search(text: str | None, query: str | None) -> int | None:
    """Whether a text has what a query asks for; see `dotmac_database.dialects.search_text`."""
    if text is None or query is None:
        return None
    return int(Text(text).answers(alternatives(query)))


def _relevance(text: str | None, query: str | None) -> float | None:
    """How often what the query asks for occurs, to one word of the text."""
    if text is None or query is None:
        return None
    found = Text(text)
    wanted = (term.words for each in alternatives(query) for term in each if not term.absent)
    return sum(map(found.count, wanted)) / (1.0 + len(found.words))


def _candidates(query: str | None) -> str | None:
    """The query for FTS5 that finds no less than `_search` does; None: it can't tell anything apart.

    Only plain words that must be there are asked of the index. https://www.sqlite.org/fts5.html#full_text_query_syntax
    """
    if query is None:
        return None
    groups = []
    for each in alternatives(query):
        wanted = sorted({word for term in each if not term.absent for word in term.words if word.isascii()})
        if not wanted:
            return None
        groups.append("(" + " AND ".join(f'"{word}"' for word in wanted[:_MOST_CANDIDATES]) + ")")
    return None if len(groups) > _MOST_CANDIDATES else " OR ".join(groups) or None


def register_functions(connection: Any) -> None:
    """Install the functions on a DBAPI connection of sqlite3 or aiosqlite."""
    connection.create_function("dotmac_json_contains", 2, _json_contains, deterministic=True)
    connection.create_function("dotmac_json_overlaps", 2, _json_overlaps, deterministic=True)
    connection.create_function("dotmac_bytes", 1, _bytes, deterministic=True)
    connection.create_function("dotmac_rounded", 2, _rounded, deterministic=True)
    connection.create_function("dotmac_search", 2, _search, deterministic=True)
    connection.create_function("dotmac_relevance", 2, _relevance, deterministic=True)
    connection.create_function("dotmac_candidates", 1, _candidates, deterministic=True)


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


def _upper(text: Any) -> Any:
    return text.upper() if isinstance(text, str) else text


def register_unicode(connection: Any) -> None:
    """Let ``lower`` and ``upper``, and so ILIKE, know all letters; SQLite's own know ASCII only."""
    connection.create_function("lower", 1, _lower, deterministic=True)
    connection.create_function("upper", 1, _upper, deterministic=True)
