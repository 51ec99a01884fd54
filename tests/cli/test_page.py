"""`docs/command-line.md`: its commands run against a server, and write what the page shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "command-line.md").read_text()
ROLE = "dotmac_page_app"

SCRIPT = """
import io, json, os, shlex, sys
from contextlib import redirect_stderr, redirect_stdout
from dotmac_database.cli import main

ended, code = [], 0
for command in json.loads(sys.argv[1]):
    shown = io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown):
        if command == "echo $?":
            print(code)
        else:
            code = main(shlex.split(os.path.expandvars(command))[1:])
    ended.append(shown.getvalue())
print(json.dumps(ended))
"""
FILL = """
import os
from datetime import UTC, datetime
import shop
from sqlmodel import Session, SQLModel, create_engine
engine = create_engine(os.environ["OWNER_URL"].replace("postgresql:", "postgresql+psycopg:"))
SQLModel.metadata.create_all(engine)
with Session(engine) as session:
    for number, (tenant, title) in enumerate([("acme", "One"), ("acme", "Two"), ("globex", "One")], 1):
        day = datetime(2026, 1, number, 12, tzinfo=UTC)
        session.add(shop.Book(tenant_id=tenant, title=title, created_at=day, updated_at=day))
    session.commit()
"""

VARYING = (
    (re.compile(r"\d+(?:\.\d+)? (ms|B|kB|MB)\b"), r"N \1"),
    (re.compile(r"\d+\.\d+\.\.\d+\.\d+ rows=\d+ width=\d+"), "N..N"),
    (re.compile(r'("estimated_bytes"|"bytes"): \d+'), r"\1: N"),
    (re.compile(r"─+"), "─"),
    (re.compile(r" +"), " "),
)
"""What differs between two runs, and the width of columns that depends on it."""


def plain(line: str) -> str:
    for pattern, instead in VARYING:
        line = pattern.sub(instead, line)
    return line.strip()


def blocks() -> list[tuple[str, list[str]]]:
    """The commands of the page, each with the lines that it shows."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
    return commands


def fits(shown: list[str], written: list[str]) -> bool:
    """Whether the lines are those of the page, of which a line ``…`` stands for any lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "…" else re.escape(f"{plain(line)}\n") for line in shown)
    return re.fullmatch(pattern, "".join(f"{plain(line)}\n" for line in written)) is not None


@pytest.fixture
def written(postgres_url: str, tmp_path: Path) -> list[str]:
    """What the commands of the page wrote, one after the other."""
    shop = re.search(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert shop is not None
    (tmp_path / "shop.py").write_text(shop[1])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS".encode())
    app_url = re.sub(r"//[^@]*@", f"//{ROLE}:dotmac@", postgres_url)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": app_url, "OWNER_URL": postgres_url}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    python(FILL)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON book TO {ROLE}".encode())
        connection.execute("ANALYZE book")
    result: list[str] = json.loads(python(SCRIPT, json.dumps([command for command, _ in blocks()])))
    return result


def test_the_commands_write_what_the_page_shows(written: list[str]) -> None:
    assert len(written) == len(blocks()) > 10
    for (command, shown), text in zip(blocks(), written, strict=True):
        assert fits(shown, text.splitlines()), f"$ {command}\n{text}"


def test_a_page_that_shows_something_else_is_noticed() -> None:
    assert fits(["a 1.5 ms", "…", "z"], ["a  2 ms", "b", "z"])
    assert fits(["…", "z"], ["z"])
    assert not fits(["a", "z"], ["a", "b", "z"])
    assert not fits(["a", "…"], ["b"])
    assert not fits(["3 tenants."], ["4 tenants."])
