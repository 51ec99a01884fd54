"""Cursors that were altered, forged, mixed up or made for another query: refused, or the right page."""

from __future__ import annotations

import enum
import hashlib
import json
import math
import random
import re
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dotmac_database import (
    BaseRepository,
    DatabasePaginator,
    InvalidCursorError,
    PaginationHelper,
    QueryFilter,
    QueryOptions,
    SortField,
    SortOrder,
    ValidationError,
)
from dotmac_database.paging.cursors import MAX_LENGTH, CursorCodec
from dotmac_database.testing import AsyncMockRepository, MockRepository
from dotmac_database_fastapi import DatabasePlugin
from tests.conftest import Face
from tests.models import Status, User

MUTATIONS = 10_000
LIMIT = 3
KEYS = (b"the key of the tests", "another key of the tests")
DESC = SortOrder.DESC
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)
ROWS = [
    {
        "id": UUID(int=(number * 7919) % 65_521 << 96),
        "name": f"näme {number % 4}",
        "status": list(Status)[number % 3],
        "score": None if number % 5 == 0 else number % 7 - 2,
        "ratio": None if number % 4 == 0 else (number % 6) / 10,
        "balance": Decimal(number * 37 % 1000) / 100,
        "seen_at": None if number % 6 == 0 else MOMENT + timedelta(microseconds=number % 3),
        "patience": timedelta(microseconds=number),
        "settings": {"theme": f"t{number % 3}"},
    }
    for number in range(1, 14)
]
ORDERS = [
    [SortField("name"), SortField("status", DESC)],
    [SortField("seen_at", DESC), SortField("balance")],
    [SortField("settings.theme"), SortField("patience"), SortField("ratio", DESC)],
]


# -- mutations -----------------------------------------------------------------------------------------------------


