"""Which operations a generated router has, who may use each, and by which method a row is updated.

Of each matrix, an ordinary run takes pairs of values, and `make matrices` the other cells.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import SoftDeleteMixin, TenantMixin, ValidationError
from dotmac_database_fastapi import CrudOptions, get_repository
from tests.fastapi.conftest import Api, inlined
from tests.fastapi.shared_routers import crud_router

pytestmark = pytest.mark.shared_plugin


class Base(DeclarativeBase):
    """The tables of this module."""


class Thing(TenantMixin, SoftDeleteMixin, Base):
    __tablename__ = "operated_things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Kept(TenantMixin, Base):
    """A class without soft deletion."""

    __tablename__ = "operated_kept"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture(scope="module")
def tables() -> sa.MetaData:
    return Base.metadata


REQUESTS: dict[str, tuple[str, str, Any, int]] = {
    "list": ("GET", "/things", None, 200),
    "list by HEAD": ("HEAD", "/things", None, 200),
    "create": ("POST", "/things", {"name": "new"}, 201),
    "read": ("GET", "/things/1", None, 200),
    "read by HEAD": ("HEAD", "/things/1", None, 200),
    "update": ("PATCH", "/things/1", {"name": "new"}, 200),
    "restore": ("POST", "/things/1/restore", None, 200),
    "delete": ("DELETE", "/things/1", None, 204),
}
"""The requests to the operations, with the statuses of their responses."""

OPERATIONS = [name for name in REQUESTS if " by " not in name]


def operation_of(request: str) -> str:
    return request.split()[0]


@pytest.fixture
def thing(database: Any) -> None:
    """One row."""
    with database.engine.begin() as connection:
        connection.execute(
            sa.insert(Thing.__table__).values(id=1, tenant_id="a", name="one", is_deleted=False)  # type: ignore[arg-type]
        )
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval('operated_things_id_seq', 10)"))


def sent(api: Api, request: str, **options: Any) -> Any:
    method, path, body, _ = REQUESTS[request]
    return api.request(method, path, tenant="a", json=body, **options)


@pytest.mark.usefixtures("thing")
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_router_with_one_operation(app: FastAPI, api: Api, operation: str, request_: str) -> None:
    app.include_router(crud_router(Thing, prefix="/things", operations=[operation]))  # type: ignore[list-item]
    answer = sent(api, request_)
    if operation_of(request_) == operation:
        assert answer.status_code == REQUESTS[request_][3]
    else:
        assert answer.status_code in (404, 405)
    if answer.status_code == 405:
        assert REQUESTS[operation][0] in answer.headers["allow"]


@pytest.mark.usefixtures("thing")
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_router_without_one_operation(app: FastAPI, api: Api, operation: str, request_: str) -> None:
    others = {each for each in OPERATIONS if each != operation}
    app.include_router(crud_router(Thing, prefix="/things", options=CrudOptions(operations=others)))  # type: ignore[arg-type]
    answer = sent(api, request_)
    if operation_of(request_) == operation:
        assert answer.status_code in (404, 405)
    else:
        assert answer.status_code == REQUESTS[request_][3]
    documented = {each["operationId"] for path in inlined(app.openapi())["paths"].values() for each in path.values()}
    assert len(documented) == len(others)


def refused() -> None:
    raise HTTPException(403)


@pytest.mark.usefixtures("thing")
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_permission_for_one_operation(app: FastAPI, api: Api, database: Any, operation: str, request_: str) -> None:
    app.include_router(crud_router(Thing, prefix="/things", permissions={operation: Depends(refused)}))  # type: ignore[dict-item]
    before = stored(database)
    answer = sent(api, request_)
    if operation_of(request_) == operation:
        assert answer.status_code == 403
        assert stored(database) == before
    else:
        assert answer.status_code == REQUESTS[request_][3]


@pytest.mark.usefixtures("thing")
@pytest.mark.parametrize("request_", REQUESTS)
def test_one_permission_for_all(app: FastAPI, api: Api, database: Any, request_: str) -> None:
    app.include_router(crud_router(Thing, prefix="/things", permissions=Depends(refused)))
    before = stored(database)
    assert sent(api, request_).status_code == 403
    assert stored(database) == before
    assert api.request("OPTIONS", "/things").status_code == 204


@pytest.mark.usefixtures("thing")
@pytest.mark.parametrize("allowed", [True, False])
def test_a_permission_may_read_rows_of_the_tenant(app: FastAPI, api: Api, database: Any, allowed: bool) -> None:
    """On the request's own session, so that the write is part of the transaction in which the permission was read."""

    async def permitted(rows: Any = Depends(get_repository(Thing))) -> None:
        if await rows.count([{"field": "name", "value": "one"}]) != allowed:
            raise HTTPException(403)

    app.include_router(crud_router(Thing, prefix="/things", permissions={"update": Depends(permitted)}))
    answer = sent(api, "update")
    assert answer.status_code == (200 if allowed else 403)
    assert stored(database) == ["new" if allowed else "one"]


def test_the_document_names_the_security_of_a_permission(app: FastAPI) -> None:
    bearer = HTTPBearer()

    def permitted(credentials: Any = Depends(bearer)) -> None:
        """Nothing more."""

    app.include_router(crud_router(Thing, prefix="/things", permissions={"create": Depends(permitted)}))
    document = inlined(app.openapi())
    assert document["paths"]["/things"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in document["paths"]["/things"]["get"]


@pytest.mark.usefixtures("thing")
def test_an_update_by_put(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Thing, prefix="/things", update_method="PUT"))
    assert api.request("PUT", "/things/1", tenant="a", json={}).json()["name"] == "one"
    assert api.request("PUT", "/things/1", tenant="a", json={"name": "new"}).json()["name"] == "new"
    answer = api.patch("/things/1", tenant="a", json={"name": "x"})
    assert (answer.status_code, "PUT" in answer.headers["allow"]) == (405, True)


def test_a_class_without_soft_deletion_has_no_restore(app: FastAPI, api: Api) -> None:
    app.include_router(crud_router(Kept, prefix="/kept", operations=["create", "restore"]))
    assert api.post("/kept", tenant="a", json={"name": "one"}).status_code == 201
    assert api.post("/kept/1/restore", tenant="a").status_code == 404


@pytest.mark.parametrize("options", [{"operations": ["list", "raed"]}, {"permissions": {"raed": Depends(refused)}}])
def test_an_unknown_operation_is_named(options: Any) -> None:
    with pytest.raises(ValidationError, match=r"no operation 'raed'. There are: list, read,"):
        crud_router(Thing, prefix="/things", **options)


def stored(database: Any) -> list[str]:
    """The names of the rows that are not deleted."""
    with database.engine.connect() as connection:
        table: Any = Thing.__table__
        names = sa.select(table.c.name).where(~table.c.is_deleted).order_by(table.c.name)
        return list(connection.scalars(names))
