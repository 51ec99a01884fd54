"""The texts of statements for spans and logs: without values, and the parts by which statements are grouped."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 2000
"""The longest text that gets into a span or a log, in characters."""

VERBS = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "COPY", "MERGE", "CALL", "WITH", "EXPLAIN", "VALUES"))
OTHER = "OTHER"
"""The verb of all other statements, so that the number of verbs is bounded."""

_PARTS = re.compile(
    r"""
    (?P<kept_as_it_is> "(?:[^"]|"")*" | \$\d+ | %\(\w+\)s | :\w+ )  # quoted names, placeholders
    | /\*.*?\*/ | --[^\n]*                                          # comments
    | (?P<dollar> \$\w*\$ ) .*? (?P=dollar)                         # dollar-quoted texts
    | \b[eEbBxXnN]?'(?:[^']|'')*' | '(?:[^']|'')*'                  # texts
    | (?<![\w.]) \d+ (?:\.\d+)? (?:[eE][+-]?\d+)? \b                # numbers
    """,
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=512)
def sanitised(sql: str) -> str:
    """The statement without literals, each of which becomes ``?``, and without comments. At most `MAX_LENGTH` long.

    Parameters are no part of the text: it has their placeholders.
    """
    text = " ".join(_PARTS.sub(_replacement, sql[: 2 * MAX_LENGTH]).split())
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"


def _replacement(match: re.Match[str]) -> str:
    part = match[0]
    if match["kept_as_it_is"] is not None:
        return part
    return "" if part.startswith(("/*", "--")) else "?"


@lru_cache(maxsize=512)
def verb(sql: str) -> str:
    """The first word of a statement in upper case, or `OTHER`. ``WITH`` is a SELECT."""
    words = sql[:40].split(maxsplit=1)
    word = words[0].strip("(").upper() if words else ""
    if word == "WITH":
        return "SELECT"
    return word if word in VERBS else OTHER