def flipped_bit(draw: random.Random, cursor: str, _: list[str]) -> str:
    packed = bytearray(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    packed[draw.randrange(len(packed))] ^= 1 << draw.randrange(8)
    return urlsafe_b64encode(bytes(packed)).rstrip(b"=").decode()


def flipped_bits_of_text(draw: random.Random, cursor: str, _: list[str]) -> str:
    place = draw.randrange(len(cursor))
    return cursor[:place] + chr(ord(cursor[place]) ^ (1 << draw.randrange(8))) + cursor[place + 1 :]


def other_character(draw: random.Random, cursor: str, _: list[str]) -> str:
    place = draw.randrange(len(cursor))
    other = draw.choice(string.ascii_letters + string.digits + "-_")
    return cursor[:place] + other + cursor[place + 1 :]


def other_last_character(draw: random.Random, cursor: str, _: list[str]) -> str:
    """The last character has bits that no byte needs."""
    return cursor[:-1] + draw.choice(string.ascii_letters + string.digits + "-_")


def cut(draw: random.Random, cursor: str, _: list[str]) -> str:
    start = draw.randrange(len(cursor)) if draw.random() < 0.3 else 0
    return cursor[start : draw.randrange(len(cursor) + 1)]


def extended(draw: random.Random, cursor: str, _: list[str]) -> str:
    more = "".join(draw.choices(string.ascii_letters + "=-_ \n\t.%\x00", k=draw.randrange(1, 9)))
    return draw.choice((cursor + more, more + cursor))


def spliced(draw: random.Random, cursor: str, pool: list[str]) -> str:
    other = draw.choice(pool)
    place = draw.randrange(min(len(cursor), len(other)))
    return cursor[:place] + other[place:]


def spliced_bytes(draw: random.Random, cursor: str, pool: list[str]) -> str:
    """One's digest before another's body, and the like, on the byte."""
    one, other = (urlsafe_b64decode(each + "=" * (-len(each) % 4)) for each in (cursor, draw.choice(pool)))
    place = draw.choice((8, 16, 9, 17, 10, 18))
    return urlsafe_b64encode(one[:place] + other[draw.choice((place, 8, 16)) :]).rstrip(b"=").decode()


def other_padding(draw: random.Random, cursor: str, _: list[str]) -> str:
    return cursor + "=" * draw.randrange(1, 5)


def other_alphabet(draw: random.Random, cursor: str, _: list[str]) -> str:
    packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    standard = cursor.replace("-", "+").replace("_", "/")
    return draw.choice((standard, packed.hex(), cursor.swapcase(), cursor.lower(), cursor[::-1], f"{standard}=="))


def other_header(draw: random.Random, cursor: str, _: list[str]) -> str:
    """Another version or mode, with the digest as it was."""
    packed = bytearray(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    packed[min(draw.choice((8, 9, 16, 17)), len(packed) - 1)] = draw.randrange(256)
    return urlsafe_b64encode(bytes(packed)).rstrip(b"=").decode()


def very_long(draw: random.Random, cursor: str, _: list[str]) -> str:
    return draw.choice((cursor * 200, cursor + "A" * MAX_LENGTH, cursor + "=" * MAX_LENGTH, "A" * 10**6))


def not_ascii(draw: random.Random, cursor: str, _: list[str]) -> str:
    place = draw.randrange(len(cursor) + 1)
    odd = draw.choice(("é", "\ud800", "\u200b", "٣", "🙂", "\uff21", "\x00", "\x80", "\N{KELVIN SIGN}"))
    return cursor[:place] + odd + cursor[place + draw.randrange(2) :]


def another(draw: random.Random, _: str, pool: list[str]) -> str:
    """Somebody's, of another query, tenant or key."""
    return draw.choice(pool)


def invented(draw: random.Random, _cursor: str, _: list[str]) -> str:
    return draw.choice(
        (
            "",
            " ",
            "null",
            "0",
            urlsafe_b64encode(draw.randbytes(draw.randrange(60))).rstrip(b"=").decode(),
            urlsafe_b64encode(b"\x00" * draw.randrange(60)).rstrip(b"=").decode(),
            "".join(draw.choices(string.printable, k=draw.randrange(1, 80))),
        )
    )


MUTATORS = [
    flipped_bit, flipped_bits_of_text, other_character, other_last_character, cut, extended, spliced, spliced_bytes,
    other_padding, other_alphabet, other_header, very_long, not_ascii, another, invented,
]  # fmt: skip


# -- to the repository ---------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """One query, and the page that each of its cursors leads to."""

    repository: Any
    sorts: list[SortField]
    filters: list[QueryFilter]
    pages: dict[str, list[UUID]]

    def page(self, cursor: str | None) -> Any:
        options = QueryOptions(
            sorts=self.sorts, filters=self.filters, cursor_pagination={"limit": LIMIT, "cursor": cursor}
        )
        return self.repository.cursor_paginate(options)

    def walk(self) -> None:
        whole = [row.id for row in self.repository.list({"sorts": self.sorts, "filters": self.filters})]
        page, place = self.page(None), 0
        while page.next_cursor:
            place += LIMIT
            self.pages[page.next_cursor] = whole[place : place + LIMIT]
            page = self.page(page.next_cursor)
            if page.prev_cursor:
                self.pages[page.prev_cursor] = whole[place - LIMIT : place]
        assert len(self.pages) > 2


def queries(keys: list[Any]) -> list[Asked]:
    """Queries of three orders, two tenants, two filters and each of the keys, on one session."""
    first: Any = MockRepository(User, "a", cursor_key=keys[0])
    made = []
    for tenant in ("a", "b"):
        repository = first.with_tenant(tenant)
        rows = [{**row, "id": UUID(int=row["id"].int + ord(tenant))} for row in ROWS]
        repository.bulk_create(rows)
        for key in keys:
            one = BaseRepository(first.db, User, tenant, cursor_key=key)
            for sorts in ORDERS:
                made += [Asked(one, sorts, filters, {}) for filters in ([], [QueryFilter("balance", "gte", 1)])]
    for each in made:
        each.walk()
    return made


def mutated(seed: int, pool: list[str]) -> Iterator[str]:
    draw = random.Random(seed)
    for number in range(MUTATIONS):
        yield MUTATORS[number % len(MUTATORS)](draw, draw.choice(pool), pool)


def outcome(ask: Any, cursor: str) -> Any:
    """The ids of the page, or ``"refused"``; anything else that is raised leaves."""
    try:
        return [row.id for row in ask(cursor).items]
    except InvalidCursorError as error:
        assert type(error) is InvalidCursorError  # noqa: PT017 - either answer may be right
        assert str(error) == "The cursor is damaged, forged, or belongs to another query."  # noqa: PT017
        return "refused"


def test_of_ten_thousand_altered_cursors_none_but_the_untouched_is_taken_where_there_is_a_key() -> None:
    made = queries(list(KEYS))
    pool = [cursor for each in made for cursor in each.pages]
    draw, taken = random.Random(1), 0
    for cursor in mutated(4, pool):
        asked = draw.choice(made)
        expected = asked.pages.get(cursor, "refused")
        assert outcome(asked.page, cursor) == expected, cursor
        taken += expected != "refused"
    assert 0 < taken < MUTATIONS / 20
    assert made[0].repository.count() == len(ROWS)


def test_of_ten_thousand_altered_cursors_the_checksum_lets_none_pass() -> None:
    made = queries([None])
    pool = [cursor for each in made for cursor in each.pages]
    issued = {cursor: str(each.sorts) for each in made for cursor in each.pages}
    draw, taken = random.Random(2), 0
    for cursor in mutated(5, pool):
        asked = draw.choice(made)
        found = outcome(asked.page, cursor)
        # Without a key a cursor names a place in an order, whatever the filters and the tenant: one of the same order.
        if issued.get(cursor) != str(asked.sorts):
            assert found == "refused", cursor
            continue
        taken += 1
        whole = [row.id for row in asked.repository.list({"sorts": asked.sorts, "filters": asked.filters})]
        assert found == asked.pages.get(cursor, found)
        assert [each for each in whole if each in found] == found
    assert 0 < taken < MUTATIONS / 10


def test_every_byte_of_a_cursor_counts() -> None:
    for key in (None, KEYS[0]):
        codec = CursorCodec(key)
        cursor = codec.encode(("text", 1.5), mode="before", binding=b"b", scope=b"s")
        packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        for place in range(len(packed) * 8):
            bits = bytearray(packed)
            bits[place // 8] ^= 1 << place % 8
            with pytest.raises(InvalidCursorError):
                codec.decode(urlsafe_b64encode(bits).rstrip(b"=").decode(), binding=b"b", scope=b"s")
        for place in range(len(cursor)):
            with pytest.raises(InvalidCursorError):
                codec.decode(cursor[:place], binding=b"b", scope=b"s")
        assert codec.decode(cursor, binding=b"b", scope=b"s") == ("before", ("text", 1.5))


def test_altered_cursors_given_to_the_helper_and_the_paginator() -> None:
    made = queries([None])
    session = made[0].repository.db
    query = select(User).where(User.tenant_id == "a")
    walked: dict[str, list[UUID]] = {}
    cursor: str | None = None
    while True:
        items, following, more = DatabasePaginator.cursor_paginate_query(session, query, "seen_at", LIMIT, cursor)
        if cursor is not None:
            walked[cursor] = [row.id for row in items]
        if not more:
            break
        cursor = following
    values = {PaginationHelper.encode_cursor(value): value for value in ("a", 1, (1, "b"), MOMENT, Decimal("1.50"))}
    signed = {PaginationHelper.encode_cursor(value, KEYS[0]): value for value in values.values()}
    pool = [*walked, *values, *signed]
    for text in mutated(6, pool):
        try:
            found = [
                row.id for row in DatabasePaginator.cursor_paginate_query(session, query, "seen_at", LIMIT, text)[0]
            ]
        except InvalidCursorError:
            found = None
        assert found == walked.get(text)
        for key, known in ((None, values), (KEYS[0], signed), (KEYS[1], {})):
            try:
                decoded = PaginationHelper.decode_cursor(text, key)
            except InvalidCursorError:
                assert text not in known
            else:
                assert decoded == known[text]


# -- forged with the right checksum: without a key anybody can ------------------------------------------------------


def sealed(body: bytes, binding: bytes) -> str:
    """A body with the checksum that it must have, worked out from the description of the format."""
    told = b"".join(len(part).to_bytes(8, "big") + part for part in (body, binding))
    checksum = hashlib.blake2b(told, digest_size=8, person=b"dotmac-cursor").digest()
    return urlsafe_b64encode(checksum + body).rstrip(b"=").decode()


BODIES: list[bytes] = [
    b"",
    b"\x01",
    b"\x01\x00",
    b"\x02\x00[]",
    b"\x00\x00[]",
    b"\x01\x09[]",
    b"\x01\xff[]",
    b"\x01\x00[",
    b"\x01\x00{}",
    b"\x01\x00null",
    b"\x01\x00\xff\xfe",
    b"\x01\x00" + b"[" * 2_900,
    b"\x01\x00" + b"[" * 1_400 + b"]" * 1_400,
    b"\x01\x00[NaN]",
    b"\x01\x00[Infinity]",
    b"\x01\x00[1.5]",
    b"\x01\x00[1e999]",
    b"\x01\x00[{}]",
    b'\x01\x00[{"x":"y"}]',
    b'\x01\x00[{"d":1}]',
    b'\x01\x00[{"d":"x","D":"y"}]',
    b'\x01\x00[{"d":["2024-01-01"]}]',
    b'\x01\x00[{"n":"x"}]',
    b'\x01\x00[{"b":"\xc3\xa9"}]',
    b'\x01\x00[{"u":"x"}]',
    b'\x01\x00[{"f":"x"}]',
    b'\x01\x00[{"I":"x"}]',
    b'\x01\x00[{"i":"' + b"9" * 2_000 + b'"}]',
    b'\x01\x00[{"t":"25:00"}]',
    b"\x01\x00[" + b"9" * 2_900 + b"]",
    b'\x01\x00["\\ud800"]',
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:30]))
def test_a_forged_body_is_refused_however_it_is_malformed(body: bytes) -> None:
    made: Any = MockRepository(User, "a")
    made.bulk_create(ROWS)
    sorts = [SortField("name")]
    cursor = made.cursor_paginate({"sorts": sorts, "cursor_pagination": {"limit": 2}}).next_cursor
    good = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[8:]
    binding = b"users|name+0,id+0"
    assert sealed(good, binding) == cursor  # so that the others fail for their bodies alone
    with pytest.raises(InvalidCursorError):
        made.cursor_paginate({"sorts": sorts, "cursor_pagination": {"cursor": sealed(body, binding)}})
    try:
        PaginationHelper.decode_cursor(sealed(body, b"PaginationHelper"))
    except InvalidCursorError:
        pass
    else:
        assert body[2:3] == b"["


EARLIEST, LATEST = datetime.min, datetime.max  # noqa: DTZ901 - naive ones are UTC
FAR_EAST, FAR_WEST = timezone(timedelta(hours=23)), timezone(timedelta(hours=-23))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**40]),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from([Decimal("1e999"), Decimal("1e-999"), Decimal("1e999999"), Decimal("-0"), Decimal("1e131072")]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["\x00", "a\x00b", "%", "NEW", "active", "x" * 1000, "'; DROP TABLE users; --", "inf", "NaN"]),
    st.binary(max_size=10),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.sampled_from([EARLIEST, LATEST, EARLIEST.replace(tzinfo=FAR_EAST), LATEST.replace(tzinfo=FAR_WEST), MOMENT]),
    st.dates(),
    st.times(),
    st.times(timezones=st.just(UTC)),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(Status),
    st.tuples(st.integers(), st.text(max_size=3, alphabet="ab")),
)
FIELDS = (
    "id", "name", "status", "score", "ratio", "balance", "seen_at", "born", "wakes",
    "patience", "active", "version", "settings.theme",
)  # fmt: skip
QUICK = settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def users(face: Face) -> Iterator[Any]:
    with face.session() as session:
        repository = face.repository(session, User, "a")
        face(repository.bulk_create, ROWS)
        yield repository


