"""The blocks of ``docs/fastapi.md`` about an API that exists run as written, and do what their comments say."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel

from dotmac_database import Database
from tests.fastapi.conftest import Api

PAGE = Path(__file__).parents[2] / "docs" / "fastapi.md"


@pytest.fixture
def documented(dialect: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the blocks define. They are in a module, where SQLModel looks for the types of annotations."""
    section = PAGE.read_text().partition("\n## An API that exists\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    module = types.ModuleType(f"documented_api_{dialect}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile("\n".join(blocks).replace("sqlite:///app.db", database_url), str(PAGE), "exec"), vars(module))
    return vars(module)


def test_the_blocks(documented: dict[str, Any], database: Database, runner: Any) -> None:
    table: Any = documented["Item"].__table__
    table.create(database.engine)
    api = Api(documented["app"], runner)
    try:
        created = api.post("/items/", tenant="a", json={"title": "Lamp"})
        assert (created.status_code, created.json()) == (200, {"id": 1, "title": "Lamp"})
        assert api.post("/items/", tenant="b", json={"title": "Lamp"}).status_code == 200
        for path in ("/items/", "/items/?skip=0&limit=100"):
            assert api.get(path, tenant="a").json() == {"data": [{"id": 1, "title": "Lamp"}], "count": 1}
        asked = '/admin/items?sort=["title","ASC"]&range=[0,24]&filter={"title__ilike":"lamp","id":[1,2]}'
        listed = api.get(asked, tenant="a")
        assert (listed.json(), listed.headers["content-range"]) == ([{"id": 1, "title": "Lamp"}], "items 0-0/1")
        changed = api.request("PUT", "/items/1", tenant="a", json={"title": "Desk lamp"})
        assert changed.json()["title"] == "Desk lamp"
        deleted = api.delete("/items/1", tenant="a")
        assert (deleted.status_code, deleted.json()) == (200, {"message": "Item deleted"})
        assert api.get("/items/", tenant="b").json()["count"] == 1
    finally:
        runner.run(documented["plugin"].database.dispose_async())
        table.drop(database.engine)
        SQLModel.metadata.remove(table)
