"""UUIDs of version 7: the form of RFC 9562, the order within a call, and nothing twice."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest

from dotmac_database import uuids
from dotmac_database.uuids import uuids7


def test_the_form_is_that_of_the_rfc() -> None:
    (value,) = uuids7(1, 0x017F22E279B0)  # the time of the example in appendix A.6
    assert str(value).startswith("017f22e2-79b0-7")
    assert (value.version, value.variant) == (7, "specified in RFC 4122")


def test_it_begins_with_the_time_of_the_call() -> None:
    before = time.time_ns() // 1_000_000
    (value,) = uuids7(1)
    assert before <= value.int >> 80 <= time.time_ns() // 1_000_000 + 1


@pytest.mark.parametrize("random", [b"\x00", b"\xff"])
def test_those_of_one_call_ascend_also_beyond_the_counter(random: bytes) -> None:
    with patch.object(uuids, "urandom", lambda count: random * count):
        values = uuids7(10_000, 5)
    assert sorted(set(values)) == values
    assert {each.version for each in values} == {7}
    assert {each.variant for each in values} == {"specified in RFC 4122"}
    assert [values[0].int >> 80, values[-1].int >> 80] == [5, 7]


def test_none_comes_twice() -> None:
    assert len({each for _ in range(1000) for each in uuids7(5, 5)}) == 5000
    assert uuids7(0) == []