@QUICK
@given(
    field=st.sampled_from([*FIELDS, "name by folded"]),
    value=SCALARS,
    key=st.one_of(st.uuids(), SCALARS),
    mode=st.sampled_from(["after", "before", "from", "until"]),
    descending=st.booleans(),
)
@example(field="settings.theme", value="a\x00b", key=UUID(int=1), mode="after", descending=False)
@example(field="name by folded", value="a\x00b", key=UUID(int=1), mode="after", descending=False)
@example(field="status", value=2**70, key=UUID(int=1), mode="after", descending=False)
@example(field="status", value=-1, key=UUID(int=1), mode="after", descending=False)
@example(field="wakes", value=time(1, tzinfo=UTC), key=UUID(int=1), mode="after", descending=False)
@example(field="born", value=date.max, key=UUID(int=1), mode="before", descending=True)
@example(field="ratio", value=math.inf, key=UUID(int=1), mode="after", descending=False)
def test_a_forged_place_is_refused_or_a_place_like_any_other(
    face: Face, users: Any, field: str, value: Any, key: Any, mode: str, descending: bool
) -> None:
    field, _, by = field.partition(" by ")
    sort = SortField(field, DESC if descending else SortOrder.ASC, None, by or "value")
    order = f"{field}{'-' if descending else '+'}{int(descending)}{':folded' if by else ''}"
    order += "" if field == "id" else f",id{'-' if descending else '+'}{int(descending)}"
    values = (value,) if field == "id" else (value, key)
    cursor = CursorCodec().encode(values, mode=mode, binding=f"users|{order}".encode())
    try:
        page = face(users.cursor_paginate, {"sorts": [sort], "cursor_pagination": {"limit": 50, "cursor": cursor}})
    except InvalidCursorError:
        assert not plausible(field, value, key, face.database.engine.dialect.name)
    else:
        whole = [row.id for row in face(users.list, {"sorts": [sort]})]
        found = [row.id for row in page.items]
        assert found == (whole[len(whole) - len(found) :] if mode in ("after", "from") else whole[: len(found)])
    assert face(users.count) == len(ROWS)


