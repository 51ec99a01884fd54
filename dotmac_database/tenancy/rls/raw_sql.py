r"""The check of raw SQL: it must be one statement that neither changes settings nor executes SQL from a string.

Any SQL that calls ``set_config`` or SET could change the settings that row-level security reads. There are too many
ways to write that for a list of forbidden words, so this module lists what is allowed. Its lexer follows PostgreSQL's
(https://www.postgresql.org/docs/current/sql-syntax-lexical.html). It refuses what it does not know, and what PostgreSQL
reads differently depending on its settings:

- There must be one statement, which begins with one of a few words.
- Every function that is called must be in `functions`, or be part of the grammar.
- A backslash must not make the end of a string ambiguous, and ``U&"…"`` and ``SELECT … INTO`` are refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ..functions import FUNCTIONS, KEYWORDS, TYPES

_BEGINS: Final = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "TABLE", "MERGE"))
_EXPLAINED: Final = frozenset(("ANALYZE", "VERBOSE"))
# An UPDATE of this view changes settings, as SET does.
_SETTINGS_VIEWS: Final = frozenset(("pg_settings",))
# Words that follow WITH, but are not the name of a common table expression.
_NOT_CTE_NAMES: Final = frozenset(("ORDINALITY", "TIES", "TIME", "UNIQUE", "WITHOUT"))
_LONGEST_CACHED = 10_000

_NAME = r"A-Za-z0-9_$\x80-\U0010ffff"  # the characters within a name; PostgreSQL treats all non-ASCII as letters
_TOKEN = re.compile(
    rf"""
    (?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
  | (?P<comment>/\*)
  | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*+')
  | (?P<text>(?:[uU]&)?'(?:[^']|'')*+')
  | (?P<refused>[uU]&"|[eE]')
  | (?P<quoted>"(?:[^"]|"")++")
  | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*+)?\$)
  | (?P<parameter>(?:\$[0-9]++|%[sbt])(?![{_NAME}]))
  | (?P<word>[A-Za-z_\x80-\U0010ffff][{_NAME}]*+)
  | (?P<number>[0-9]++)
  | (?P<mark>%%|%(?![sbt])|[(),.;\[\]+\-*/<>=~!@\#^&|`?]|::?)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")
# A backslash before a quote: whether the quote ends the string depends on standard_conforming_strings.
_AMBIGUOUS = re.compile(r"(?<!\\)(?:\\\\)*\\'")
# psycopg's placeholders, which it replaces everywhere, in strings and comments too.
_PLACEHOLDER = re.compile(r"%(?:\(([^)]+)\)(.)|.)", re.DOTALL)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_\x80-\U0010ffff]+")


class _Token(NamedTuple):
    kind: str
    text: str

    @property
    def keyword(self) -> str:
        """The token in capitals, if it is a word; for any other token, a text that equals no keyword."""
        return self.text.upper() if self.kind == "word" and self.text.isascii() else f" {self.text}"

    @property
    def name(self) -> str | None:
        """The name as PostgreSQL reads it: without its quotes, or in lower case; None: the token is no name."""
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else None


_END: Final = _Token("end", "")


class _RefusedError(Exception):
    """The statement is refused; the message says which part of it."""


def refusal(sql: str, harmless: frozenset[str] = frozenset()) -> str | None:
    """The part of a statement that is not known to be harmless, in words; None: the statement is allowed.

    The words contain no value of the statement. Results are cached by the statement's text. ``harmless``: names of
    further functions that are allowed. A name includes the schema if the statement writes the schema.
    """
    return _refusal(sql, harmless) if len(sql) > _LONGEST_CACHED else _cached_refusal(sql, harmless)


def _refusal(sql: str, harmless: frozenset[str]) -> str | None:
    try:
        _check(_tokens(sql), harmless)
    except _RefusedError as error:
        return str(error)
    return None


_cached_refusal = lru_cache(maxsize=2048)(_refusal)


def _tokens(sql: str) -> list[_Token]:
    """The statement's tokens, without comments and without semicolons at its end. Strings become empty strings."""
    for placeholder in _PLACEHOLDER.finditer(sql):
        name, form = placeholder.groups()
        if name is not None and form in "sbt" and not _PLAIN_NAME.fullmatch(name):
            raise _RefusedError("the name of a parameter")
    tokens: list[_Token] = []
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None or match.lastgroup == "refused":
            raise _RefusedError(f"{sql[at : at + 3]!r}, which is no token, or an ambiguous one")
        kind, at = str(match.lastgroup), match.end()
        if kind == "comment":
            at = _after_comment(sql, at)
        elif kind == "dollar":
            at = _after_dollars(sql, at, match[0])
            tokens.append(_Token("text", "''"))
        elif kind == "text" and _AMBIGUOUS.search(match[0]):
            raise _RefusedError("a backslash before a quote in a string (write E'…')")
        elif kind in ("escaped", "text"):
            tokens.append(_Token("text", "''"))  # without its value, which no message must contain
        elif kind != "space":
            tokens.append(_Token(kind, match[0]))
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    return tokens


def _after_comment(sql: str, at: int) -> int:
    """The position after a comment, which can contain further comments."""
    depth = 1
    for match in _COMMENT.finditer(sql, at):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    raise _RefusedError("a comment that does not end")


def _after_dollars(sql: str, at: int, tag: str) -> int:
    """The position after a dollar-quoted string that begins with ``tag``."""
    end = sql.find(tag, at)
    # psycopg replaces a placeholder in the string by a dollar sign and a number, which could end the string early.
    if end < 0 or "%" in sql[at:end]:
        raise _RefusedError("a dollar-quoted string that does not end, or that contains a percent sign")
    return end + len(tag)


def _check(tokens: list[_Token], harmless: frozenset[str]) -> None:
    _check_beginning(tokens)
    names = _cte_names(tokens) | _targets(tokens)
    for at, token in enumerate(tokens):
        if token.text == ";":
            raise _RefusedError("more than one statement")
        if token.kind == "parameter" and _at(tokens, at + 1).text == "(":
            raise _RefusedError("a parenthesis after a parameter")
        name = token.name
        if name in _SETTINGS_VIEWS:
            raise _RefusedError(f"{name} (an UPDATE of it changes settings; read them with current_setting())")
        if name is not None and at not in names and _at(tokens, at + 1).text == "(":
            _check_call(tokens, at, harmless)


def _at(tokens: list[_Token], index: int) -> _Token:
    return tokens[index] if 0 <= index < len(tokens) else _END


def _check_beginning(tokens: list[_Token]) -> None:
    at = 0
    if _at(tokens, at).keyword == "SHOW":
        return
    if _at(tokens, at).keyword == "EXPLAIN":
        at += 1
        if _at(tokens, at).text == "(" and _at(tokens, at + 1).keyword not in _BEGINS | {" ("}:
            at = _closing(tokens, at) + 1
        while _at(tokens, at).keyword in _EXPLAINED:
            at += 1
    while _at(tokens, at).text == "(":
        at += 1
    first = _at(tokens, at)
    if first.keyword not in _BEGINS:
        raise _RefusedError(f"a statement that begins with {first.text or 'nothing'}")


def _closing(tokens: list[_Token], at: int) -> int:
    """The index of the parenthesis that closes the one at ``at``."""
    depth = 0
    for index in range(at, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index].text, 0)
        if depth == 0:
            return index
    raise _RefusedError("a parenthesis that is not closed")


