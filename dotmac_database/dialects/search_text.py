"""What a person types into a search field, read once for every database.

Words must all occur; ``"a phrase"`` occurs as it stands, and one that is not closed goes on to the end; ``-word`` and
``-"a phrase"`` must not occur; ``one or other`` parts alternatives. A dash says "without" only where it stands alone
right before a word that nothing precedes: elsewhere, and where there are several, it is punctuation as any other, and
so is an ``or`` with nothing on one of its sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

WORDS = re.compile(r"\w+")
_TERM = re.compile(r'(?P<dashes>-*)(?:"(?P<phrase>[^"]*)(?:"|$)|(?P<word>[^\s"]+))')
# What PostgreSQL's parser may take for one word: a compound, a host, an address, a path, a number.
_COMPOUND = re.compile(r"/?\w+(?:(?:[-./@:+]|://)\w+)+")

MAX_WORD = 2046
"""PostgreSQL indexes no word of more bytes. https://www.postgresql.org/docs/current/textsearch-limitations.html"""

_EXPANDED, _EXPANDED_LENGTH = 3, 10_000
"""How many compounds of one alternative are looked for in both forms, and in texts of how many characters."""


class Term(NamedTuple):
    """Words that stand together, in lower case, and as they were written; ``absent``: that they don't occur."""

    absent: bool
    words: tuple[str, ...]
    written: str

    @property
    def findable(self) -> bool:
        """Whether any text can have it."""
        return all(len(word.encode(errors="replace")) <= MAX_WORD for word in self.words)


Alternative = tuple[Term, ...]


@lru_cache(maxsize=256)
def alternatives(query: str) -> tuple[Alternative, ...]:
    """What a query asks for: any of these, each of which is all of its terms. Empty: it asks for nothing."""
    found: list[dict[Term, None]] = [{}]
    impossible: set[int] = set()
    for match in _TERM.finditer(query):
        phrase, word, dashes = match["phrase"], match["word"], match["dashes"]
        if word is not None and not dashes and word.lower() == "or":
            found.append({})
            continue
        written = phrase if word is None else word
        words = tuple(WORDS.findall(written.lower()))
        # Only at a word's beginning: the pattern also matches what follows a quotation mark.
        starts = match.start() == 0 or query[match.start() - 1].isspace()
        if not words:
            continue
        term = Term(len(dashes) == 1 and starts, words, written)
        if term.findable:
            found[-1][term] = None
        elif not term.absent:
            impossible.add(len(found) - 1)
    if len(found) > 1 and not any(found) and not impossible:
        return ((Term(absent=False, words=("or",), written="or"),),)  # the word itself is looked for
    return tuple(tuple(terms) for place, terms in enumerate(found) if terms and place not in impossible)


def as_websearch(query: str) -> str:
    """The same question for PostgreSQL's ``websearch_to_tsquery``, which takes it as it is meant here.

    Each term is quoted, so that nothing in it is an operator: a tsquery holds no more than 32 of them in a row. A
    compound (``e-mail``, ``joe@example.com``) is one word to PostgreSQL where it stands so in a text, and several where
    a blank parts them: both are looked for.
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
    """The words of a text, to look for terms in."""

    def __init__(self, text: str) -> None:
        self.words = WORDS.findall(text.lower())
        self._known = frozenset(self.words)

    def has(self, words: tuple[str, ...]) -> bool:
        """Whether the words occur, next to each other."""
        if len(words) == 1:
            return words[0] in self._known
        return self._known.issuperset(words) and self.count(words) > 0

    def count(self, words: tuple[str, ...]) -> int:
        """How often the words occur, next to each other."""
        wanted, width = list(words), len(words)
        if width == 1:
            return self.words.count(wanted[0])
        return sum(self.words[start : start + width] == wanted for start in range(len(self.words) - width + 1))

    def answers(self, asked: Iterable[Alternative]) -> bool:
        """Whether one of the alternatives holds."""
        return any(all(self.has(term.words) is not term.absent for term in each) for each in asked)
