"""SQLModel's models in the plugin."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import MetaData

from dotmac_database_fastapi import crud_router, get_session
from tests.fastapi.conftest import Api

sqlmodel = pytest.importorskip("sqlmodel")

from sqlmodel import Field, SQLModel, select  # noqa: E402  # after the check that it is there
from sqlmodel.ext.asyncio.session import AsyncSession  # noqa: E402

from dotmac_database.sqlmodel import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin  # noqa: E402

metadata_of_tests = MetaData()


class Ranger(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, SQLModel, table=True):
    __tablename__ = "plugin_heroes"
    metadata = metadata_of_tests

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(max_length=20)
    age: int | None = Field(default=None, ge=0)
    secret: str | None = Field(default=None, sa_column_kwargs={"info": {"private": True}})


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return metadata_of_tests


@pytest.fixture
def api(app: FastAPI, runner: asyncio.Runner) -> Api:
    app.include_router(crud_router(Ranger, prefix="/heroes"))
    return Api(app, runner)


def test_all_of_crud(api: Api) -> None:
    answer = api.post("/heroes", tenant="a", json={"name": "Ann", "age": 3})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["tenant_id"], answer.json()["version"], "secret" in answer.json()) == ("a", 1, False)
    path = answer.headers["location"]
    assert api.get(path, tenant="b").status_code == 404
    assert api.patch(path, tenant="a", json={"age": None}).json()["age"] is None
    assert api.patch(path, tenant="a", json={"age": 4}, headers={"If-Match": '"1"'}).status_code == 412
    assert api.get("/heroes?age__is_null=true&sort=-name", tenant="a").json()["total"] == 1
    assert api.delete(path, tenant="a").status_code == 204
    assert api.post(f"{path}/restore", tenant="a").status_code == 200


@pytest.mark.parametrize(
    "data", [{"name": "x" * 21}, {"name": "x", "age": -1}, {"name": "x", "secret": "y"}, {"age": 1}]
)
def test_the_models_own_constraints_hold(api: Api, data: dict[str, Any]) -> None:
    assert api.post("/heroes", tenant="a", json=data).status_code == 422


def test_the_session_is_sqlmodels(app: FastAPI, api: Api) -> None:
    @app.get("/")
    async def endpoint(session: AsyncSession = Depends(get_session)) -> list[str]:
        assert isinstance(session, AsyncSession)
        return [hero.name for hero in (await session.exec(select(Ranger))).all()]

    api.post("/heroes", tenant="a", json={"name": "Ann"})
    api.post("/heroes", tenant="b", json={"name": "Ben"})
    assert api.get("/", tenant="a").json() == ["Ann"]
