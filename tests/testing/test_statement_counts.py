"""`assert_statements`: the exact number of statements, and which line sent each."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from dotmac_database import Database, MisuseError
from dotmac_database.testing import assert_statements
from tests.conftest import Face
from tests.models import User


def send(face: Face, session: Any, number: int) -> None:
    for _ in range(number):
        face(session.execute, text("SELECT 'hush'"))


@pytest.mark.parametrize(("count", "sent"), [(0, 0), (2, 2), (0, 1), (3, 2), (1, 2)])
def test_the_number_is_exact(face: Face, count: int, sent: int) -> None:
    with face.session() as session:
        if count == sent:
            with assert_statements(count) as statements:
                send(face, session, sent)
            assert len(statements.sent) == sent
            return
        expected = f"^{sent} statements were sent, and {count} were expected:\n"
        with pytest.raises(AssertionError, match=expected) as caught, assert_statements(count):
            send(face, session, sent)
    message = str(caught.value)
    assert message.count("SELECT ?\n     at ") == sent
    assert "hush" not in message


def send_two(session: Session) -> None:
    session.execute(text("SELECT 1"))
    session.execute(text("SELECT 2"))


def test_the_lines_that_sent_them_are_named(database: Database) -> None:
    with database.sessions() as session, pytest.raises(AssertionError) as caught, assert_statements(0):
        send_two(session)
    lines = [line for line in str(caught.value).splitlines() if line.startswith("     at ")]
    assert all(f"{__file__}:" in line and "in send_two" in line for line in lines)
    assert len(set(lines)) == 2


def test_repositories_and_lazy_loads_count(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "acme")
        with assert_statements(2):
            face(users.count)
            face(users.list)


def test_an_error_of_the_block_is_shown_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), assert_statements(1):
        raise ZeroDivisionError


def test_none_were_sent() -> None:
    message = r"^0 statements were sent, and 1 were expected:\n  \(none\)$"
    with pytest.raises(AssertionError, match=message), assert_statements(1):
        assert True


@pytest.mark.parametrize("count", [-1, True, "2"])
def test_a_wrong_number_is_named(count: Any) -> None:
    with pytest.raises(MisuseError, match="a number of statements, 0 or more"), assert_statements(count):
        assert True
