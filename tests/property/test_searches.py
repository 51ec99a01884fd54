"""What a person types into a search field: never an error, and the same rows on every database and in the mock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, String
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database import (
    BaseRepository,
    FullText,
    QueryFilter,
    SortField,
    SortOrder,
    TenantMixin,
    ValidationError,
    create_database,
)
from dotmac_database.testing import MockRepository


class Base(DeclarativeBase):
    """The tables of these tests."""


class Page(TenantMixin, Base):
    """``body`` has an index for searches, ``plain`` has the same text and no index."""

    __tablename__ = "pages"
    __table_args__ = (FullText("body"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str | None] = mapped_column(String)
    plain: Mapped[str | None] = mapped_column(String)


WORDS = ["tea", "Coffee", "milk", "or", "and", "not", "ÉMILE", "é", "w12", "2nd", "a", "b", "NEAR", "don", "t"]
LONG = "x" * 3000
TEXTS: list[str | None] = [
    None,
    "",
    "...",
    "tea",
    "TEA Coffee",
    "coffee tea",
    "tea and coffee",
    "tea or coffee",
    "Milk tea; tea, milk!",
    "not a",
    "a b",
    "b a",
    "a a b",
    "Émile don't",
    "é",
    "w12 2nd",
    "near tea",
    "e-mail",
    "e mail",
    "joe@example.com",
    "tea/coffee",
    "version 1.5",
    f"{LONG} tea",
    " ".join(WORDS),
]

QUERIES = [
    "-" * 33 + "tea",
    "-" * 33,
    "-" * 33 + '"tea coffee"',
    " ".join(["-"] * 50) + " tea",
    " ".join(["-tea"] * 50),
    "- tea",
    "-tea",
    "--tea",
    "---tea",
    "tea -coffee",
    "tea - coffee",
    "tea-coffee",
    "-tea-coffee",
    "tea -",
    '-"tea coffee"',
    '- "tea coffee"',
    'tea-"coffee"',
    '"tea"-coffee',
    "\u2013tea",
    '"tea',
    'tea"',
    '"tea coffee',
    '-"tea',
    '"""',
    '"" tea',
    '"tea" coffee"',
    'a"b"',
    '"a b"',
    '"b a"',
    "or",
    "OR",
    '"or"',
    "-or",
    "or tea",
    "tea or",
    "tea OR coffee",
    "tea or or coffee",
    "tea or -coffee",
    "tea or milk coffee",
    "or or",
    "tea or,coffee",
    "tea and coffee",
    "tea & coffee",
    "tea | coffee",
    "!tea",
    "tea:*",
    "tea*",
    "(tea",
    "tea)",
    "<tea>",
    "tea <-> coffee",
    "&|!():*<>",
    "\\",
    "\\tea",
    "tea\\",
    "'tea",
    "don't",
    "-don't",
    "e-mail",
    "E-Mail",
    "-e-mail",
    "e mail",
    "joe@example.com",
    "joe@example.com,",
    "tea/coffee",
    "1.5",
    "",
    " ",
    "\t\n",
    ".",
    "NEAR(tea coffee)",
    "body:tea",
    "émile",
    LONG,
    f"-{LONG}",
    f"-{LONG} tea",
    f"{LONG} tea",
    f"{LONG} or tea",
    "tea " * 10_000,
    " ".join(f"w{n}" for n in range(10_000)),
    " or ".join(f"w{n}" for n in range(7_000)),
    " or ".join(["tea", *(f"w{n}" for n in range(5_000))]),
    " ".join(f"-w{n}" for n in range(7_000)),
    " ".join(f"a-b{n}" for n in range(1_000)),
    " or ".join(f"a-b{n} c-d" for n in range(700)),
    "e-" * 4_000 + "mail",
    '"' * 60_000,
    "-" * 60_000,
    "- " * 30_000,
    "or " * 20_000,
    "(" * 60_000,
    "\U0001f600 tea",
]


