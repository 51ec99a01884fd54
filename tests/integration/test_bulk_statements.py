"""How many statements a bulk write takes: one a batch, whatever makes the keys, and never one a row.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import MetaData, insert

from dotmac_database import ALL_TENANTS
from tests.conftest import Face, counted
from tests.matrices.written import MODELS, Base, Documented, Drawn, Extending, Made, Numbered, Paired, Root, Shared

MANY = 300
AT_MOST = 2
"""One, and one that draws the keys beforehand."""


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def rows(face: Face, model: type[Any], many: int) -> list[dict[str, Any]]:
    made = [{"code": f"c{(11 * n) % many}", "label": None if n % 5 else "x", "amount": n} for n in range(many)]
    if model is Paired:
        return [{**row, "number": n} for n, row in enumerate(made)]
    if model is not Extending:
        return made
    with face.database.engine.begin() as connection:
        connection.execute(insert(Root.__table__), [{"id": n} for n in range(1, many + 1)])
    return [{**row, "id": many - n} for n, row in enumerate(made)]


def writes(sent: list[str]) -> list[str]:
    return [each for each in sent if each.split()[0] in ("INSERT", "UPDATE", "WITH", "SELECT")]


@pytest.mark.parametrize("model", [Numbered, Drawn])
def test_ten_thousand_rows_are_a_handful_of_statements(face: Face, model: type[Any]) -> None:
    """SQLite takes some 30,000 values in one statement."""
    with face.session() as session, counted(face.engine) as sent:
        made = face(face.repository(session, model, "a").bulk_create, rows(face, model, 10_000))
    assert [each.amount for each in made] == list(range(10_000))
    assert len(writes(sent)) <= 4


@pytest.mark.fast_way("update-statements")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("guarded", [False, True])
def test_rows_that_are_given_back(face: Face, model: type[Any], guarded: bool) -> None:
    given = rows(face, model, MANY)
    with face.guarded() if guarded else face.session() as session:
        repository = face.repository(session, model, None if model is Shared else "a")
        with counted(face.engine) as sent:
            made = face(repository.bulk_create, given)
        assert [(each.code, each.label, each.amount) for each in made] == [tuple(_data(row)) for row in given]
        assert len(writes(sent)) <= AT_MOST
        changes = [{**_key(repository, each), "label": f"l{each.amount}"} for each in made]
        with counted(face.engine) as sent:
            assert face(repository.bulk_update, changes) == MANY
        assert len(writes(sent)) <= (AT_MOST if model.__name__ != "Watched" else 2 * MANY)
        again = [{**row, "label": "again"} for row in reversed(given)]
        with counted(face.engine) as sent:
            written = face(repository.bulk_upsert, again, ["code"])
        assert [(each.code, each.label) for each in written] == [(row["code"], "again") for row in again]
        assert len(writes(sent)) <= AT_MOST


def _data(row: dict[str, Any]) -> list[Any]:
    return [row["code"], row["label"], row["amount"]]


def _key(repository: Any, entity: Any) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in repository.traits.primary_key}


@pytest.mark.parametrize("model", [Numbered, Made, Drawn, Documented])
@pytest.mark.parametrize("many", [1, 2, 19, 20, 21])
def test_few_rows(face: Face, model: type[Any], many: int) -> None:
    given = rows(face, model, many)
    with face.session() as session:
        repository = face.repository(session, model, "a")
        with counted(face.engine) as sent:
            made = face(repository.bulk_create, given)
        assert [each.amount for each in made] == list(range(many))
        assert len(writes(sent)) <= 2


def test_rows_of_several_sets_of_fields_and_keys(face: Face) -> None:
    """Some name their key, and some leave it to the database."""
    given: list[dict[str, Any]] = [
        {"code": f"c{n}", "amount": n, "tenant_id": "ab"[n % 2], "id": UUID(int=n) if n % 3 else None}
        for n in range(300)
    ]
    with face.session() as session:
        made = face(face.repository(session, Drawn, ALL_TENANTS).bulk_create, given)
        assert [each.amount for each in made] == list(range(300))
        assert all(each.id == UUID(int=n) for n, each in enumerate(made) if n % 3)
        assert len({each.id for each in made}) == 300
