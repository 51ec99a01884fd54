"""``docs/doctor.md``: its tables are those of the registry, and its blocks run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from typer.main import get_command

from dotmac_database import create_database
from dotmac_database.cli.app import app as command_line
from dotmac_database.doctor import CHECKS, RULES, Limits, Report
from dotmac_database_fastapi import list_router

from .models import Account, Base

PAGE = Path(__file__).parent.parent.parent / "docs" / "doctor.md"
NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}


def table(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def checks() -> str:
    head = [("code", "database", "severity", "what it finds"), ("---", "---", "---", "---")]
    rows = [
        (
            f"[`{each.code}`]({each.source})",
            ", ".join(NAMES[name] for name in sorted(each.on)),
            each.severity.value,
            each.summary,
        )
        for each in CHECKS
    ]
    return table([*head, *rows])


def rules() -> str:
    head = [("code", "severity", "what it finds"), ("---", "---", "---")]
    rows = [
        (
            f"[`{each.code}`]({each.source})",
            f"{each.severity.value}; note on a small table" if each.by_size else each.severity.value,
            each.summary,
        )
        for each in RULES
    ]
    return table([*head, *rows])


@pytest.mark.parametrize(("name", "expected"), [("checks", checks()), ("rules", rules())])
def test_the_tables_are_those_of_the_registry(name: str, expected: str) -> None:
    """To write them: ``python -m tests.doctor.test_page``."""
    match = re.search(rf"<!-- {name} -->\n(.*)\n<!-- /{name} -->", PAGE.read_text(), re.DOTALL)
    assert match is not None
    assert match[1] == expected


def test_the_options_are_those_of_the_command() -> None:
    command: Any = get_command(command_line)
    options = {name for each in command.commands["doctor"].params for name in each.opts if name.startswith("--")}
    assert options - {"--help"} == set(re.findall(r"`(--[\w-]+)", PAGE.read_text().split("## In Python")[0]))


def test_the_blocks_run(postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = create_database(postgres_url)
    Base.metadata.create_all(database.engine)
    app, router = FastAPI(), APIRouter()
    router.add_api_route("/newest", newest_orders := (lambda: None))
    app.include_router(router)
    app.include_router(list_router(Account))
    shop = {"shop": {}, "shop.models": {"Base": Base, "Order": Account}, "shop.app": {"app": app}}
    shop["shop.app"]["newest_orders"] = newest_orders
    for name, members in shop.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    migrations(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    page: dict[str, Any] = {"URL": postgres_url}
    with pytest.raises(SystemExit):  # the tables have no policies
        exec(compile(blocks[0], str(PAGE), "exec", dont_inherit=True), page)
    assert "row-level-security" in {each.code for each in page["report"]}
    exec(compile(blocks[1].replace('"-placed_at"', '"-at"').replace('"status"', '"email"'), str(PAGE), "exec"), page)
    assert {each.code for each in page["report"]} == {"missing-index"}
    exec(compile(blocks[2], str(PAGE), "exec", dont_inherit=True), page)
    assert isinstance(page["report"], Report)
    page["database"].dispose()
    Base.metadata.drop_all(database.engine)
    database.dispose()


def migrations(folder: Path) -> None:
    """A folder of Alembic without revisions."""
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(
        "from alembic import context\ncontext.configure(url='postgresql://')\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {folder}\npath_separator = os\n")


def test_the_page_names_the_limits_of_a_large_table() -> None:
    assert f"{Limits().large_rows:,} rows or {Limits().large_bytes // 2**20} MiB" in " ".join(PAGE.read_text().split())


if __name__ == "__main__":
    text = PAGE.read_text()
    for name, content in (("checks", checks()), ("rules", rules())):
        text = re.sub(
            rf"<!-- {name} -->.*<!-- /{name} -->",
            lambda _, name=name, content=content: f"<!-- {name} -->\n{content}\n<!-- /{name} -->",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    PAGE.write_text(text)
