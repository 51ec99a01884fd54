"""What options get wrong is said about the form that was meant, and a wrong operator with a suggestion."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac_database import QueryOptions, ValidationError
from dotmac_database.query import options_of

A, B = {"field": "a"}, {"field": "b", "operator": "startswith"}

CASES: list[tuple[Any, str, str]] = [
    ([B], "filters.0.operator", "there is no such operator; did you mean 'starts_with'?"),
    ([A, {**A, "operator": "GTE"}], "filters.1.operator", "there is no such operator; did you mean 'gte'?"),
    ([{**A, "operator": "xyz"}], "filters.0.operator", "Input should be 'eq', 'ne'"),
    ([{"field": "a", "valeu": 1}], "filters.0.valeu", "Unexpected keyword argument"),
    ([{"value": 1}], "filters.0.field", "Field required"),
    ([5], "filters.0", "Input should be a dictionary or an instance of QueryFilter"),
    ([{"mode": "some", "members": []}], "filters.0.mode", "Input should be 'any', 'all' or 'none'"),
    ([{"mode": "any"}], "filters.0.members", "Field required"),
    ([{"mode": "any", "members": [A, B]}], "filters.0.members.1.operator", "did you mean 'starts_with'?"),
    (
        [{"mode": "any", "members": [{"mode": "no", "members": []}]}],
        "filters.0.members.0.mode",
        "Input should be 'any', 'all' or 'none'",
    ),
]


@pytest.mark.parametrize(("filters", "place", "message"), CASES, ids=str)
def test_one_fault_is_said_once_and_of_the_form_that_was_meant(filters: Any, place: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        options_of({"filters": filters})
    text = str(caught.value)
    assert text.startswith(f"options: {place}: ")
    assert message in text
    assert text.count("; filters.") == 0
    assert "FilterGroup" not in text
    assert caught.value.field == place


def test_a_page_of_another_form_is_not_confused_with_it() -> None:
    with pytest.raises(ValidationError, match=r"^options: pagination\.per_page: ") as caught:
        options_of({"pagination": {"per_page": 0}})
    assert caught.value.field == "pagination.per_page"
    assert options_of({"filters": [A]}) == QueryOptions(filters=[A])  # type: ignore[list-item]  # dicts are converted
