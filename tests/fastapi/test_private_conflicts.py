"""A conflict over a private column does not say so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import CheckConstraint, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import TenantMixin
from dotmac_database_fastapi import get_repository
from tests.fastapi.conftest import Api


class Base(DeclarativeBase):
    """The tables of this module."""


class Account(TenantMixin, Base):
    __tablename__ = "private_accounts"
    __table_args__ = (
        UniqueConstraint("token", name="unique_token"),
        UniqueConstraint("name", "hash_of_it", name="unique_name_and_hash"),
        CheckConstraint("token <> 'bad'", name="token_is_good"),
        Index("token_index", "pin", unique=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    mail: Mapped[str | None] = mapped_column(unique=True)
    token: Mapped[str] = mapped_column(info={"private": True})
    hashed: Mapped[str | None] = mapped_column("hash_of_it", info={"private": True})
    pin: Mapped[str | None] = mapped_column(info={"private": True})


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


OTHER = {"name": "other", "token": "u", "mail": "n", "hashed": "i", "pin": "2"}
CASES: dict[str, tuple[dict[str, Any], list[str] | None]] = {
    "private alone": ({"token": "t"}, None),
    "private index": ({"pin": "1"}, None),
    "private and public": ({"name": "first", "hashed": "h"}, ["name"]),
    "public": ({"mail": "m"}, ["mail"]),
    "private null": ({"token": None}, None),
    "private check": ({"token": "bad"}, None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["create", "bulk_create", "update"])
def test_a_conflict_names_no_private_column(app: FastAPI, runner: asyncio.Runner, method: str, case: str) -> None:
    @app.post("/accounts")
    async def write(data: dict[str, Any], rows: Any = Depends(get_repository(Account))) -> Any:
        if method == "update" and "id" in data:
            return {"id": (await rows.update(data.pop("id"), data)).id}
        if method == "bulk_create":
            return {"id": (await rows.bulk_create([data]))[0].id}
        return {"id": (await rows.create(data)).id}

    api = Api(app, runner)
    first = {"name": "first", "token": "t", "mail": "m", "hashed": "h", "pin": "1"}
    assert api.post("/accounts", tenant="a", json=first).status_code == 200
    other = api.post("/accounts", tenant="a", json=OTHER).json()
    change, fields = CASES[case]
    fresh = {**OTHER, "mail": "x", "pin": "3", "token": "v", "hashed": "j"}
    data = {"id": other["id"], **change} if method == "update" else fresh | change
    refused = api.post("/accounts", tenant="a", json=data)
    assert refused.status_code == (422 if case == "private null" else 409), refused.text
    assert refused.json().get("fields") == fields
    for word in ("token", "hash", "pin"):
        assert word not in refused.text


def test_an_upsert_in_another_tenants_way_names_no_private_column(app: FastAPI, runner: asyncio.Runner) -> None:
    @app.post("/accounts")
    async def write(data: dict[str, Any], rows: Any = Depends(get_repository(Account))) -> Any:
        return {"id": (await rows.upsert(data, ["token"])).id}

    api = Api(app, runner)
    assert api.post("/accounts", tenant="a", json={"name": "n", "token": "t"}).status_code == 200
    refused = api.post("/accounts", tenant="b", json={"name": "n", "token": "t"})
    assert (refused.status_code, "token" in refused.text) == (409, False)
