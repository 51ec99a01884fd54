"""SQLModel's models in the plugin."""

import asyncio
import base64
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import Depends, FastAPI
from pydantic import Base64Bytes
from sqlalchemy import JSON, LargeBinary, MetaData
from sqlalchemy.orm import Session

from dotmac_database import Database
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
    born: datetime | None = None
    secret: str | None = Field(default=None, sa_column_kwargs={"info": {"private": True}})


class Blob(SQLModel, table=True):
    __tablename__ = "plugin_blobs"
    metadata = metadata_of_tests

    id: int | None = Field(default=None, primary_key=True)
    binary: bytes
    loose: bytes | None = None
    short: bytes | None = Field(default=None, max_length=30)
    encoded: Base64Bytes | None = Field(default=None, sa_type=LargeBinary)
    whole: Base64Bytes = Field(sa_type=LargeBinary)
    words: set[str] = Field(sa_type=JSON)
    moments: list[datetime] | None = Field(default=None, sa_type=JSON)


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return metadata_of_tests


@pytest.fixture
def api(app: FastAPI, runner: asyncio.Runner) -> Api:
    app.include_router(crud_router(Ranger, prefix="/heroes"))
    app.include_router(crud_router(Blob, prefix="/blobs"))
    return Api(app, runner)


def test_all_of_crud(api: Api) -> None:
    answer = api.post("/heroes", tenant="a", json={"name": "Ann", "age": 3})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["version"], "secret" in answer.json()) == (1, False)
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


@pytest.mark.parametrize("given", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01"])
def test_its_own_timestamps_are_filtered_by(api: Api, given: str) -> None:
    made = api.post("/heroes", tenant="a", json={"name": "Ann", "born": "2026-01-01T00:00:00Z"})
    assert made.status_code == 201, made.text
    assert made.json()["born"] == "2026-01-01T00:00:00Z"
    for asked in ("born", "born__gte", "born__in"):
        found = api.get("/heroes", tenant="a", params={asked: given})
        assert (found.status_code, found.json().get("total")) == (200, 1), found.text
    refused = api.get("/heroes?born=then", tenant="a")
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["query", "born"])


@pytest.mark.parametrize("value", [b"", b"hello", b"aGVsbG8=", b"\x00\xff\xfe", b"\xfb\xff\xbf" * 5], ids=repr)
def test_bytes_are_base64_whatever_the_annotation_says(api: Api, database: Database, value: bytes) -> None:
    names = ("binary", "loose", "short", "encoded", "whole")
    text = base64.b64encode(value).decode()
    sent = dict.fromkeys(names, text) | {"words": ["a", "a"], "moments": ["2024-01-01T00:00:00Z"]}
    answer = api.post("/blobs", json=sent)
    assert answer.status_code == 201, answer.text
    path = answer.headers["location"]
    got = api.get(path).json()
    assert got == answer.json() == api.get("/blobs").json()["items"][0]
    key = got.pop("id")
    assert got == {**sent, "words": ["a"]}
    for _ in range(2):
        with Session(database.engine) as session:
            row = session.get(Blob, key)
            assert {name: getattr(row, name) for name in names} == dict.fromkeys(names, value)
        patched = api.patch(path, json=got)
        assert (patched.status_code, patched.json()) == (200, {**got, "id": key}), patched.text
