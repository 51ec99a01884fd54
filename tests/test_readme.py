"""The README's block runs, and does what the README says of it; its commands, links and picture are there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pages import ROOT, blocks_of, part, run_page

README = ROOT / "README.md"


def test_the_block_runs_and_its_routes_do_what_is_said(tmp_path: Path) -> None:
    [block] = blocks_of(README)
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    run_page((block, part("README", "after")), tmp_path)


def test_the_two_commands_exist_and_every_link_leads_somewhere() -> None:
    readme = README.read_text()
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^```bash\nmake (\w+)\n```$", readme, re.MULTILINE)
    assert commands == ["example", "test"]
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in [*commands, "docs", "screenshot"])
    for target in re.findall(r"\]\(([\w/.-]+)\)", readme):
        assert (ROOT / target).exists(), target


def test_every_page_is_linked_from_the_readme() -> None:
    readme = README.read_text()
    pages = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md") if path.name != "index.md"]
    assert [page for page in pages if f"({page})" not in readme] == []


def test_the_picture_is_a_small_webp() -> None:
    picture = (ROOT / "docs" / "images" / "example.webp").read_bytes()
    assert (picture[:4], picture[8:12]) == (b"RIFF", b"WEBP")
    assert 20_000 < len(picture) < 200_000
