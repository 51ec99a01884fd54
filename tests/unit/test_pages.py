"""Pages as values, and as Pydantic sees them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel, TypeAdapter

from dotmac_database import CursorPaginationResult, Estimate, PaginationResult


class Item(BaseModel):
    name: str


@dataclass
class Row:
    name: str


NUMBERED: list[tuple[PaginationResult[Any], dict[str, Any]]] = [
    (
        PaginationResult([Row("a")], 5, 2, 2),
        {"total": 5, "page": 2, "per_page": 2, "pages": 3, "has_next": True, "has_prev": True},
    ),
    (
        PaginationResult([], 0, 1, 20),
        {"total": 0, "page": 1, "per_page": 20, "pages": 0, "has_next": False, "has_prev": False},
    ),
    (
        PaginationResult([Row("a")], None, 1, 1, more=True),
        {
            "total": None,
            "page": 1,
            "per_page": 1,
            "pages": None,
            "has_next": True,
            "has_prev": False,
            "total_is_exact": False,
        },
    ),
    (
        PaginationResult([Row("a")], Estimate(9, exact=False), 9, 1, more=True),
        {
            "total": 9,
            "page": 9,
            "per_page": 1,
            "pages": 9,
            "has_next": True,
            "has_prev": True,
            "total_is_exact": False,
        },
    ),
]


@pytest.mark.parametrize(("page", "expected"), NUMBERED)
def test_a_numbered_page_keeps_all_its_fields(page: PaginationResult[Any], expected: dict[str, Any]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(PaginationResult[Item])
    checked = adapter.validate_python(page, from_attributes=True)
    assert all(isinstance(item, Item) for item in checked.items)
    dumped = adapter.dump_python(checked)
    assert dumped == {"items": [{"name": row.name} for row in page.items], **expected}
    again = adapter.validate_json(adapter.dump_json(checked))
    assert again == checked
    assert again.total_is_exact == page.total_is_exact


def test_a_page_between_cursors_keeps_all_its_fields() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(CursorPaginationResult[Item])
    checked = adapter.validate_python(CursorPaginationResult([Row("a")], "next"), from_attributes=True)
    assert adapter.dump_python(checked) == {
        "items": [{"name": "a"}],
        "next_cursor": "next",
        "prev_cursor": None,
        "has_next": True,
        "has_prev": False,
    }
    assert adapter.validate_json(adapter.dump_json(checked)) == checked


@pytest.mark.parametrize("given", [{"items": []}, {"items": [{"name": 1}], "total": 1}, "page", None])
def test_other_things_are_no_page(given: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        TypeAdapter(PaginationResult[Item]).validate_python(given)


def test_a_page_of_anything() -> None:
    page = PaginationResult([1, "x"], 2, 1, 2)
    assert TypeAdapter(PaginationResult).dump_python(page)["items"] == [1, "x"]
    assert jsonable_encoder(page) == {
        "items": [1, "x"],
        "total": 2,
        "page": 1,
        "per_page": 2,
        "pages": 1,
        "has_next": False,
        "has_prev": False,
    }


def test_pages_are_values() -> None:
    page = CursorPaginationResult([1], "n", "p")
    assert page == CursorPaginationResult([1], "n", "p")
    assert page != CursorPaginationResult([1], "n")
    assert page != PaginationResult([1], 1, 1, 1)
    assert copy.copy(page) == pickle.loads(pickle.dumps(page)) == page
    assert repr(page) == (
        "CursorPaginationResult(items=[1], next_cursor='n', prev_cursor='p', has_next=True, has_prev=True)"
    )
    with pytest.raises(AttributeError):
        page.items = []
    with pytest.raises(TypeError):
        hash(page)


def test_an_estimate_is_a_number_that_keeps_its_doubt() -> None:
    estimate = Estimate(7, exact=False)
    assert estimate + 1 == 8
    assert [each.exact for each in (copy.copy(estimate), pickle.loads(pickle.dumps(estimate)))] == [False, False]
