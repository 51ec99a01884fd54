"""The id of a request: taken from its header if that is valid, else made once."""

import pytest

from dotmac_database_fastapi.request_ids import current_request_id, is_request_id, request_id_of, within_request

CASES = {
    "a valid one": ([(b"x-request-id", b"abc-1")], "abc-1"),
    "of any case": ([(b"X-Request-ID", b"abc-1")], "abc-1"),
    "none": ([], None),
    "empty": ([(b"x-request-id", b"")], None),
    "two": ([(b"x-request-id", b"a"), (b"x-request-id", b"b")], None),
    "too long": ([(b"x-request-id", b"a" * 129)], None),
    "a line break": ([(b"x-request-id", b"a\n")], None),
    "not ASCII": ([(b"x-request-id", "\u00e9".encode("latin-1"))], None),
}


@pytest.mark.parametrize(("headers", "taken"), CASES.values(), ids=CASES)
def test_the_id_is_taken_from_a_valid_header_and_else_made_once(headers, taken):
    scope = {"type": "http", "headers": headers}
    first = request_id_of(scope)
    assert is_request_id(first)
    assert request_id_of(scope) == first
    if taken is None:
        assert request_id_of({"type": "http", "headers": headers}) != first
    else:
        assert first == taken


def test_the_current_id_is_that_of_the_innermost_block():
    assert current_request_id() is None
    with within_request("a"):
        with within_request("b"):
            assert current_request_id() == "b"
        assert current_request_id() == "a"
    assert current_request_id() is None
