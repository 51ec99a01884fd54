"""A hidden column is never written, whatever else is wrong with the request's body.

Its name is in the OpenAPI document, which is the same for all actors. So a value that no column can have may be refused
for its type.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Header
from sqlalchemy import JSON, MetaData, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import Database, Policy, TenantMixin
from dotmac_database_fastapi import DatabasePlugin, crud_router, register_exception_handlers, tenant_from_header
from tests.fastapi.conftest import Api


class Base(DeclarativeBase):
    """The tables of these tests."""


class Offer(TenantMixin, Base):
    __tablename__ = "hidden_offers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int | None]
    terms: Mapped[Any] = mapped_column(JSON, nullable=True)
    extra: Mapped[Any] = mapped_column(JSON, nullable=True)


class Bid(TenantMixin, Base):
    """Without JSON, so that a body is never merged."""

    __tablename__ = "hidden_bids"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int | None]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


async def actor(x_user: str = Header()) -> str:
    return x_user


def unseen(*names: str) -> Any:
    return lambda actor: () if actor == "chief" else names


POLICIES = [
    Policy(Offer, read=True, create=True, update=True, hidden=unseen("price", "terms")),
    Policy(Bid, read=True, create=True, update=True, hidden=unseen("price")),
]


@pytest.fixture(scope="module")
def _shared(_database: Database) -> Iterator[Api]:
    plugin = DatabasePlugin(_database.url, tenant=tenant_from_header(), actor=actor, policies=POLICIES)
    app = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(app)
    for model, prefix in ((Offer, "/offers"), (Bid, "/bids")):
        app.include_router(crud_router(model, prefix, operations={"create", "update", "bulk_create", "bulk_update"}))
    with asyncio.Runner() as runner:
        yield Api(app, runner)
        runner.run(plugin.database.dispose_async())


@pytest.fixture
def api(_shared: Api, database: Database) -> Api:
    with database.sessions() as session:
        for model in (Offer, Bid):
            for tenant, key in (("a", 1), ("b", 2)):
                session.add(model(id=key, name="mine", price=7, tenant_id=tenant))
        session.commit()
    return _shared


BODIES: dict[str, Any] = {
    "right": {"price": 5},
    "of another type": {"price": "x"},
    "null": {"price": None},
    "beside another fault": {"price": 5, "name": 1},
    "both wrong": {"price": "x", "name": 1},
    "merged": {"terms": {"a": 1}},
    "merged beside another": {"terms": {"a": 1}, "extra": {"a": 1}},
    "too large": {"price": 10**30},
}
ALIKE = ("right", "null", "merged", "merged beside another")
KINDS = ["application/json", "application/merge-patch+json"]
CASES = [
    (path, method, kind, body)
    for path in ("/offers", "/bids")
    for method in ("POST", "PATCH", "POST bulk", "PATCH bulk")
    for kind in (KINDS if method == "PATCH" else KINDS[:1])
    for body in BODIES
    if path == "/offers" or "merged" not in body
]


@pytest.mark.parametrize(("path", "method", "kind", "name"), CASES)
def test_a_hidden_field_is_refused_like_an_unknown_one(
    api: Api, database: Database, path: str, method: str, kind: str, name: str
) -> None:
    method, _, bulk = method.partition(" ")
    row = {**({"name": "new"} if method == "POST" else {}), **BODIES[name]}
    if bulk and method == "PATCH":
        row["id"] = 1
    body = json.dumps([row] if bulk else row)
    place = f"{path}/bulk" if bulk else path if method == "POST" else f"{path}/1"
    headers = {"X-User": "clerk", "content-type": kind}
    unknown_body = body.replace("price", "prize").replace("terms", "turns")
    hidden, unknown = (
        api.request(method, place, tenant="a", content=each, headers=headers) for each in (body, unknown_body)
    )
    assert (hidden.status_code, unknown.status_code) == (422, 422), hidden.text
    if name in ALIKE:
        assert hidden.text.replace("price", "prize").replace("terms", "turns") == unknown.text
    with database.engine.connect() as connection:
        model = Offer if path == "/offers" else Bid
        assert connection.execute(select(model.name, model.price)).all() == [("mine", 7), ("mine", 7)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [[1], [{"price": 5}], "price", 5, None, [["price", 5]]], ids=json.dumps)
def test_a_body_of_another_kind_is_refused(api: Api, kind: str, body: Any) -> None:
    headers = {"X-User": "clerk", "content-type": kind}
    answer = api.request("PATCH", "/offers/1", tenant="a", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422
