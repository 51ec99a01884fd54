"""The page `docs/jobs.md`: its apps run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

TABLES = """
class Tenant(SQLModel, table=True):
    id: str = Field(primary_key=True)
    is_active: bool = True


class User(SQLModel, table=True):
    id: str = Field(primary_key=True)


url, key = "sqlite:///shop.db", "another key of sixteen bytes"
SQLModel.metadata.create_all(plugin.database.engine)
"""

JOBS = """
import httpx

queue.conf.update(task_always_eager=True, task_eager_propagates=True, broker_url="memory://")


async def rows():
    async with plugin.session("acme") as session:
        orders = await create_async_repository(session, Order, "acme").list()
        return [(row.id, row.status, row.updated_by) for row in orders]


class Redis:
    async def enqueue_job(self, name, *args, **options):
        await globals()[name]({}, *args, **options)


async def main():
    await broker.startup()
    caller = {"X-Tenant-ID": "acme", "X-User": "ada"}
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=caller)
    async with plugin.lifespan(app), client:
        answer = await client.post("/orders")
        assert (answer.status_code, answer.text) == (201, "1"), answer.text
        assert await rows() == [(1, "invoiced", "ada")]
        assert (await client.post("/orders/1/reminder", headers={"X-User": "bob"})).status_code == 202
        await broker.wait_all()
        assert await rows() == [(1, "reminded", "bob")]
        async with plugin.session("acme", "eve") as session:
            await send(Redis(), 1, session)
        assert await rows() == [(1, "shipped", "eve")]
    await broker.shutdown()


asyncio.run(main())
"""

ACTOR = """
from dotmac_database_fastapi import session_actor

with plugin.sync_session() as session:
    session.add(User(id="ada"))
with plugin.sync_session("acme", "ada") as session:
    headers = carry(session)
with plugin.sync_resume(headers) as session:
    assert isinstance(session_actor(session), User)
plugin.database.dispose()
"""

SUSPENDED = """
from dotmac_database_fastapi import SuspendedTenantError


async def main():
    async with plugin.session() as session:
        session.add(Tenant(id="acme"))
    async with plugin.session("acme") as session:
        headers = carry(session)
    async with plugin.resume(headers):
        seen = "it works"
    async with plugin.session() as session:
        await suspend(session, "acme")
    try:
        async with plugin.resume(headers):
            raise LookupError("a suspended tenant works")
    except SuspendedTenantError:
        await plugin.database.dispose_async()


asyncio.run(main())
"""


def blocks_of(*headings: str) -> list[str]:
    """The blocks of Python under these headings."""
    page = (ROOT / "docs" / "jobs.md").read_text()
    sections = dict(re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    return [
        block
        for each in headings
        for block in re.findall(r"^```python\n(.*?)^```$", sections[each], re.DOTALL | re.MULTILINE)
    ]


def test_the_apps_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="celery is not installed")
    pytest.importorskip("taskiq", reason="taskiq is not installed")
    common, celery, taskiq, arq, actor, tenants = blocks_of(
        "Jobs", "Celery", "taskiq", "arq", "The actor as an object", "Tenants with a life"
    )
    script = tmp_path / "page.py"
    parts = [common, TABLES, celery, taskiq, arq, JOBS, actor, ACTOR, tenants, SUSPENDED]
    script.write_text("\n".join(parts))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
