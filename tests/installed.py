"""Uses the installed toolkit as a user does, outside of the repository: ``python -P tests/installed.py FOLDER``.

It has the project of ``docs/testing.md``, with FastAPI and PostgreSQL, a type checker, and the command line.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "testing.md").read_text()
PACKAGES = ("dotmac_database", "dotmac_database_fastapi", "dotmac_database_pytest")

TYPED = """
from dotmac_database import BaseTenantRepository, create_repository
from dotmac_database.testing import ModelFactories
from dotmac_database_fastapi import DatabasePlugin
from dotmac_database_pytest.server import PostgresServer

repository_of: object = create_repository
plugin: DatabasePlugin = DatabasePlugin("sqlite://")
server_class: type[PostgresServer] = PostgresServer
factories_class: type[ModelFactories] = ModelFactories
wrong: int = DatabasePlugin("sqlite://")
"""

MYPY_FINDS = 'typed.py:11: error: Incompatible types in assignment (expression has type "DatabasePlugin"'


def write_project(folder: Path) -> None:
    """Write the blocks of the page into the files that they name; several blocks can be one file."""
    for name, text in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)
    (ini,) = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (folder / "pytest.ini").write_text(ini)


def main(folder: Path) -> None:
    """Exits with what is wrong."""
    for name in PACKAGES:
        place = Path(importlib.import_module(name).__file__ or "").parent
        require(not place.is_relative_to(ROOT) or "site-packages" in place.parts, f"{place} is the repository's")
        require((place / "py.typed").exists(), f"{place} has no py.typed")
    write_project(folder)
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run([*pytest, "--ignore=policies"], folder, "10 passed")
    run([*pytest, "-o", "dotmac_database=postgresql"], folder, "12 passed")
    (folder / "typed.py").write_text(TYPED)
    errors = run([sys.executable, "-m", "mypy", "--strict", "typed.py"], folder, MYPY_FINDS, fails=True)
    require("Found 1 error" in errors, errors)
    for script in distribution("dotmac-database-toolkit").entry_points.select(group="console_scripts"):
        run([str(Path(sys.executable).parent / script.name), "--help"], folder, "")


def run(command: list[str], folder: Path, expected: str, *, fails: bool = False) -> str:
    """The output of a command, which has to contain a text."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    output = done.stdout + done.stderr
    require(bool(done.returncode) == fails and expected in output, f"{' '.join(command)}:\n{output}")
    return output


def require(holds: bool, message: str) -> None:
    """Exit with a message if something does not hold."""
    if not holds:
        sys.exit(message)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