@pytest.fixture(scope="module")
def sources(postgres_url: str) -> Iterator[list[Any]]:
    """The same rows in SQLite, in PostgreSQL and in the mock."""
    toolkits, postgres = create_database("sqlite://"), create_database(postgres_url)
    engines: list[Engine] = [toolkits.engine, postgres.engine]
    mock: Any = MockRepository(Page, "t")
    made: list[Any] = [mock]
    for engine in engines:
        Base.metadata.create_all(engine)
        made.append(BaseRepository(Session(engine), Page, "t"))
    for repository in made:
        repository.bulk_create([{"id": n, "body": text, "plain": text} for n, text in enumerate(TEXTS)])
    yield made
    for repository in made[1:]:
        repository.db.close()
    toolkits.dispose()
    postgres.dispose()


def found(repository: Any, field: str, words: str) -> list[int]:
    return [row.id for row in repository.list({"filters": [QueryFilter(field, "search", words)]})]


def answers(sources: list[Any], words: str) -> list[list[int]]:
    return [found(repository, field, words) for repository in sources for field in ("body", "plain")]


# What PostgreSQL's parser takes for one word is found there by the whole of it only.
COMPOUND = {TEXTS.index(text) for text in ("e-mail", "joe@example.com", "tea/coffee", "version 1.5")}


@pytest.mark.parametrize("words", QUERIES, ids=lambda words: f"{words[:20]!r}:{len(words)}")
def test_every_database_finds_the_same(sources: list[Any], words: str) -> None:
    apart = {number for number in COMPOUND if TEXTS[number] not in (words.lower().strip(","), f"version {words}")}
    told = [[number for number in answer if number not in apart] for answer in answers(sources, words)]
    assert all(answer == told[0] for answer in told[1:]), told


@pytest.mark.parametrize("seed", range(8))
def test_random_texts_mean_the_same_everywhere(sources: list[Any], seed: int) -> None:
    draw = random.Random(seed)
    parts = [*WORDS, *'---""""  ()!&|:*<>\\,;\'#', " ", " ", " -", ' "', '" ', " or ", " OR ", " - "]
    for _ in range(60):
        words = "".join(draw.choice(parts) for _ in range(draw.randrange(1, 14)))
        told = [[number for number in answer if number not in COMPOUND] for answer in answers(sources, words)]
        assert all(answer == told[0] for answer in told[1:]), (words, told)


@pytest.mark.parametrize("seed", range(4))
def test_no_text_is_an_error(sources: list[Any], seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        size = draw.choice((3, 30, 300))
        words = "".join(chr(draw.choice((draw.randrange(1, 128), draw.randrange(160, 0x3000)))) for _ in range(size))
        for repository in sources:
            options = {"filters": [QueryFilter("body", "search", words)]}
            repository.list({**options, "sorts": [SortField("body", SortOrder.DESC, by="relevance")]})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tea -coffee", ["tea", "Milk tea; tea, milk!", "near tea", f"{LONG} tea"]),
        ("tea - coffee", ["TEA Coffee", "coffee tea", "tea and coffee", "tea or coffee", " ".join(WORDS)]),
        ("--tea coffee", ["TEA Coffee", "coffee tea", "tea and coffee", "tea or coffee", " ".join(WORDS)]),
        ('"coffee tea', ["coffee tea"]),
        ("e-mail", ["e-mail", "e mail"]),
        ("joe@example.com", ["joe@example.com"]),
        ("or", ["tea or coffee", " ".join(WORDS)]),
        ("nothing or 2nd", ["w12 2nd", " ".join(WORDS)]),
    ],
)
def test_what_a_text_means(sources: list[Any], words: str, expected: list[str]) -> None:
    for repository in sources:
        told = [TEXTS[number] for number in found(repository, "body", words)]
        told = [text for text in told if text == words or text not in ("tea/coffee", "version 1.5")]
        assert told == expected


@pytest.mark.parametrize(
    ("words", "wrong"), [("a\x00b", "NUL"), ("\ud800", "surrogates"), ("tea " * 20_000, "65536 characters")]
)
def test_what_is_no_text_is_refused_everywhere(sources: list[Any], words: str, wrong: str) -> None:
    for repository in sources:
        with pytest.raises(ValidationError, match=wrong):
            found(repository, "body", words)
