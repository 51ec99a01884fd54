"""SQL functions for SQLite, written in Python: JSON containment and word search as in PostgreSQL, and helpers."""

from __future__ import annotations

import json
from typing import Any

from .search_text import Text, alternatives

_MOST_CANDIDATES = 200
"""The maximum number of words or groups in a query of the FTS5 table, whose parser limits the depth of a query."""


def contains(document: object, candidate: object) -> bool:
    """Whether one JSON value contains another: https://www.postgresql.org/docs/current/datatype-json.html#JSON-CONTAINMENT"""
    if isinstance(document, dict) and isinstance(candidate, dict):
        return all(key in document and contains(document[key], value) for key, value in candidate.items())
    if isinstance(document, list):
        if isinstance(candidate, list):
            return all(any(_member(each, member) for each in document) for member in candidate)
        # An array contains a scalar that is one of its elements, but this holds only at the top level.
        return not isinstance(candidate, dict) and any(_equal(each, candidate) for each in document)
    return _equal(document, candidate)


def _member(each: object, candidate: object) -> bool:
    if isinstance(candidate, (dict, list)):
        return type(each) is type(candidate) and contains(each, candidate)
    return _equal(each, candidate)


def _equal(one: object, other: object) -> bool:
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
    return int(any(_equal(one, two) or one == two for one in mine for two in theirs))


def _bytes(digits: str | None) -> bytes | None:
    """The bytes of hexadecimal digits. Older versions of SQLite do not have ``unhex``."""
    return None if digits is None else bytes.fromhex(digits)


def _rounded(number: float | None, digits: int) -> float | None:
    """The number, rounded as SQLAlchemy rounds it when it is read as a Decimal."""
    return None if number is None else float(f"{number:.{digits}f}")


def _search(text: str | None, query: str | None) -> int | None:
    """Whether a text matches a query (1 or 0); see `dotmac_database.dialects.search_text`."""
    if text is None or query is None:
        return None
    return int(Text(text).answers(alternatives(query)))


def _relevance(text: str | None, query: str | None) -> float | None:
    """How often the terms of the query occur in the text, divided by its number of words plus one."""
    if text is None or query is None:
        return None
    words = Text(text)
    phrases = (term.words for each in alternatives(query) for term in each if not term.absent)
    return sum(map(words.count, phrases)) / (1.0 + len(words.words))


def _candidates(query: str | None) -> str | None:
    """A query of the FTS5 table that finds at least all rows for which `_search` is true.

    The FTS5 query has only the ASCII words that must occur. None if such a query would find all rows, or would have too
    many groups. https://www.sqlite.org/fts5.html#full_text_query_syntax
    """
    if query is None:
        return None
    groups = []
    for each in alternatives(query):
        words = sorted({word for term in each if not term.absent for word in term.words if word.isascii()})
        if not words:
            return None
        groups.append("(" + " AND ".join(f'"{word}"' for word in words[:_MOST_CANDIDATES]) + ")")
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


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _upper(text: object) -> object:
    return text.upper() if isinstance(text, str) else text


def register_unicode(connection: Any) -> None:
    """Make ``lower`` and ``upper``, and so ILIKE, convert all letters. SQLite's own functions convert only ASCII."""
    connection.create_function("lower", 1, _lower, deterministic=True)
    connection.create_function("upper", 1, _upper, deterministic=True)