def plausible(field: str, value: Any, key: Any, dialect: str) -> bool:
    """Whether a place is one that an honest cursor could name: then it must be taken."""
    kinds: dict[str, type] = {"id": UUID, "score": int, "ratio": float}
    if dialect == "postgresql":
        kinds["seen_at"] = datetime  # SQLite's cursors have the text that is stored
    if field not in kinds or type(value) is not kinds[field] or not (field == "id" or isinstance(key, UUID)):
        return False
    if field == "score":
        return -(2**31) <= value < 2**31
    return field != "seen_at" or (value.tzinfo is not None and 1 < value.year < 9999)


# -- round trips ---------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    LOW = 1


ZONES = [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(seconds=1))]
ROUND = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.datetimes(),
    st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(seconds=1))])
    ),
    st.dates(),
    st.times(),
    st.times(timezones=st.just(UTC)),
    st.timedeltas(),
    st.uuids(),
)


def plain(value: Any) -> Any:
    """The value without its fold, which is about the wall clock and not about the order."""
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return value.replace(fold=0) if isinstance(value, (datetime, time)) else value


def same(one: Any, other: Any) -> bool:
    """Equal, of one type, and told alike: 1.50 is not 1.5, nor -0.0 0.0."""
    return type(one) is type(other) and repr(one) == repr(other)


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(ROUND, st.lists(ROUND, max_size=5).map(tuple)),
    st.sampled_from([None, KEYS[0], "clé de seize octets", KEYS]),
)
@example(math.inf, None)
@example(-math.inf, None)
@example(-0.0, None)
@example(5e-324, None)
@example(2**53, None)
@example(-(2**53), None)
@example(10**800, None)
@example(Decimal("1.500"), None)
@example(Decimal("-0.00"), None)
@example(Decimal("1E+5"), None)
@example("", None)
@example((), None)
@example(True, None)
@example(1, None)
@example("\x00", None)
@example("🙂é\u2028", None)
@example(datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None)
@example(datetime.max.replace(tzinfo=UTC), None)
@example(timedelta.max, None)
@example(timedelta.min, None)
@example(timedelta(microseconds=-1), None)
def test_every_scalar_comes_back_as_it_was(value: Any, key: Any) -> None:
    cursor = PaginationHelper.encode_cursor(value, key)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert len(cursor) <= MAX_LENGTH
    decoded = PaginationHelper.decode_cursor(cursor, key)
    assert same(decoded, plain(value)), (decoded, value)
    assert PaginationHelper.encode_cursor(value, key) == cursor


