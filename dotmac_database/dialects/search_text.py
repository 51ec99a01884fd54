"""Parses the text that a person types into a search field, in the same way for every database.

All words must occur. The words of ``"a phrase"`` must occur next to each other; a phrase without a closing quotation
mark extends to the end. ``-word`` and ``-"a phrase"`` must not occur. ``one or other`` separates alternatives, if there
is a term on both sides of the ``or``. A dash excludes a term only if it is a single dash, directly before the term, and
at the beginning of the text or after a blank. Any other dash is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

WORDS = re.compile(r"\w+")
_TERM = re.compile(r'(?P<dashes>-*)(?:"(?P<phrase>[^"]*)(?:"|$)|(?P<word>[^\s"]+))')
# Texts that PostgreSQL's parser can treat as one word: a compound, a host, an address, a path, a number.
_COMPOUND = re.compile(r"/?\w+(?:(?:[-./@:+]|://)\w+)+")

MAX_WORD = 2046
"""The maximum length, in bytes, of a word that PostgreSQL indexes.

https://www.postgresql.org/docs/current/textsearch-limitations.html
"""

_EXPANDED, _EXPANDED_LENGTH = 3, 10_000
"""Compounds are searched in both forms (see `as_websearch`) only within limits.

The limits are so many compounds in one alternative, and so many characters in the query.
"""


class Term(NamedTuple):
    """A word or phrase of a query.

    ``words`` are in lower case. They must occur next to each other; if ``absent`` is true, they must not. ``written``
    is the text as the person typed it.
    """

    absent: bool
    words: tuple[str, ...]
    written: str

    @property
    def findable(self) -> bool:
        """Whether a text can contain the term: no word is longer than `MAX_WORD`."""
        return all(len(word.encode(errors="replace")) <= MAX_WORD for word in self.words)


Alternative = tuple[Term, ...]


@lru_cache(maxsize=256)
def alternatives(query: str) -> tuple[Alternative, ...]:
    """The alternatives of a query. A text matches if it meets all terms of one alternative. Empty: no text matches."""
    groups: list[dict[Term, None]] = [{}]
    impossible: set[int] = set()
    for match in _TERM.finditer(query):
        phrase, word, dashes = match["phrase"], match["word"], match["dashes"]
        if word is not None and not dashes and word.lower() == "or":
            groups.append({})
            continue
        written = phrase if word is None else word
        words = tuple(WORDS.findall(written.lower()))
        # A dash excludes only after a blank, but the pattern also matches directly after a closing quotation mark.
        starts = match.start() == 0 or query[match.start() - 1].isspace()
        if not words:
            continue
        term = Term(len(dashes) == 1 and starts, words, written)
        if term.findable:
            groups[-1][term] = None
        elif not term.absent:
            impossible.add(len(groups) - 1)
    if len(groups) > 1 and not any(groups) and not impossible:
        return ((Term(absent=False, words=("or",), written="or"),),)  # the query is only "or": search for this word
    return tuple(tuple(terms) for place, terms in enumerate(groups) if terms and place not in impossible)


def as_websearch(query: str) -> str:
    """The query in the syntax of PostgreSQL's ``websearch_to_tsquery``, with the meaning that this module defines.

    Each term is quoted, so that nothing in it becomes an operator; a tsquery can have at most 32 operators in a row.
    If a text has a compound (``e-mail``, ``joe@example.com``), PostgreSQL indexes it as one word. If a text has blanks
    between the parts, PostgreSQL indexes several words. Therefore the query searches for both forms.
    """
    expands = len(query) <= _EXPANDED_LENGTH
    return " or ".join(written for each in alternatives(query) for written in _written(each, expands=expands))


def _written(terms: Alternative, *, expands: bool) -> Iterator[str]:
    forms: list[tuple[str, ...]] = []
    left = _EXPANDED if expands else 0
    for term in terms:
        plain = '"{}"'.format(" ".join(WORDS.findall(term.written)))
        compound = f'"{term.written.strip(_OUTER)}"' if _COMPOUND.fullmatch(term.written.strip(_OUTER)) else None
        if compound is None:
            forms.append((_signed(term, plain),))
        elif term.absent:
            forms.append((f"-{plain} -{compound}",))
        elif left:
            left -= 1
            forms.append((plain, compound))
        else:
            forms.append((compound,))
    yield from (" ".join(each) for each in product(*forms))


_OUTER = "-.:,;!?()[]{}<>'"


def _signed(term: Term, written: str) -> str:
    return f"-{written}" if term.absent else written


class Text:
    """The words of a text in which terms are searched."""

    def __init__(self, text: str) -> None:
        self.words = WORDS.findall(text.lower())
        self._known = frozenset(self.words)

    def has(self, words: tuple[str, ...]) -> bool:
        """Whether the words occur next to each other."""
        if len(words) == 1:
            return words[0] in self._known
        return self._known.issuperset(words) and self.count(words) > 0

    def count(self, words: tuple[str, ...]) -> int:
        """How often the words occur next to each other."""
        phrase, width = list(words), len(words)
        if width == 1:
            return self.words.count(phrase[0])
        return sum(self.words[start : start + width] == phrase for start in range(len(self.words) - width + 1))

    def answers(self, query: Iterable[Alternative]) -> bool:
        """Whether the text meets all terms of one of the alternatives."""
        return any(all(self.has(term.words) is not term.absent for term in each) for each in query)
