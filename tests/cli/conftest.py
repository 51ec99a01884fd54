"""The shop's database with the rows of two tenants, and `dotmac-db` in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, make_url
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from dotmac_database import create_database
from dotmac_database.cli.app import app
from tests.cli.shop import Base, Order, Plan, Tag, User, outbox

NOW = datetime(2026, 1, 1, tzinfo=UTC)
APP = "tests.cli.shop"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DOTMAC_APP", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run() -> Run:
    """Run ``dotmac-db`` with these arguments in this process."""

    def invoke(*arguments: str, answer: str | None = None, env: dict[str, str] | None = None) -> Ended:
        result = CliRunner().invoke(app, list(arguments), input=answer, env=env, prog_name="dotmac-db")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return invoke


def fill(session: Session) -> None:
    """The rows of the tenants a and b look alike, b has one user more, and a deleted one."""
    session.add(Plan(name="free"))
    for tenant in "ab":
        user = User(tenant_id=tenant, name="ada")
        order = Order(tenant_id=tenant, user=user, tags=[Tag(tenant_id=tenant, name="ada")])
        session.add_all([user, order])
    session.add(User(tenant_id="b", name="bob", is_deleted=True))
    session.execute(
        insert(outbox),
        [
            {"id": uuid4(), "tenant_id": tenant, "topic": "t", "payload": {}, "created_at": NOW}
            for tenant in ("a", "b", "b", None)
        ],
    )
    session.flush()


@pytest.fixture(scope="module")
def shop_url(database_url: str) -> str:
    """The URL of the shop's database, with its rows."""
    database = create_database(database_url)
    Base.metadata.create_all(database.engine)
    with Session(database.engine) as session:
        fill(session)
        session.commit()
    database.dispose()
    return make_url(database_url).render_as_string(hide_password=False)
