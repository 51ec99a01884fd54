"""The app of `docs/policies.md`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fastapi.conftest import Api

PAGE = Path(__file__).parent.parent.parent / "docs" / "policies.md"


def test_the_page_shows_an_app_whose_policy_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    page: dict[str, Any] = {"__name__": "docs_policies"}
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), page)
    database = page["plugin"].database
    page["Expense"].__table__.create(database.engine)
    with asyncio.Runner() as runner:
        api = Api(page["app"], runner)
        ann, bob = ({"X-User": name} for name in ("ann", "bob"))
        auditor = {"X-User": "eve", "X-Role": "auditor"}
        created = api.post("/expenses", tenant="t", headers=ann, json={"title": "Train", "owner": "ann"})
        assert created.status_code == 201
        assert "salary_code" not in created.json()
        path = created.headers["Location"]
        assert [api.get(path, tenant="t", headers=each).status_code for each in (ann, bob, auditor)] == [200, 404, 200]
        assert "salary_code" in api.get(path, tenant="t", headers=auditor).json()
        assert api.get("/expenses?salary_code=1", tenant="t", headers=ann).status_code == 422
        assert api.get(path, tenant="u", headers=auditor).status_code == 404
        runner.run(database.dispose_async())
    database.dispose()
