"""React Admin's data provider ``ra-data-simple-rest`` as it is on npm, against routers with the options `REACT_ADMIN`.

Two tenants, whose rows look alike, call every method of the provider: for the app of this module, and for that of
`docs/endpoints.md`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import AuditMixin, Database, SoftDeleteMixin, TenantMixin, VersionMixin
from dotmac_database_fastapi import (
    REACT_ADMIN,
    DatabasePlugin,
    crud_router,
    register_exception_handlers,
    tenant_from_header,
)
from tests.clients.conftest import library_tables
from tests.clients.installing import installed, run
from tests.fastapi import endpoints_app
from tests.fastapi.conftest import serving

HERE = Path(__file__).parent / "react_admin"
NODE, NPM = shutil.which("node"), shutil.which("npm")
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")

pytestmark = pytest.mark.skipif(NODE is None or NPM is None, reason="node and npm are needed")


class Base(DeclarativeBase):
    """The tables of this module."""


class Customer(TenantMixin, Base):
    __tablename__ = "admin_customers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "admin_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(40))
    status: Mapped[str] = mapped_column(default="open")
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    customer_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Customer.id))
    customer: Mapped[Customer] = relationship()


FILTERS = ("id", "title", "status", "customer_id", "customer.name")


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    metadata = library_tables()
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    return metadata


@pytest.fixture
def customers(database: Database) -> dict[str, list[str]]:
    """The keys of three customers of each tenant. They have 24 orders, and one that is deleted."""
    keys = {tenant: [uuid4() for _ in range(3)] for tenant in "ab"}
    with database.sessions.begin() as session:
        for tenant, ids in keys.items():
            names = [Customer(id=key, tenant_id=tenant, name=f"customer {n}") for n, key in enumerate(ids)]
            session.add_all(names)
            session.flush()
            for number in range(25):
                status = "open" if number % 2 else "sent"
                order = Order(tenant_id=tenant, title=f"order {number:02}", status=status, customer_id=ids[number % 3])
                order.is_deleted = number == 24
                session.add(order)
    return {tenant: [str(key) for key in ids] for tenant, ids in keys.items()}


@pytest.fixture
def address(database: Database) -> Iterator[str]:
    plugin = DatabasePlugin(database.url, tenant=tenant_from_header("X-Tenant-ID"))
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    app.include_router(crud_router(Customer, "/customers", options=REACT_ADMIN))
    app.include_router(crud_router(Order, "/orders", options=REACT_ADMIN, filters=FILTERS, search=("title",)))
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs that call the provider, with its packages."""

    def commands(new: Path) -> Sequence[Sequence[str | Path]]:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, new)
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000")
        return [(str(NPM), "ci", *quiet)]

    def unreachable(done: CompletedProcess[str]) -> bool:
        return any(code in done.stderr for code in OFFLINE)

    folder = tmp_path_factory.mktemp("react_admin")
    (folder / "node_modules").symlink_to(installed(HERE / "package-lock.json", commands, unreachable) / "node_modules")
    for each in HERE.glob("*.mjs"):
        shutil.copy(each, folder)
    return folder


def test_every_method_of_the_data_provider(
    address: str, programs: Path, customers: dict[str, list[str]], database: Database
) -> None:
    results = {tenant: json.loads(run(str(NODE), programs / "operations.mjs", address, tenant)) for tenant in "ab"}
    for tenant, result in results.items():
        check(result, customers[tenant])
    assert not set(results["a"]["ids"]) & set(results["b"]["ids"])
    with database.engine.connect() as connection:
        orders: Any = Order.__table__
        counts = sa.select(orders.c.tenant_id, sa.func.count()).where(~orders.c.is_deleted).group_by(orders.c.tenant_id)
        assert {(tenant, count) for tenant, count in connection.execute(counts)} == {("a", 22), ("b", 22)}


def test_the_app_of_the_docs(programs: Path, database: Database) -> None:
    app = endpoints_app.load().app_of(database.url.render_as_string(hide_password=False))
    with serving(app) as address:
        for tenant in "ab":
            run(str(NODE), programs / "library.mjs", f"{address}/admin", tenant)
    with database.engine.connect() as connection:
        statement = sa.text("SELECT tenant_id, count(*) FROM book GROUP BY tenant_id ORDER BY tenant_id")
        assert [tuple(row) for row in connection.execute(statement)] == [("a", 5), ("b", 5)]


def check(result: dict[str, Any], customers: list[str]) -> None:
    """Compare what the provider returned to one tenant with its rows."""
    ids = result["ids"]
    assert len(ids) == 24

    def titles(rows: list[dict[str, Any]]) -> list[str]:
        return [row["title"] for row in rows]

    assert (titles(result["list"]["data"]), result["list"]["total"]) == (
        [f"order {number:02}" for number in (13, 11, 9, 7, 5)],
        12,
    )
    assert (result["empty"]["data"], result["empty"]["total"]) == ([], 24)
    assert titles(result["searched"]["data"]) == ["order 07"]
    assert [row["id"] for row in result["customers"]] == customers
    assert result["one"]["data"]["title"] == "order 03"
    assert sorted(titles(result["many"]["data"])) == ["order 01", "order 02", "order 04"]
    assert {row["id"] for row in result["manyCustomers"]["data"]} == set(customers)
    assert result["none"]["data"] == []
    assert (titles(result["reference"]["data"]), result["reference"]["total"]) == (
        ["order 03", "order 09", "order 15"],
        4,
    )

    created, updated = result["created"]["data"], result["updated"]["data"]
    assert (created["title"], created["amount"], created["customer_id"]) == ('new, "quoted"', "12.50", customers[1])
    assert (updated["id"], updated["title"], updated["amount"]) == (created["id"], "changed", None)
    assert updated["version"] == created["version"] + 1
    assert result["updatedMany"]["data"] == ids[:2]
    assert {row["status"] for row in result["afterUpdates"]["data"]} == {"paid"}
    assert result["deleted"]["data"]["id"] == created["id"]
    assert result["deletedMany"]["data"] == ids[2:4]
    assert result["afterDeletes"]["total"] == 22

    assert (result["missing"]["status"], result["missing"]["code"]) == (404, "not_found")
    places = {
        "badFilter": ["query", "filter", "staus"],
        "badSort": ["query", "sort"],
        "tooMany": ["query", "range", "limit"],
        "badData": ["body", "titel"],
    }
    for name, place in places.items():
        assert result[name]["status"] == 422
        assert [fault["loc"] for fault in result[name]["errors"]] == [place]
