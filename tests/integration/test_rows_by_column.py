"""New rows that are validated column by column are the same as those that are validated one by one.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID
from weakref import WeakSet

import pytest
from pydantic import BaseModel
from sqlalchemy import func, literal, null

from dotmac_database import ALL_TENANTS, ValidationError
from dotmac_database.actors import acting_as
from dotmac_database.repositories import bulk
from dotmac_database.statements.rows import changed_rows
from tests.conftest import Face
from tests.models import Post, Status, User

KEY = UUID(int=7)


class Named(BaseModel):
    name: str
    email: str | None = None
    score: int = 3


FIELDS: dict[str, list[Any]] = {
    "text": [{"name": "a"}, {"name": "ü"}, {"name": 5}, {"name": Decimal("1.5")}],
    "too long": [{"name": "a"}, {"name": "x" * 51}],
    "as long as possible": [{"name": "x" * 50}, {"name": "é" * 50}],
    "NUL": [{"name": "a"}, {"name": "a\x00"}],
    "surrogate": [{"name": "a"}, {"name": "\ud800"}],
    "an empty column": [{"name": "a", "score": None}, {"name": "b", "score": None}],
    "integers": [{"name": "a", "score": 2**31 - 1}, {"name": "a", "score": -(2**31)}],
    "a large integer": [{"name": "a", "score": 2**31}, {"name": "a", "score": 1}],
    "a small integer": [{"name": "a", "score": -(2**31) - 1}, {"name": "a", "score": 1}],
    "integers of other types": [{"name": "a", "score": "5"}, {"name": "a", "score": 5.0}, {"name": "a", "score": None}],
    "a Boolean as integer": [{"name": "a", "score": True}],
    "Booleans": [{"name": "a", "active": True}, {"name": "a", "active": 0}, {"name": "a", "active": "yes"}],
    "floats": [{"name": "a", "ratio": 1.5}, {"name": "a", "ratio": 2}, {"name": "a", "ratio": None}],
    "NaN": [{"name": "a", "ratio": float("nan")}],
    "decimals": [{"name": "a", "balance": "1.005"}, {"name": "a", "balance": 3}],
    "enums": [{"name": "a", "status": "new"}, {"name": "a", "status": Status.CLOSED}, {"name": "a", "status": "NEW"}],
    "no enum": [{"name": "a", "status": "newer"}],
    "JSON": [{"name": "a", "settings": {"n": [1]}}, {"name": "a", "settings": None}, {"name": "a", "settings": []}],
    "SQL NULL": [{"name": "a", "settings": null()}, {"name": "a", "settings": 1}],
    "no JSON": [{"name": "a", "settings": {1}}],
    "times": [{"name": "a", "seen_at": "2024-01-01"}, {"name": "a", "seen_at": datetime(2024, 1, 1, tzinfo=UTC)}],
    "keys": [{"name": "a", "id": KEY}, {"name": "b", "id": str(UUID(int=8))}],
    "some keys": [{"name": "a", "id": KEY}, {"name": "b", "id": None}, {"name": "c"}],
    "some defaults": [
        *({"name": "a", "status": None, "score": n} for n in range(3)),
        *({"name": "b", "status": "active", "score": n} for n in range(3)),
        {"name": "c", "status": None, "balance": None},
        {"score": 1, "name": "d"},
    ],
    "a required None": [{"name": "a"}, {"name": "b"}, {"name": None}],
    "a missing name": [{"name": "a"}, {"score": 1}],
    "several orders": [{"name": "a", "score": 1}, {"score": 2, "name": "b"}, {"name": "c", "score": 3}],
    "an unknown field": [{"name": "a"}, {"name": "b", "nane": 1}],
    "a name that is no text": [{"name": "a", 5: 1}],
    "its tenant": [{"name": "a", "tenant_id": "a"}, {"name": "b", "tenant_id": None}],
    "another tenant": [{"name": "a", "tenant_id": "a"}, {"name": "b", "tenant_id": "b"}],
    "audit columns": [{"name": "a", "created_by": "x", "updated_at": None}, {"name": "a", "created_by": None}],
    "an expression": [{"name": "a"}, {"name": func.lower("B")}],
    "an expression for a number": [{"name": "a", "score": literal(5)}],
    "an attribute": [{"name": User.email}],
    "a relationship": [{"name": "a", "posts": []}],
    "a version": [{"name": "a", "version": 5}, {"name": "b"}],
    "objects": [Named(name="a"), Named(name="b", score=4), Named(name="c", email="c@x"), {"name": "d"}],
    "entities": [User(name="a", score=1), User(name="b", score=2)],
    "no row": [{"name": "a"}, 5],
}


def prepared(face: Face, tenant: Any, data: list[Any]) -> Any:
    """The rows of each group with their places and without times, or the error."""
    with face.session() as session:
        repository = face.repository(session, User, tenant)
        core = repository._twin if face.is_async else repository
        with acting_as("somebody"):
            try:
                groups = core._new_rows(core._writer(None), data, 0)
            except Exception as error:  # noqa: BLE001 - the errors are compared
                return type(error), str(error), getattr(error, "field", None)
    return sorted(
        (tuple(group.places), [list(map(_comparable, row.items())) for row in map(_sorted, group.dicts())])
        for group in groups
    )


def _sorted(row: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(row.items()))


def _comparable(item: tuple[str, Any]) -> tuple[str, str, str]:
    name, value = item
    moment = name in ("created_at", "updated_at") and value is not None
    key = name == "id" and isinstance(value, UUID) and value.version == 7
    return name, type(value).__name__, "" if moment or key else str(value)


@pytest.mark.parametrize("case", FIELDS)
@pytest.mark.parametrize("tenant", ["a", ALL_TENANTS], ids=["a", "all"])
def test_both_ways_prepare_the_same(face: Face, case: str, tenant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FIELDS[case]
    by_column = prepared(face, tenant, data)
    monkeypatch.setattr(bulk, "new_rows", lambda *_: None)
    assert by_column == prepared(face, tenant, data)


def test_the_ordinary_cases_are_prepared_by_column(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above would compare a way with itself."""
    monkeypatch.setattr(bulk, "rows_of", None)
    for case in ("text", "integers of other types", "enums", "JSON", "some defaults", "several orders", "objects"):
        assert type(prepared(face, "a", FIELDS[case])) is list


