"""Runs the Python blocks of the documentation's pages.

``NAME.before.py`` is what the blocks of ``docs/NAME.md`` can assume, and ``NAME.after.py`` what they must have done.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n)?```(?:python|py)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)

_RUN = """
import asyncio, ast, inspect, sys, types
from pathlib import Path
source = Path(sys.argv[1]).read_text()
page = types.ModuleType("page")
sys.modules["page"] = page
code = compile(source, sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, vars(page)))
else:
    exec(code, vars(page))
"""


def blocks_of(path: Path) -> list[str]:
    """The Python blocks of a page that run, without those that are marked with a reason not to."""
    return [each["code"] for each in _FENCE.finditer(path.read_text(encoding="utf-8")) if not each["mark"]]


def unmarked_fences(path: Path) -> int:
    """How many Python fences a page has, by any spelling, less those that are marked as not run."""
    text = path.read_text(encoding="utf-8")
    marks = re.findall(r"^<!-- not run: [^\n]+ -->\n *```", text, re.MULTILINE)
    return len(re.findall(r"^ *```(?:python|py|Python|python3)\b", text, re.MULTILINE)) - len(marks)


def part(name: str, which: str) -> str:
    """What stands before or after the blocks of a page, if anything does."""
    path = Path(__file__).parent / f"{name}.{which}.py"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def run_page(parts: Iterable[str], folder: Path, url: str = "sqlite://") -> None:
    """Run these parts as one module, in a process of its own and in this folder. A block may await.

    ``url`` is their ``DATABASE_URL``.
    """
    script = folder / "page.py"
    script.write_text("\n".join(parts), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": url, "JOB_KEY": "of sixteen bytes"}
    command = [sys.executable, "-W", "error", "-c", _RUN, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
