"""The blocks of `docs/telemetry.md` run as they are written, one after the other."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

from dotmac_database import Database
from tests.fastapi.conftest import Api
from tests.models import Country

PAGE = Path(__file__).parent.parent.parent / "docs" / "telemetry.md"


def test_the_page_runs(database: Database, runner: asyncio.Runner) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    page: dict[str, Any] = {"url": database.url, "Country": Country}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), page)
    assert len(blocks) == 4
    api = Api(page["app"], runner)
    try:
        runner.run(register(page))
        assert api.get("/countries").json() == []
        text = api.get("/metrics").text
        with database.sessions() as session:
            page["test_the_list_sends_one_statement"](session)
    finally:
        page["plugin"].database.instrumentation.remove()
        runner.run(page["plugin"].database.dispose_async())
        logging.getLogger("myapp").removeHandler(page["handler"])
    labels = 'database="main",model="Country",operation="list",outcome="ok"'
    assert f"dotmac_database_statement_duration_seconds_count{{{labels}}} 1.0" in text
    assert [span.name for span in page["exporter"].get_finished_spans()] == ["SELECT countries"]
    for name in re.findall(r"^\| `(dotmac_database_\w+)`", PAGE.read_text(), re.MULTILINE):
        assert f"# TYPE {name.removesuffix('_total')}" in text


async def register(page: dict[str, Any]) -> None:
    """Serve the app as its lifespan does."""
    async with page["plugin"].lifespan(page["app"]):
        pass