def changes(face: Face, tenant: Any, data: list[Any], prepare: Any) -> Any:
    """The changes by primary key and without times, or the error. None: the rows must be prepared one by one."""
    with face.session() as session:
        repository = face.repository(session, User, tenant)
        core = repository._twin if face.is_async else repository
        with acting_as("somebody"):
            try:
                groups = prepare(core, core._writer(None), data)
            except Exception as error:  # noqa: BLE001 - the errors are compared
                return type(error), str(error), getattr(error, "field", None)
    return groups and sorted(
        (key, place, list(map(_comparable, _sorted(row).items())))
        for keys, group in groups
        for key, place, row in zip(keys, group.places, group.dicts(), strict=True)
    )


CHANGES: dict[str, list[Any]] = {
    **{case: [{"id": KEY, **row} for row in rows[:1]] for case, rows in FIELDS.items() if type(rows[0]) is dict},
    **{
        f"several, {case}": [{"id": str(UUID(int=n)), **row} for n, row in enumerate(rows)]
        for case, rows in FIELDS.items()
        if all(type(row) is dict for row in rows)
    },
    "a row without a key": [{"id": KEY, "name": "a"}, {"name": "b"}],
    "no key": [{"name": "a"}],
    "a key that is None": [{"id": None, "name": "a"}],
    "a key twice": [{"id": KEY, "name": "a"}, {"id": str(KEY), "name": "b"}],
    "a row without a change": [{"id": KEY}, {"id": UUID(int=1), "name": "b"}],
    "a wrong key": [{"id": "x", "name": "a"}],
    "no rows": [],
}


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("tenant", ["a", ALL_TENANTS], ids=["a", "all"])
def test_both_ways_prepare_the_same_changes(face: Face, case: str, tenant: Any) -> None:
    data = CHANGES[case]
    one_by_one = changes(face, tenant, data, lambda core, writer, rows: core._changes(writer, rows))
    by_column = changes(face, tenant, data, lambda _, writer, rows: changed_rows(writer, rows))
    assert by_column is None or by_column == one_by_one
    if case in ("several, text", "several, enums", "several, JSON", "a row without a change"):
        assert type(by_column) is list


class Tracked(dict[str, Any]):
    """A row of which it can be seen whether it is still in memory."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # a dict has none


@pytest.mark.parametrize("returning", [False, True])
def test_a_generators_rows_are_released_batch_by_batch(face: Face, returning: bool) -> None:
    alive: WeakSet[Tracked] = WeakSet()
    most = 0

    def rows() -> Iterator[Tracked]:
        nonlocal most
        for n in range(35_000):
            row = Tracked(id=n, title="t")
            alive.add(row)
            if n % 1000 == 999:
                most = max(most, len(alive))
            yield row
            del row

    with face.session() as session:
        posts = face.repository(session, Post, "a")
        created = face(posts.bulk_create, rows(), returning=returning)
        assert ([each.id for each in created] == list(range(35_000))) if returning else created == 35_000
        assert face(posts.count) == 35_000
    assert most <= 11_000


def test_a_refused_row_of_a_later_batch_undoes_all(face: Face) -> None:
    rows = [{"id": n, "title": "t"} for n in range(10_500)]
    with face.session() as session:
        posts = face.repository(session, Post, "a")
        with pytest.raises(ValidationError, match=r"row 10400"):
            face(posts.bulk_create, [{**row, "title": None} if row["id"] == 10_400 else row for row in rows])
        assert face(posts.count) == 0
        assert face(posts.bulk_create, rows, returning=False) == 10_500
