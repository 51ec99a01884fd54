"""What a message says of a name that does not exist: the name, in short, and the nearest that does."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_SHOWN = 80
"""How many characters of a name a message shows. A longer one resembles nothing, and is not compared."""


def shown(name: object) -> str:
    """A name as a message shows it."""
    text = str(name)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def suggestion(name: object, known: Iterable[str], *, listed: bool = True) -> str:
    """The end of a message: the known name that is nearest; without one the known names, where they are ``listed``."""
    names = sorted(known)
    text = str(name)
    near = get_close_matches(text, names, n=1) if len(text) <= MAX_SHOWN else []
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(names)}." if listed else "."
