"""The pages of ``docs/`` show models in SQLModel's form first, and their blocks with models run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

GIVEN = """
from decimal import Decimal
from typing import Annotated, Literal

import pydantic
from sqlalchemy import BigInteger, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column
from sqlmodel import Field, SQLModel

import dotmac_database as db
from dotmac_database import LivingUnique, create_database, create_repository
from dotmac_database.sqlmodel import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin


class Base(DeclarativeBase):
    pass


database = create_database("sqlite://")
session = database.sessions()
"""
"""What the blocks of a page can assume: the imports, a declarative base, and a session."""

ENDED = """
session.close()
database.dispose()
configure_mappers()
"""

CREATED = """
for metadata in (SQLModel.metadata, Base.metadata, *([Model.metadata] if "Model" in vars() else [])):
    metadata.create_all(database.engine)
"""
"""What follows each block: the tables of its models can be created."""

DEFINES = re.compile(r"^ *class \w+\(.*(SQLModel|Model|TenantMixin|Base)\b", re.MULTILINE)
"""A block that defines a model."""

WHOLE = ("history.md", "models.md", "policies-in-the-database.md", "search.md")
"""The pages of which all blocks run. Of the others, those that define models do."""

PAGES = {
    "tenants.md": 1,
    "models.md": 9,
    "isolation.md": 2,
    "fastapi.md": 3,
    "endpoints.md": 1,
    "search.md": 4,
    "command-line.md": 1,
    "jobs.md": 1,
    "outbox.md": 1,
    "history.md": 2,
    "inside-a-tenant.md": 1,
    "policies.md": 1,
    "policies-in-the-database.md": 2,
    "testing.md": 1,
}
"""The pages with models, each with how many of its blocks run."""


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_the_models_of_a_page_run_as_written(page: str, tmp_path: Path) -> None:
    blocks = blocks_of(page) if page in WHOLE else [each for each in blocks_of(page) if DEFINES.search(each)]
    assert len(blocks) == PAGES[page]
    script = tmp_path / "page.py"
    script.write_text("\n".join((GIVEN, *(f"{block}{CREATED}" for block in blocks), ENDED)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": "sqlite://", "JOB_KEY": "of sixteen bytes"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_sqlmodels_form_comes_first(page: str) -> None:
    """Only `toolkit-readme.md` is as its author wrote it."""
    if page == "toolkit-readme.md":
        pytest.skip("It is kept as its author wrote it.")
    defined = [match for block in blocks_of(page) for match in DEFINES.finditer(block)]
    assert bool(defined) == (page in PAGES)
    assert "table=True" in defined[0].string if defined else True
