"""What PostgreSQL refuses a value for is said in words, on each driver."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError

from dotmac_database import ValidationError
from dotmac_database.dialects.errors import translate

REFUSED = {
    "SELECT 1 OFFSET -1": "OFFSET",
    "SELECT 1 LIMIT -1": "LIMIT",
    "SELECT 'a' ~ '('": "a regular expression is not a valid one",
    "SELECT 'ba' LIKE 'b\\'": "a pattern ends with its escape character",
    "SELECT 'a' LIKE 'b' ESCAPE 'xx'": "or that is not a single one",
    "SELECT convert_from(decode('00', 'hex'), 'UTF8')": "a text has a character that the database's encoding lacks",
    "SELECT 'abc'::int": "a text can't be read as a value of the type",
    "SELECT 99999::smallint": "a number is beyond what its type can hold",
    "SELECT 'never'::date": "a date or a time is not written as one",
    "SELECT '2026-13-01'::date": "a date or a time is beyond what its type can hold",
    "SELECT 1 / 0": "a number is divided by zero",
    "SELECT date_trunc('nothing', now())": "an argument of a function or a setting",
    "SELECT ln(-1)": "a logarithm is taken of a number that has none",
    "SELECT (-1.0) ^ 0.5": "a power is taken of a number that has none",
    "SELECT width_bucket(1, 1, 1, 1)": "an argument of width_bucket()",
    "SELECT substring('a', 1, -1)": "the length of a part of a text is less than 0",
}


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return MetaData()


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_refused_value_is_told_in_words(face: Any) -> None:
    wrong = []
    for statement, words in REFUSED.items():
        with face.session() as session:
            try:
                face(session.execute, text(statement.replace(":", "\\:")))
            except DBAPIError as error:
                refused = translate(error)
                if not isinstance(refused, ValidationError) or words not in str(refused):
                    wrong.append(f"{statement}: {type(refused).__name__} {refused}")
            else:
                wrong.append(f"{statement}: not refused")
    assert wrong == []
