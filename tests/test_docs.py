"""Every Python block of every page runs as it is written, and models are shown in SQLModel's form first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT, blocks_of, part, run_page, unmarked_fences

GIVEN = """
import os
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


database = create_database(os.environ["DATABASE_URL"])
session = database.sessions()
"""
"""What the blocks of a how-to page can assume: the imports, a declarative base, and a session."""

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

PARTS_OF_AN_APP = (
    "advisor",
    "fastapi",
    "history",
    "isolation",
    "models",
    "policies-in-the-database",
    "search",
    "transactions",
)
"""The pages whose blocks assume what a reader has already: the imports, the models and the session of `GIVEN`."""

ON_POSTGRESQL = ("advisor", "isolation")
"""Those whose blocks need PostgreSQL."""

WHOLE_PROGRAMS = (
    "existing-app",
    "exports",
    "index",
    "own-repositories",
    "pgbouncer",
    "react-admin",
    "start",
)
"""The pages whose blocks are one program, which assumes nothing."""

ELSEWHERE = {
    "alembic": "tests/site/test_alembic_page.py",
    "command-line": "tests/cli/test_page.py",
    "doctor": "tests/doctor/test_page.py",
    "endpoints": "tests/fastapi/test_endpoints_page.py",
    "inside-a-tenant": "tests/fastapi/test_inside_page.py",
    "jobs": "tests/jobs/test_page.py",
    "old-repositories": "tests/site/test_core_pages.py",
    "outbox": "tests/outbox/test_page.py",
    "policies": "tests/fastapi/test_policies_page.py",
    "telemetry": "tests/fastapi/test_telemetry_page.py",
    "tenants": "tests/transfers/test_page.py",
    "testing": "tests/testing/test_page.py",
    "without-fastapi": "tests/site/test_core_pages.py",
}
"""The pages whose blocks have a test of their own, which also uses what they make."""

TUTORIAL = ("repositories", "queries", "transactions", "guard", "fastapi", "tests")

PAGES = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PARTS_OF_AN_APP)
def test_the_parts_of_an_app_run_as_written(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if page in ON_POSTGRESQL else "sqlite://"
    blocks = blocks_of(DOCS / f"{page}.md")
    created = [f"{block}{CREATED}" if DEFINES.search(block) else block for block in blocks]
    run_page((GIVEN, part(page, "before"), *created, part(page, "after"), ENDED), tmp_path, url)


@pytest.mark.parametrize("page", WHOLE_PROGRAMS)
def test_a_program_runs_as_written(page: str, tmp_path: Path) -> None:
    run_page((part(page, "before"), *blocks_of(DOCS / f"{page}.md"), part(page, "after")), tmp_path)


@pytest.mark.parametrize("form", [0, 1], ids=["sqlmodel", "sqlalchemy"])
def test_the_tutorial_is_one_program_in_both_forms(form: int, tmp_path: Path) -> None:
    forms = blocks_of(DOCS / "tutorial" / "models.md")
    assert len(forms) == 3
    later = [block for page in TUTORIAL for block in blocks_of(DOCS / "tutorial" / f"{page}.md")]
    assert len(later) >= 20
    run_page((forms[form], forms[2], *later), tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_run_or_says_why_not(page: str) -> None:
    fences = unmarked_fences(DOCS / f"{page}.md")
    assert fences == len(blocks_of(DOCS / f"{page}.md"))
    if page in ELSEWHERE:
        assert fences
        assert (ROOT / ELSEWHERE[page]).exists()
    elif fences:
        assert page.startswith("tutorial/") or page in (*PARTS_OF_AN_APP, *WHOLE_PROGRAMS)


@pytest.mark.parametrize("page", PAGES)
def test_sqlmodels_form_comes_first(page: str) -> None:
    defined = [match for block in blocks_of(DOCS / f"{page}.md") for match in DEFINES.finditer(block)]
    assert not defined or "table=True" in defined[0].string
