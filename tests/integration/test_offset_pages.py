"""Pages by `OffsetParams`: any offset, on every kind of repository.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

import pickle
from typing import Any

import pydantic
import pytest

from dotmac_database import (
    AsyncRepository,
    BaseRepository,
    MisuseError,
    OffsetParams,
    OffsetResult,
    QueryFilter,
    QueryOptions,
    SortField,
    ValidationError,
)
from dotmac_database.testing import AsyncMockRepository, MockRepository
from tests.conftest import Face, counted
from tests.models import Tag

SPANS = [(0, 3), (1, 3), (2, 1), (5, 10), (7, 3), (9, 5), (0, 1000)]
"""Offsets and limits in seven rows: at the beginning, across pages, at the end, and beyond it."""


def _tags(face: Face, session: Any, kind: str) -> Any:
    if kind == "mock":
        return (AsyncMockRepository if face.is_async else MockRepository)(Tag, tenant_id="t")
    return face.repository(session, Tag, "t")


@pytest.mark.parametrize("kind", ["rows", "values", "mock"])
@pytest.mark.parametrize("form", ["object", "dict", "nested dict"])
def test_any_offset(face: Face, kind: str, form: str) -> None:
    with face.session() as session:
        tags = _tags(face, session, kind)
        face(tags.bulk_create, [{"name": name} for name in "gfedcba"])
        if kind != "mock":
            face(face.repository(session, Tag, "u").create, {"name": "0"})
        read = tags.values("name") if kind == "values" else tags
        for skip, limit in SPANS:
            page = OffsetParams(skip, limit)
            options: Any = {
                "object": QueryOptions(sorts=[SortField("name")], pagination=page),
                "dict": {"sorts": [{"field": "name"}], "pagination": page},
                "nested dict": {"sorts": [{"field": "name"}], "pagination": {"skip": skip, "limit": limit}},
            }[form]
            names = list("abcdefg"[skip : skip + limit])
            result = face(read.page, options)
            assert type(result) is OffsetResult
            assert [each["name"] if kind == "values" else each.name for each in result.items] == names
            assert (result.total, result.skip, result.limit) == (7, skip, limit)
            assert (result.has_next, result.has_prev) == (skip + limit < 7, skip > 0)
            listed = face(read.list, options)
            assert [each["name"] if kind == "values" else each.name for each in listed] == names


def test_one_statement_and_one_more_beyond_the_end(face: Face) -> None:
    with face.session() as session:
        tags = face.repository(session, Tag, "t")
        face(tags.bulk_create, [{"name": name} for name in "abc"])
        for skip, statements in ((0, 1), (2, 1), (3, 2)):
            with counted(face.engine) as sent:
                face(tags.page, {"pagination": {"skip": skip}})
            assert len([each for each in sent if each.startswith("SELECT")]) == statements
        with counted(face.engine) as sent:
            page = face(tags.page, {"filters": [QueryFilter("name", value="x")], "pagination": {"skip": 0}})
        assert page.total == 0
        assert len([each for each in sent if each.startswith("SELECT")]) == 1


KINDS: list[tuple[str, int, int | None, bool, bool]] = [
    ("exact", 0, 7, True, True),
    ("exact", 5, 7, True, False),
    ("bounded", 0, 3, False, True),
    ("bounded", 5, 7, True, False),
    ("bounded", 9, 3, False, False),
    ("none", 0, None, False, True),
    ("none", 5, None, False, False),
    ("none", 9, None, False, False),
]
"""The kind of total, the rows that are skipped, the total with a bound of 3, whether it is exact, and `has_next`."""


@pytest.mark.parametrize("kind", ["rows", "values", "mock"])
@pytest.mark.parametrize(("total", "skip", "expected", "exact", "more"), KINDS)
def test_kinds_of_total(
    face: Face, kind: str, total: str, skip: int, expected: int | None, exact: bool, more: bool
) -> None:
    with face.session() as session:
        tags = _tags(face, session, kind)
        face(tags.bulk_create, [{"name": name} for name in "gfedcba"])
        read = tags.values("name") if kind == "values" else tags
        page = face(read.page, {"pagination": {"skip": skip, "limit": 2, "total": total, "bound": 3}})
        assert (page.total, page.total_is_exact, page.has_next) == (expected, exact, more)
        assert len(page.items) == (2 if skip < 7 else 0)


@pytest.mark.parametrize(
    ("page", "field"),
    [({"skip": -1}, "skip"), ({"limit": 0}, "limit"), ({"skip": 0, "limit": 1001}, "limit"), ({"skip": "x"}, "skip")],
)
def test_bad_values(face: Face, page: dict[str, Any], field: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        OffsetParams(**page)
    with face.session() as session:
        tags = face.repository(session, Tag, "t")
        for method in (tags.page, tags.list):
            with pytest.raises(ValidationError) as raised:
                face(method, {"pagination": page})
            assert raised.value.field == f"pagination.{field}"
            assert str(raised.value).startswith(f"options: pagination.{field}: ")


def test_pages_of_the_other_kind_are_refused(face: Face) -> None:
    options = QueryOptions(pagination=OffsetParams(1, 2))
    with face.session() as session:
        tags = face.repository(session, Tag, "t")
        with pytest.raises(MisuseError, match="OffsetParams") as raised:
            face(tags.list_paginated, options)
        assert raised.value.field == "pagination"
        with pytest.raises(MisuseError, match="page"):
            face(tags.cursor_paginate, options)
        with pytest.raises(MisuseError, match="pagination"):
            face(tags.stream, options)
        with pytest.raises(ValidationError, match=r"pagination\.page"):
            face(tags.page, {"pagination": {"page": 1, "skip": 1}})
        with pytest.raises(MisuseError, match="either"):
            face(tags.page, {"pagination": {"skip": 1}, "cursor_pagination": {"limit": 1}})


def test_the_plan_of_an_offset_page(face: Face) -> None:
    with face.session() as session:
        tags = face.repository(session, Tag, "t")
        by_offset = face(tags.explain, {"pagination": {"skip": 4, "limit": 4}})
        by_number = face(tags.explain, {"pagination": {"page": 2, "per_page": 4}})
    assert by_offset.statement == by_number.statement


def test_a_result_is_a_value() -> None:
    page = OffsetResult([1, 2], 7, 2, 2)
    assert page == OffsetResult([1, 2], 7, 2, 2)
    assert page != OffsetResult([1, 2], 7, 3, 2)
    assert pickle.loads(pickle.dumps(page)) == page
    with pytest.raises(AttributeError):
        page.skip = 3  # type: ignore[misc]  # what is tested
    adapter = pydantic.TypeAdapter(OffsetResult[int])
    fields = {"items": [1, 2], "total": 7, "skip": 2, "limit": 2, "has_next": True, "has_prev": True}
    assert adapter.dump_python(page) == fields
    assert adapter.validate_python(fields) == page
    assert set(adapter.json_schema(mode="serialization")["properties"]) == {*fields, "total_is_exact"}
    uncounted = OffsetResult([1], None, 0, 1, more=True)
    assert adapter.validate_python(adapter.dump_python(uncounted)) == uncounted


def test_an_overridden_method_is_used_for_its_own_kind(face: Face) -> None:
    """`page` calls the methods that a subclass overrides for the other two kinds, and none of them for an offset."""
    base: Any = AsyncRepository if face.is_async else BaseRepository

    class Tags(base):  # type: ignore[misc]  # the base depends on the face
        def list_paginated(self, options: Any = None) -> Any:
            raise AssertionError(options)

    with face.session() as session:
        assert face(Tags(session, Tag, "t").page, {"pagination": {"skip": 0}}).total == 0