@pytest.mark.parametrize("member", [Colour.RED, Status.NEW, Level.LOW])
def test_an_enum_travels_by_its_members_name(member: enum.Enum) -> None:
    decoded = PaginationHelper.decode_cursor(PaginationHelper.encode_cursor(member))
    assert decoded == member.name
    assert isinstance(decoded, str)


@pytest.mark.parametrize(
    "value",
    [math.nan, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), "\ud800", object(), [1], {"a": 1}, {1}, 1j, print],
)
def test_what_has_no_place_in_an_order_is_refused_when_it_is_encoded(value: Any) -> None:
    for each in (value, (1, value)):
        with pytest.raises(ValidationError):
            PaginationHelper.encode_cursor(each)


def test_a_cursor_that_could_not_be_taken_is_not_made() -> None:
    for size in range(2_900, 3_100):
        try:
            cursor = PaginationHelper.encode_cursor("x" * size, KEYS[0])
        except ValidationError as refused:
            assert "long" in str(refused)  # noqa: PT017 - either is right, by its length
            break
        assert len(cursor) <= MAX_LENGTH
        assert PaginationHelper.decode_cursor(cursor, KEYS[0]) == "x" * size
    else:
        pytest.fail("nothing was too long")
    for value in ("x" * 10**6, "é" * 4_000, b"x" * 4_000, 10**6_000, ("x" * 2_000, "y" * 2_000)):
        with pytest.raises(ValidationError, match="long"):
            PaginationHelper.encode_cursor(value)


