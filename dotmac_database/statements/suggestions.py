"""Builds the parts of messages about unknown names, with the most similar known name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_SHOWN = 80
"""The most characters of a name in a message. Longer names are not compared with known ones."""


def shown(name: object) -> str:
    """A name, shortened for a message."""
    text = str(name)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def suggestion(name: object, known: Iterable[str], *, listed: bool = True) -> str:
    """The end of a message: the most similar known name. If none is similar: all names, if ``listed`` is True."""
    names = sorted(known)
    text = str(name)
    near = get_close_matches(text, names, n=1) if len(text) <= MAX_SHOWN else []
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(names)}." if listed else "."
