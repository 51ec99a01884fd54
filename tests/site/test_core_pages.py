"""The programs of `docs/without-fastapi.md` and `docs/old-repositories.md`, on both databases.

Together with the tutorial they teach everything that the first author's readme shows.
"""

from __future__ import annotations

import re
from pathlib import Path

import dotmac_database
from tests.pages import DOCS, ROOT, blocks_of, part, run_page
from tests.test_toolkit_readme import BLOCKS


def test_the_core_without_fastapi(tmp_path: Path, database_url: str) -> None:
    given = "import os\nDATABASE_URL = os.environ['DATABASE_URL']"
    ended = "await database.dispose_async()\ndatabase.dispose()"
    run_page((given, *blocks_of(DOCS / "without-fastapi.md"), ended), tmp_path, database_url)


def test_the_old_repositories(tmp_path: Path) -> None:
    blocks = blocks_of(DOCS / "old-repositories.md")
    run_page((part("old-repositories", "before"), *blocks, part("old-repositories", "after")), tmp_path)


def test_every_name_of_the_first_readme_is_taught() -> None:
    shown = {name for block in BLOCKS for name in re.findall(r"\b\w+\b", block)} & set(dotmac_database.__all__)
    taught = "\n".join(
        (DOCS / f"{page}.md").read_text() for page in ("without-fastapi", "old-repositories", "tutorial/tests")
    )
    assert len(shown) >= 20
    assert sorted(name for name in shown if not re.search(rf"\b{name}\b", taught)) == []
    assert not re.search(r"[\U0001F300-\U0001FAFF]", "".join(path.read_text() for path in DOCS.rglob("*.md")))
    assert (ROOT / "tests" / "toolkit_readme.md").exists()
