"""The doctor finds nothing wrong with the keys of the models that the documentation teaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import DOCS, blocks_of, run_page
from tests.site.test_skill import SKILL

EXAMINED = """
from dotmac_database import check_tenant_keys, create_database
from dotmac_database.doctor import examine

models = METADATA
examined = create_database("sqlite:///examined.db")
models.create_all(examined.engine)
report = examine(examined, models, only=["unique-among-deleted", "foreign-key-without-index"])
assert len(report.ran) == 2, report.skipped
assert [(each.code, each.object) for each in report] == []
assert check_tenant_keys(models) == []
examined.dispose()
"""

TUTORIAL = blocks_of(DOCS / "tutorial" / "models.md")
MODELS = blocks_of(DOCS / "models.md")

TAUGHT = {
    "skill": (blocks_of(SKILL)[:1], "SQLModel.metadata", "plugin.database.dispose()"),
    "tutorial-sqlmodel": (TUTORIAL[:1], "metadata", ""),
    "tutorial-sqlalchemy": (TUTORIAL[1:2], "metadata", ""),
    "start": (blocks_of(DOCS / "start.md")[:1], "SQLModel.metadata", "plugin.database.dispose()"),
    "endpoints": (blocks_of(DOCS / "endpoints.md")[:1], "SQLModel.metadata", ""),
    "models-sqlmodel": (MODELS[:1], "Model.metadata", ""),
    "models-sqlalchemy": (MODELS[:2], "Base.metadata", ""),
}
"""The blocks with the models of a page, their metadata, and what ends the program."""


@pytest.mark.parametrize("page", TAUGHT)
def test_the_doctor_finds_no_fault_in_the_keys(page: str, tmp_path: Path) -> None:
    blocks, metadata, ended = TAUGHT[page]
    run_page((*blocks, EXAMINED.replace("METADATA", metadata), ended), tmp_path)