# -- keys ----------------------------------------------------------------------------------------------------------


OLD, NEW = "an old key of the tests", "a new key of the tests"


def test_keys_are_rotated_without_a_cursor_being_lost() -> None:
    old, both, new = CursorCodec(OLD), CursorCodec([NEW, OLD.encode()]), CursorCodec(NEW.encode())
    of_old = old.encode((1,), mode="after", binding=b"b")
    of_both = both.encode((1,), mode="after", binding=b"b")
    assert both.decode(of_old, binding=b"b") == ("after", (1,))
    assert both.decode(of_both, binding=b"b") == new.decode(of_both, binding=b"b") == ("after", (1,))
    for codec, cursor in (
        (new, of_old),
        (old, of_both),
        (CursorCodec(), of_old),
        (CursorCodec("a third key of tests"), of_both),
    ):
        with pytest.raises(InvalidCursorError):
            codec.decode(cursor, binding=b"b")
    plain = CursorCodec().encode((1,), mode="after", binding=b"b")
    with pytest.raises(InvalidCursorError):
        both.decode(plain, binding=b"b")


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6), min_size=2, max_size=2, unique=True), st.binary(max_size=6))
def test_no_two_queries_share_a_cursor(bindings: list[bytes], scope: bytes) -> None:
    one, other = bindings
    for codec in (CursorCodec(), CursorCodec(KEYS[0])):
        cursor = codec.encode((1,), mode="after", binding=one, scope=scope)
        with pytest.raises(InvalidCursorError):
            codec.decode(cursor, binding=other, scope=scope)
    signed = CursorCodec(KEYS[0]).encode((1,), mode="after", binding=one, scope=scope)
    with pytest.raises(InvalidCursorError):
        CursorCodec(KEYS[0]).decode(signed, binding=one, scope=scope + b"x")
    if one + scope == other + scope[: len(scope)]:
        return
    with pytest.raises(InvalidCursorError):  # what moves from one part to the next is another query
        CursorCodec(KEYS[0]).decode(signed, binding=one + b"s", scope=scope[1:])


SHORT: list[Any] = [b"", "", (), [b""], [b"k", ""], "k", b"k" * 15, "é" * 7, [OLD, "k"]]


@pytest.mark.parametrize("key", SHORT)
def test_an_empty_or_short_key_is_refused(key: Any) -> None:
    with pytest.raises(ValidationError, match="empty"):
        PaginationHelper.encode_cursor(1, key)
    with pytest.raises(ValidationError, match="empty"):
        PaginationHelper.decode_cursor("AAAA", key)


@pytest.mark.parametrize("key", [*SHORT, 16, 1.5, object(), {"a": 1}, "\ud800" * 16])
def test_what_takes_a_key_refuses_a_bad_one_at_once(key: Any) -> None:
    makers: list[Callable[[], Any]] = [
        lambda: CursorCodec(key),
        lambda: MockRepository(User, "a", cursor_key=key),
        lambda: AsyncMockRepository(User, "a", cursor_key=key),
        lambda: DatabasePlugin("sqlite://", cursor_key=key),
    ]
    for make in makers:
        with pytest.raises(ValidationError, match=r"^A cursor key") as refused:
            make()
        assert refused.value.field == "cursor_key"


@pytest.mark.parametrize("key", ["é" * 8, b"k" * 16, [b"k" * 16], (OLD, NEW), None])
def test_a_key_of_sixteen_bytes_is_taken(key: Any) -> None:
    assert PaginationHelper.decode_cursor(PaginationHelper.encode_cursor(1, key), key) == 1
    assert "k" * 16 not in repr(CursorCodec(key))


@pytest.mark.parametrize("cursor", [None, 1, b"AAAA", ["AAAA"], object()])
def test_what_is_no_text_is_no_cursor(cursor: Any) -> None:
    with pytest.raises(InvalidCursorError):
        PaginationHelper.decode_cursor(cursor)


def test_a_cursor_says_its_payload_as_json_and_is_compact() -> None:
    cursor = PaginationHelper.encode_cursor((MOMENT, UUID(int=7)), KEYS[0])
    body = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[16:]
    assert body[:2] == b"\x01\x02"
    assert json.loads(body[2:]) == [{"d": "2024-01-01T00:00:00+00:00"}, {"u": UUID(int=7).hex}]
    assert len(cursor) < 140
