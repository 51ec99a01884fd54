"""The generated routes for each column type and driver: POST and PATCH of a value from GET store the same value."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dotmac_database_fastapi import DatabasePlugin, crud_router, register_exception_handlers
from tests.conftest import Face

from .column_types import KINDS, SAMPLE, Kind
from .test_types import DRIVERS, MODELS, Cells

pytestmark = pytest.mark.filterwarnings("ignore:Type object .* does not refer to an OperatorClass")


@pytest.fixture(params=[name for name, (_, face) in DRIVERS.items() if face == "async"])
def driver(request: pytest.FixtureRequest) -> str:
    """An async driver."""
    return str(request.param)


@pytest.fixture
def plugin(driver: str, request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[DatabasePlugin]:
    """A plugin with the driver."""
    url = f"sqlite:///{tmp_path}/types.db" if driver == "aiosqlite" else str(request.getfixturevalue("postgres_url"))
    plugin = DatabasePlugin(url.replace("postgresql://", "postgresql+psycopg://") if "psycopg" in driver else url)
    yield plugin
    plugin.database.dispose()


def run(plugin: DatabasePlugin, kinds: list[Kind]) -> list[str]:
    """A line for each error of these kinds."""
    engine = plugin.database.engine
    chosen = [kind for kind in kinds if engine.dialect.name in kind.on and kind.routes]
    app = FastAPI()
    plugin.install(app)
    register_exception_handlers(app)
    for kind in chosen:
        MODELS[kind.name].__table__.create(engine)
        app.include_router(crud_router(MODELS[kind.name], prefix=f"/{kind.name}"))
    try:
        with asyncio.Runner() as runner:
            wrong = runner.run(_asked(app, plugin, chosen))
            runner.run(plugin.database.async_engine.dispose())
        return wrong
    finally:
        for kind in chosen:
            MODELS[kind.name].__table__.drop(engine)


async def _asked(app: FastAPI, plugin: DatabasePlugin, kinds: list[Kind]) -> list[str]:
    wrong: list[str] = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for kind in kinds:
            cells = Cells(Face("sync", plugin.database), kind)
            try:
                # SQLAlchemy stores None of a JSON column as JSON's null; the toolkit does not.
                for number, value in enumerate((*kind.values, *([] if "json" in kind.name else [None]))):
                    _insert(cells, number, value)
                wrong += [f"{kind.name}: {each}" for each in await _unchanged(client, kind, cells)]
            except Exception as error:  # noqa: BLE001 - the matrix reports every error, and continues
                wrong.append(f"{kind.name}: {type(error).__name__}: {str(error)[:150]}")
    return wrong


def _insert(cells: Cells, number: int, value: Any) -> None:
    with cells.face.database.sessions() as session:
        session.add(cells.model(name=f"n{number}", value=value))
        session.commit()


async def _unchanged(client: httpx.AsyncClient, kind: Kind, cells: Cells) -> list[str]:
    """PATCH each row with its value from GET, and POST the value in a new row: neither changes the stored value."""
    before = cells.stored()
    wrong: list[str] = []
    for key, stored in before.items():
        shown = (await client.get(f"/{kind.name}/{key}")).json()
        if "value" not in shown:
            wrong.append(f"GET {shown}")
            continue
        patched = await client.patch(f"/{kind.name}/{key}", json={"name": f"p{key}", "value": shown["value"]})
        posted = await client.post(f"/{kind.name}", json={"name": f"q{key}", "value": shown["value"]})
        if patched.status_code != 200 or posted.status_code != 201:
            wrong.append(f"{shown['value']!r}: PATCH {patched.text[:120]} POST {posted.text[:120]}")
            continue
        after = cells.stored()
        for way, now in (("PATCH", after[key]), ("POST", after[posted.json()["id"]])):
            if now != stored:
                wrong.append(f"{way} {shown['value']!r}: {stored} became {now}")
    return wrong


def test_a_sample_of_types_in_routes(plugin: DatabasePlugin) -> None:
    wrong = run(plugin, [kind for kind in KINDS if kind.name in SAMPLE])
    assert not wrong, "\n".join(wrong)


@pytest.mark.matrix
def test_every_type_in_routes(plugin: DatabasePlugin) -> None:
    wrong = run(plugin, list(KINDS))
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong)
