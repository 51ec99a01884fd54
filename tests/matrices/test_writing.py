"""Test each way of writing with each kind of session, each driver, and each kind of key.

A test compares the whole table before and after, with the rows of another tenant, and the result of the method: its
count, or the objects in the order of the rows that it got, with the values in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.engine import make_url

from dotmac_database import EntityNotFoundError, create_database
from dotmac_database.models.traits import traits_of

from .rings import ACROSS, DRIVERS, Rings, rings_of
from .written import MODELS, Base, Documented, Drawn, Made, Numbered, Root, Shared

ROLE = "dotmac_writing_app"
FOREIGN = 3
"""The number of rows that the other tenant has."""

Row = tuple[Any, Any, bool, int]
"""The label, the amount, whether the row is deleted, and the version."""
Table = dict[tuple[Any, str], Row]
"""The rows of a table by tenant and code."""


@dataclass
class Cell:
    """The input of one way of writing, and the expected table and result."""

    model: type[Any]
    size: int
    across: bool
    before: Table = field(default_factory=dict)
    after: Table = field(default_factory=dict)
    keys: dict[tuple[Any, str], Any] = field(default_factory=dict)
    """The primary key of each row before the write."""
    returned: list[tuple[Any, str]] | None = None
    """The rows that the method must return as objects, in this order."""
    result: Any = None
    """The expected result, if it is not an object."""
    raises: type[Exception] | None = None

    @property
    def own(self) -> Any:
        return None if self.model is Shared else "a"

    def tenant_of(self, place: int) -> Any:
        """The tenant of the row at this index. Across tenants, the rows of both tenants alternate."""
        return "b" if self.across and self.own is not None and place % 2 else self.own

    def row(self, place: int, tenant: Any, code: str, **values: Any) -> dict[str, Any]:
        """The values of a new row, with its primary key if neither the class nor the database generates it."""
        row = {"code": code, **values}
        if self.across and tenant is not None:
            row["tenant_id"] = tenant
        return {**row, **made_key(self.model, 20_000 + place)}

    def named(self, tenant: Any, code: str, **values: Any) -> dict[str, Any]:
        """New values for a row, with its primary key."""
        names = traits_of(self.model).primary_key
        return {**dict(zip(names, self.keys[tenant, code], strict=True)), **values}

    def key(self, tenant: Any, code: str) -> Any:
        key = self.keys[tenant, code]
        return key if len(key) > 1 else key[0]

    @property
    def alive(self) -> list[tuple[Any, str]]:
        """The rows that the repository can see."""
        return [each for each, row in self.before.items() if not row[2] and (self.across or each[0] == self.own)]


def made_key(model: type[Any], number: int) -> dict[str, Any]:
    match model.__name__:
        case "Paired":
            return {"number": number}
        case "Extending":
            return {"id": number}
        case _:
            return {}


def order(size: int) -> list[int]:
    """All indexes, in an order that is neither the order of the codes nor its reverse."""
    return [(7 * place + 3) % size for place in range(size)] if size % 7 else list(reversed(range(size)))


def create(cell: Cell) -> Callable[[Any], Any]:
    cell.after[cell.own, "n0"] = ("new", 7, False, 1)
    cell.returned = [(cell.own, "n0")]
    return lambda repository: repository.create(cell.row(0, cell.own, "n0", label="new"))


def bulk_create(cell: Cell) -> Callable[[Any], Any]:
    rows = _new_rows(cell)
    return lambda repository: repository.bulk_create(rows)


def bulk_create_counted(cell: Cell) -> Callable[[Any], Any]:
    rows = _new_rows(cell)
    cell.returned, cell.result = None, cell.size
    return lambda repository: repository.bulk_create(rows, returning=False)


def _new_rows(cell: Cell) -> list[dict[str, Any]]:
    """New rows with different sets of fields; some have no label."""
    rows, cell.returned = [], []
    for place in order(cell.size):
        tenant, code = cell.tenant_of(place), f"n{place}"
        values: dict[str, Any] = {"label": None if place % 5 == 4 else f"new {place}"}
        if place % 3:
            values["amount"] = place
        rows.append(cell.row(place, tenant, code, **values))
        cell.after[tenant, code] = (values["label"], values.get("amount", 7), False, 1)
        cell.returned.append((tenant, code))
    return rows


def upsert_new(cell: Cell) -> Callable[[Any], Any]:
    cell.after[cell.own, "n0"] = ("new", 3, False, 1)
    cell.returned = [(cell.own, "n0")]
    row = cell.row(0, cell.own, "n0", label="new", amount=3)
    return lambda repository: repository.upsert(row, conflict(cell))


def upsert_held(cell: Cell) -> Callable[[Any], Any]:
    cell.after[cell.own, "gone"] = ("new", 3, False, 2)
    cell.returned = [(cell.own, "gone")]
    row = {**cell.row(0, cell.own, "gone", label="new", amount=3), **_own_key(cell, (cell.own, "gone"))}
    return lambda repository: repository.upsert(row, conflict(cell))


def bulk_upsert(cell: Cell) -> Callable[[Any], Any]:
    rows, cell.returned = [], []
    for place in order(cell.size):
        tenant = cell.tenant_of(place)
        held = place % 2 == 0 and (tenant, f"c{place}") in cell.before
        code = f"c{place}" if held else f"n{place}"
        label = None if place % 5 == 4 else f"new {place}"
        row = cell.row(place, tenant, code, label=label, amount=place)
        rows.append({**row, **_own_key(cell, (tenant, code))} if held else row)
        cell.after[tenant, code] = (label, place, False, 2 if held else 1)
        cell.returned.append((tenant, code))
    return lambda repository: repository.bulk_upsert(rows, conflict(cell))


def _own_key(cell: Cell, row: tuple[Any, str]) -> dict[str, Any]:
    """The primary key of an existing row, if the class does not generate its keys."""
    made = made_key(cell.model, 0)
    return dict.fromkeys(made, cell.keys[row][-1])


def conflict(cell: Cell) -> list[str]:
    return ["tenant_id", "code"] if cell.across and cell.own else ["code"]


def bulk_update(cell: Cell) -> Callable[[Any], Any]:
    rows = []
    alive = set(cell.alive)
    for place, (tenant, code) in enumerate([*reversed(list(cell.before))]):
        values: dict[str, Any] = {"label": None if place % 5 == 4 else f"u{place}"}
        if place % 3:
            values["amount"] = place
        if cell.model.__name__ == "Paired" and not cell.across and tenant != cell.own:
            continue  # the key contains another tenant, which is refused
        rows.append(cell.named(tenant, code, **values))
        if (tenant, code) in alive:
            before = cell.before[tenant, code]
            cell.after[tenant, code] = (values["label"], values.get("amount", before[1]), False, before[3] + 1)
    cell.result = len(alive)
    return lambda repository: repository.bulk_update(rows)


def update(cell: Cell) -> Callable[[Any], Any]:
    cell.after[cell.own, "c0"] = ("u", cell.before[cell.own, "c0"][1], False, 2)
    cell.returned = [(cell.own, "c0")]
    return lambda repository: repository.update(cell.key(cell.own, "c0"), {"label": "u"})


def update_foreign(cell: Cell) -> Callable[[Any], Any]:
    if cell.own is None or cell.across:
        return update(cell)
    cell.raises = EntityNotFoundError
    return lambda repository: repository.update(cell.key("b", "c0"), {"label": "u"})


def update_where(cell: Cell) -> Callable[[Any], Any]:
    found = [each for each in cell.alive if cell.before[each][1] >= 1]
    for each in found:
        cell.after[each] = ("u", cell.before[each][1], False, cell.before[each][3] + 1)
    cell.result = len(found)
    where = [{"field": "amount", "operator": "gte", "value": 1}]
    return lambda repository: repository.update_where(where, {"label": "u"})


def _deleted(cell: Cell, rows: list[tuple[Any, str]], *, softly: bool) -> None:
    for each in rows:
        label, amount, _, version = cell.after.pop(each)
        if softly:
            cell.after[each] = (label, amount, True, version + 1)


def delete(cell: Cell) -> Callable[[Any], Any]:
    _deleted(cell, [(cell.own, "c0")], softly=True)
    cell.result = True
    return lambda repository: repository.delete(cell.key(cell.own, "c0"))


def delete_for_good(cell: Cell) -> Callable[[Any], Any]:
    _deleted(cell, [(cell.own, "gone")], softly=False)
    cell.result = True
    return lambda repository: repository.delete(cell.key(cell.own, "gone"), soft_delete=False)


def delete_foreign(cell: Cell) -> Callable[[Any], Any]:
    if cell.own is None or cell.across:
        return delete(cell)
    cell.result = False
    return lambda repository: repository.delete(cell.key("b", "c0"))


def delete_where(cell: Cell) -> Callable[[Any], Any]:
    found = [each for each in cell.alive if cell.before[each][1] >= 1]
    _deleted(cell, found, softly=True)
    cell.result = len(found)
    return lambda repository: repository.delete_where([{"field": "amount", "operator": "gte", "value": 1}])


def delete_where_for_good(cell: Cell) -> Callable[[Any], Any]:
    found = [each for each in cell.before if cell.across or each[0] == cell.own]
    _deleted(cell, found, softly=False)
    cell.result = len(found)
    return lambda repository: repository.delete_where([], soft_delete=False, allow_all=True)


def restore(cell: Cell) -> Callable[[Any], Any]:
    label, amount, _, version = cell.before[cell.own, "gone"]
    cell.after[cell.own, "gone"] = (label, amount, False, version + 1)
    cell.returned = [(cell.own, "gone")]
    return lambda repository: repository.restore(cell.key(cell.own, "gone"))


def in_batches(cell: Cell) -> Callable[[Any], Any]:
    for each in cell.alive:
        _, amount, _, version = cell.before[each]
        cell.after[each] = ("u", amount, False, version + 1)
    cell.result = len(cell.alive)

    def work(batch: list[Any]) -> None:
        for entity in batch:
            entity.label = "u"

    return lambda repository: repository.in_batches(work, batch_size=max(2, cell.size // 3))


ONE_ROW = (create, upsert_new, upsert_held, update, update_foreign, delete, delete_for_good, delete_foreign, restore)
MANY_ROWS = (
    *(bulk_create, bulk_create_counted, bulk_upsert, bulk_update),
    *(update_where, delete_where, delete_where_for_good, in_batches),
)


class Bench:
    """The database of one driver. Each cell starts with its own rows only."""

    def __init__(self, url: Any, secured: Any, driver: str) -> None:
        self.database = create_database(url)
        self.rings = Rings(driver, url, secured, Base.metadata)

    def close(self) -> None:
        self.rings.close()
        self.database.dispose()

    def fault(self, ring: str, model: type[Any], method: Callable[[Cell], Any], size: int) -> str | None:
        """The error of one cell; None if it is correct."""
        cell = Cell(model, size, ring in ACROSS)
        held = 2 if method in ONE_ROW or method in (bulk_create, bulk_create_counted) else size
        with self.database.engine.begin() as connection:
            connection.execute(model.__table__.delete())
            connection.execute(insert(model.__table__), _rows(model, held))
            cell.before, found = _contents(connection, model)
            cell.keys = {each: key for each, (key, _) in found.items()}
        cell.after = dict(cell.before)
        act = method(cell)
        try:
            result = self.rings.run(ring, model, cell.own, act)
        except Exception as error:  # noqa: BLE001 - every exception is an error of the cell
            if cell.raises is None or not isinstance(error, cell.raises):
                return f"{type(error).__name__}: {str(error)[:200]}"
            result = None
        else:
            if cell.raises is not None:
                return f"{cell.raises.__name__} was not raised"
        with self.database.engine.begin() as connection:
            after, found = _contents(connection, model)
        return _difference(cell.after, after) or _wrong_result(
            cell, result, {row: all_ for row, (_, all_) in found.items()}
        )


def _rows(model: type[Any], size: int) -> list[dict[str, Any]]:
    """The rows of both tenants, or of no tenant. They differ only in their tenants, keys and amounts."""
    rows = []
    count = 0
    for tenant in (None,) if model is Shared else ("a", "b"):
        many = max(size, FOREIGN) if tenant != "b" else FOREIGN
        for code, deleted in [*((f"c{place}", False) for place in range(many)), ("gone", True)]:
            count += 1
            row = {"code": code, "label": "old", "amount": count, "is_deleted": deleted, "version": 1}
            row |= {} if tenant is None else {"tenant_id": tenant}
            row |= made_key(model, count) | ({"id": UUID(int=count)} if model is Made else {})
            rows.append(row)
    return rows


def _contents(connection: Connection, model: type[Any]) -> tuple[Table, dict[tuple[Any, str], tuple[Any, Any]]]:
    """The compared values of each row, and the primary key with all values of each row."""
    table: Table = {}
    found: dict[tuple[Any, str], tuple[Any, Any]] = {}
    names = traits_of(model).primary_key
    for row in connection.execute(select(model.__table__)).mappings():
        place = (row.get("tenant_id"), row["code"])
        table[place] = (row["label"], row["amount"], row["is_deleted"], row["version"])
        found[place] = tuple(row[name] for name in names), dict(row)
    return table, found


def _difference(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> str | None:
    wrong = [
        f"{place}: {actual.get(place)} is not {expected.get(place)}"
        for place in (*expected, *(each for each in actual if each not in expected))
        if expected.get(place) != actual.get(place)
    ]
    return f"{len(wrong)} rows: {'; '.join(wrong[:3])}" if wrong else None


def _wrong_result(cell: Cell, result: Any, stored: Mapping[Any, Mapping[str, Any]]) -> str | None:
    if cell.returned is None:
        same = result == cell.result and type(result) is type(cell.result)
        return None if same else f"gives {result!r}, not {cell.result!r}"
    entities = result if isinstance(result, list) else [result]
    places = [(getattr(each, "tenant_id", None), each.code) for each in entities]
    if places != cell.returned:
        wrong = next((here for here, there in zip(places, cell.returned, strict=False) if here != there), len(places))
        return f"gives other objects, or in another order, from {wrong} on"
    for place, entity in zip(places, entities, strict=True):
        for name, value in stored[place].items():
            if entity.__dict__.get(name, "nothing") != value:
                return f"{place}.{name} is {entity.__dict__.get(name, 'nothing')!r}, and {value!r} in the database"
    return None


@pytest.fixture(scope="module", params=DRIVERS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    driver = str(request.param)
    with _urls(request, tmp_path_factory, driver) as (url, secured):
        made = Bench(url, secured, driver)
        _prepare(made)
        yield made
        made.close()


@contextmanager
def _urls(request: Any, tmp_path_factory: Any, driver: str) -> Iterator[tuple[Any, Any]]:
    if DRIVERS[driver][0] == "sqlite":
        url = make_url(f"sqlite:///{tmp_path_factory.mktemp('writing')}/test.db")
        yield url, url
        return
    url = create_database(request.getfixturevalue("postgres_url")).url
    yield url, url.set(username=ROLE, password="dotmac")


def _prepare(bench: Bench) -> None:
    """Create the tables; on PostgreSQL with policies, which apply to the role and not to the superuser."""
    with bench.database.engine.begin() as connection:
        if not connection.dialect.has_table(connection, "roots"):
            Base.metadata.create_all(connection)
            connection.execute(insert(Root.__table__), [{"id": number} for number in range(30_000)])
            if connection.dialect.name == "postgresql":
                _secure(connection, bench.rings)


def _secure(connection: Connection, rings: Rings) -> None:
    known = connection.exec_driver_sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'").first()
    if known is None:
        connection.exec_driver_sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS")
    rings.rls.apply(connection)
    for kind in ("TABLES", "SEQUENCES"):
        connection.exec_driver_sql(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {ROLE}")


def faults(bench: Bench, cells: list[tuple[str, type[Any], Callable[[Cell], Any], int]]) -> str:
    """A line with the error for each wrong cell."""
    found = []
    for ring, model, method, size in cells:
        fault = bench.fault(ring, model, method, size)
        if fault is not None:
            found.append(f"{ring}, {model.__name__}, {method.__name__}, {size} rows: {fault}")
    return "\n".join(found)


def test_a_sample(bench: Bench) -> None:
    cells = [
        (ring, model, method, size)
        for ring in rings_of(bench.rings.driver)
        for models, methods, size in (
            ((Numbered,), ONE_ROW, 1),
            ((Drawn,), MANY_ROWS, 3),
            ((Made, Documented), (bulk_create, bulk_create_counted), 30),
        )
        for model in models
        for method in methods
    ]
    wrong = faults(bench, cells)
    assert not wrong, wrong


@pytest.mark.matrix
@pytest.mark.parametrize("size", [1, 3, 300, 5000])
def test_every_cell(bench: Bench, size: int) -> None:
    methods = (*ONE_ROW, *MANY_ROWS) if size == 1 else MANY_ROWS
    rings = rings_of(bench.rings.driver)
    cells = [(ring, model, method, size) for ring in rings for model in MODELS for method in methods]
    wrong = faults(bench, cells)
    assert not wrong, wrong