def _cte_names(tokens: list[_Token]) -> set[int]:
    """The positions of the names of common table expressions, which a parenthesis can follow: ``WITH x (a) AS (…)``."""
    positions: set[int] = set()
    for index, token in enumerate(tokens):
        if token.keyword != "WITH" or _at(tokens, index - 1).text == ".":
            continue
        at = index + 2 if _at(tokens, index + 1).keyword == "RECURSIVE" else index + 1
        while _at(tokens, at).name is not None and _at(tokens, at).keyword not in _NOT_CTE_NAMES:
            name, at = at, at + 1
            if _at(tokens, at).text == "(":
                at = _closing(tokens, at) + 1
            if _at(tokens, at).keyword != "AS":
                break
            at += 1
            while _at(tokens, at).keyword in ("NOT", "MATERIALIZED"):
                at += 1
            if _at(tokens, at).text != "(":
                break
            positions.add(name)
            at = _closing(tokens, at) + 1
            if _at(tokens, at).text != ",":
                break
            at += 1
    return positions


def _targets(tokens: list[_Token]) -> set[int]:
    """The positions of the tables' names after INTO, which a list of columns can follow."""
    positions: set[int] = set()
    for index, token in enumerate(tokens):
        if token.keyword != "INTO" or _at(tokens, index - 1).text == ".":
            continue
        if _at(tokens, index - 1).keyword not in ("INSERT", "MERGE"):
            raise _RefusedError("INTO")
        at = index + 1
        while _at(tokens, at + 1).text == ".":
            at += 2
        positions.add(at)
    return positions


def _check_call(tokens: list[_Token], at: int, harmless: frozenset[str]) -> None:
    """Refuse the name before the parenthesis, unless the name is a keyword, a type, an alias, or a known function."""
    token, before = tokens[at], _at(tokens, at - 1)
    name = token.name or ""
    if before.text == ".":
        first = at
        while _at(tokens, first - 1).text == "." and _at(tokens, first - 2).name is not None:
            first -= 2
        whole = ".".join(str(each.name) for each in tokens[first : at + 1 : 2])
        if whole not in harmless and (whole != f"pg_catalog.{name}" or name not in FUNCTIONS):
            raise _RefusedError(f"the function {whole}")
        return
    if before.keyword == "AS" and _at(tokens, at - 2).text != ".":
        return  # an alias, or the type of a CAST
    if token.keyword in KEYWORDS or name in TYPES or name in FUNCTIONS or name in harmless:
        return
    raise _RefusedError(f"the function {name} (before the columns of an alias write AS)")
