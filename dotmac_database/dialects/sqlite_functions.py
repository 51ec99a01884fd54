"""SQL functions that SQLite lacks, in Python: JSON containment and word search as PostgreSQL has them."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

_WORDS = re.compile(r"\w+")
_QUERY = re.compile(r'(?P<not>-?)(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))')


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


def _search(text: str | None, query: str | None) -> int | None:
    """Whether every word of the query occurs: ``"a phrase"``, ``-without``, ``one or other``, any case."""
    if text is None or query is None:
        return None
    words = [word.lower() for word in _WORDS.findall(text)]
    found = any(
        each and all(bool(_occurrences(wanted, words)) is not absent for absent, wanted in each)
        for each in _alternatives(query)
    )
    return int(found)


@lru_cache(maxsize=256)
def _alternatives(query: str) -> list[list[tuple[bool, list[str]]]]:
    """What a query asks for: any of these, each of which is all of its phrases, there or absent."""
    alternatives: list[list[tuple[bool, list[str]]]] = [[]]
    for match in _QUERY.finditer(query):
        if match["word"] and match["word"].lower() == "or" and not match["not"]:
            alternatives.append([])
            continue
        wanted = [word.lower() for word in _WORDS.findall(match["phrase"] or match["word"] or "")]
        if wanted:
            alternatives[-1].append((bool(match["not"]), wanted))
    return alternatives


def _occurrences(wanted: list[str], words: list[str]) -> int:
    width = len(wanted)
    return sum(words[start : start + width] == wanted for start in range(len(words) - width + 1))


def _relevance(text: str | None, query: str | None) -> float | None:
    """How often what the query asks for occurs, to one word of the text."""
    if text is None or query is None:
        return None
    words = [word.lower() for word in _WORDS.findall(text)]
    wanted = [phrase for each in _alternatives(query) for absent, phrase in each if not absent]
    return sum(_occurrences(phrase, words) for phrase in wanted) / (1.0 + len(words))


def _candidates(query: str | None) -> str | None:
    """The query for FTS5 that finds no less than `_search` does; None: it can't tell anything apart.

    Only plain words that must be there are asked of the index. https://www.sqlite.org/fts5.html#full_text_query_syntax
    """
    if query is None:
        return None
    groups = []
    for each in _alternatives(query):
        wanted = {word for absent, phrase in each if not absent for word in phrase if word.isascii()}
        if each and not wanted:
            return None
        if wanted:
            groups.append("(" + " AND ".join(f'"{word}"' for word in sorted(wanted)) + ")")
    return " OR ".join(groups) or None


def register_functions(connection: Any) -> None:
    """Install the functions on a DBAPI connection of sqlite3 or aiosqlite."""
    connection.create_function("dotmac_json_contains", 2, _json_contains, deterministic=True)
    connection.create_function("dotmac_json_overlaps", 2, _json_overlaps, deterministic=True)
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
