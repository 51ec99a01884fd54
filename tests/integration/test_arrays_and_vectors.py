"""Filters on PostgreSQL's arrays and text vectors, with good, bad and hostile values: right, or a `ValidationError`.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ARRAY, Computed, Integer, MetaData, String
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import FilterOperator, QueryFilter, TenantMixin, ValidationError
from tests.conftest import Face
from tests.hostile import HOSTILE

Op = FilterOperator
pytestmark = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True, scope="module")


class Base(DeclarativeBase):
    """What only PostgreSQL has."""


class Document(TenantMixin, Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    numbers: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    body: Mapped[str]
    words: Mapped[Any] = mapped_column(TSVECTOR, Computed("to_tsvector('simple'::regconfig, body)", persisted=True))


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


@pytest.fixture
def documents(face: Face) -> Iterator[Any]:
    with face.session() as session:
        documents = face.repository(session, Document, "a")
        rows = [
            {"id": 1, "tags": ["a", "b"], "numbers": [1, 2], "body": "green tea"},
            {"id": 2, "tags": ["b", "c"], "numbers": [2, 3], "body": "black coffee"},
            {"id": 3, "tags": [], "numbers": [], "body": "no tea, coffee"},
            {"id": 4, "body": "nothing"},
        ]
        for row in rows:
            face(documents.create, row)
        yield documents


def asked(face: Face, rows: Any, field: str, operator: FilterOperator, value: Any) -> Any:
    """The keys that match, or what the refusal says."""
    try:
        return [row["id"] for row in face(rows.values("id").list, {"filters": [QueryFilter(field, operator, value)]})]
    except ValidationError as refused:
        return "refused" if field.partition(".")[0] in str(refused) else refused


ARRAYS: list[tuple[str, FilterOperator, Any, Any]] = [
    ("tags", Op.CONTAINS, ["b"], [1, 2]),
    ("tags", Op.CONTAINS, "a", [1]),
    ("tags", Op.CONTAINS, [], [1, 2, 3]),
    ("tags", Op.CONTAINED_BY, ["a", "b"], [1, 3]),
    ("tags", Op.OVERLAPS, ["a", "c"], [1, 2]),
    ("tags", Op.OVERLAPS, [], []),
    ("tags", Op.EQ, ["a", "b"], [1]),
    ("tags", Op.NE, ["a", "b"], [2, 3]),
    ("tags", Op.IS_NULL, True, [4]),
    ("numbers", Op.CONTAINS, ["2"], [1, 2]),
    ("numbers", Op.OVERLAPS, [3, 9], [2]),
    ("numbers", Op.CONTAINS, ["x"], "refused"),
    ("numbers", Op.CONTAINS, [2**40], "refused"),
    ("tags", Op.CONTAINS, ["\x00"], "refused"),
    ("tags", Op.IN, [["a"]], "refused"),
    ("tags", Op.LIKE, "a", "refused"),
    ("words", Op.SEARCH, "tea", [1, 3]),
    ("words", Op.SEARCH, "coffee -tea", [2]),
    ("words", Op.SEARCH, '"green tea" or nothing', [1, 4]),
    ("words", Op.SEARCH, 5, "refused"),
]


@pytest.mark.parametrize(("field", "operator", "value", "expected"), ARRAYS)
def test_arrays_and_vectors(
    face: Face, documents: Any, field: str, operator: FilterOperator, value: Any, expected: Any
) -> None:
    assert asked(face, documents, field, operator, value) == expected


@pytest.mark.parametrize("field", ["tags", "numbers", "words"])
@pytest.mark.parametrize("operator", Op)
def test_hostile_values_of_arrays_and_vectors(face: Face, documents: Any, field: str, operator: FilterOperator) -> None:
    for value in HOSTILE:
        found = asked(face, documents, field, operator, value)
        assert found == "refused" or isinstance(found, list), (value, found)
    assert face(documents.count) == 4
