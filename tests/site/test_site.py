"""The documentation site builds without a warning, contains every public name, and loads nothing from the internet."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed (the extra docs)")

PACKAGES = (
    "dotmac_database",
    "dotmac_database_fastapi",
    "dotmac_database.doctor",
    "dotmac_database.testing",
    "dotmac_database.transfers",
    "dotmac_database.usage",
)
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data")}
"""The attributes whose addresses a browser loads. Those of `link` depend on its `rel`."""


def test_the_site(tmp_path: Path) -> None:
    """All checks in one test, because the site takes ten seconds to build, and tests are spread over processes."""
    site = built(tmp_path)
    every_page_is_built(site)
    a_browser_loads_nothing_from_the_internet(site)
    every_public_name_is_in_the_reference(site)
    every_option_of_a_router_and_every_fixture_has_its_text(site)


def built(folder: Path) -> Path:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


class Loads(HTMLParser):
    """What a page of HTML makes a browser load, and the ids and classes of its elements."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.add(values.get("id", ""))
        self.classes |= set(values.get("class", "").split())
        if tag == "link" and values.get("rel") not in {"canonical", "prev", "next"}:
            self.addresses.append(values.get("href", ""))
        self.addresses += [value for name, value in values.items() if (tag, name) in LOADED]
        self.addresses += re.findall(r"url\(([^)]+)\)", values.get("style", ""))


def every_page_is_built(site: Path) -> None:
    missing = [path for path in DOCS.rglob("*.md") if not (site / path.relative_to(DOCS).with_suffix(".html")).exists()]
    assert missing == []


def a_browser_loads_nothing_from_the_internet(site: Path) -> None:
    pages = {path.relative_to(site): Loads(path) for path in site.rglob("*.html")}
    assert len(pages) > 40
    external = {
        str(path): each for path, page in pages.items() for each in page.addresses if re.match(r"(https?:)?//", each)
    }
    assert external == {}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"@import[^;]*//|url\(['\"]?(?:https?:)?//[^)]*", styles) == []
    # The theme's script would load Mermaid for a diagram, and stars from GitHub for a repository; no page has either.
    assert {"mermaid", "md-source"} & {each for page in pages.values() for each in page.classes} == set()


def every_public_name_is_in_the_reference(site: Path) -> None:
    ids = {each for path in (site / "reference").glob("*.html") for each in Loads(path).ids}
    for package in PACKAGES:
        names = importlib.import_module(package).__all__
        assert sorted(name for name in names if f"{package}.{name}" not in ids) == [], package


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_stands_twice_in_the_reference(package: str) -> None:
    text = "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    named = re.findall(rf"^::: {re.escape(package)}\.([A-Za-z_]\w*)$", text, re.MULTILINE)
    exported = importlib.import_module(package).__all__
    assert sorted(named) == sorted(exported)
    assert len(named) == len(set(named))


def every_option_of_a_router_and_every_fixture_has_its_text(site: Path) -> None:
    routers = Loads(site / "reference" / "routers.html").ids
    options = importlib.import_module("dotmac_database_fastapi")
    inherited = set(options.ListOptions.__dataclass_fields__)
    for name in options.CrudOptions.__dataclass_fields__:
        owner = "ListOptions" if name in inherited else "CrudOptions"
        assert f"dotmac_database_fastapi.{owner}.{name}" in routers, name
    fixtures = Loads(site / "reference" / "testing.html").ids
    source = (ROOT / "dotmac_database_pytest" / "plugin.py").read_text()
    names = re.findall(r"^(?:async )?def (dotmac_\w+)", source, re.MULTILINE)
    assert {"dotmac_leaks", "dotmac_guarded_sessions", "dotmac_session"} <= set(names)
    assert [name for name in names if f"dotmac_database_pytest.plugin.{name}" not in fixtures] == []


def test_each_page_says_at_its_start_what_the_reader_can_do_after_it() -> None:
    exempt = {"index", "glossary", "dependencies", "performance", "architecture"}  # tables, figures
    for path in sorted(DOCS.rglob("*.md")):
        name = path.relative_to(DOCS).with_suffix("").as_posix()
        start = path.read_text(encoding="utf-8").split("\n\n", 2)[1]
        assert name in exempt or start.startswith("After "), name


@pytest.mark.parametrize(
    "path",
    sorted(DOCS.rglob("*.md")),
    ids=lambda path: path.relative_to(DOCS).as_posix(),
)
def test_a_link_is_words_and_a_router_has_its_prefix_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\[`?[\w/.-]+\.md`?\]\(", text) == []
    assert re.findall(r"^ *(?:app\.include_router\()?(?:crud|list)_router\(\w+(?:, \"|\)).*", text, re.MULTILINE) == []
