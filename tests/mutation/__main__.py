"""Mutation tests: the code is changed in one place at a time, and a test must fail.

``python -m tests.mutation [--jobs N] [AREA …]`` tests the areas of `tests.mutation.areas`, all of them without a name.
It needs mutmut. Each area is tested in a copy of the repository, in ``build/mutation/AREA``, on one PostgreSQL server.
A mutant that no test kills is explained in ``tests/mutation/explained/AREA.txt``; it ends with 1 if another survives.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.mutation.areas import AREAS, Area
from tests.postgres import OwnServer

ROOT = Path(__file__).parent.parent.parent
EXPLAINED = Path(__file__).parent / "explained"
MUTMUT = (sys.executable, "-m", "mutmut")
KILLED = {"killed", "timeout"}  # a mutant that never ends is noticed, too


def configuration(area: Area, folders: Iterable[str]) -> str:
    """The section of ``pyproject.toml`` that tells mutmut what to do."""
    options = {
        "source_paths": ["dotmac_database"],
        "only_mutate": [f"dotmac_database/{each}" for each in area.modules.split()],
        "pytest_add_cli_args": ["-p", "no:xdist", "-p", "tests.mutation.unshrunk"],
        "pytest_add_cli_args_test_selection": shlex.split(area.tests),
        "also_copy": sorted(folders),
    }
    return "\n[tool.mutmut]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())


def copy(area: Area, target: Path) -> None:
    """A copy of all files that Git knows or would add, with the configuration of mutmut."""
    shutil.rmtree(target, ignore_errors=True)
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    with (target / "pyproject.toml").open("a") as settings:
        settings.write(configuration(area, {Path(name).parts[0] for name in names} - {"dotmac_database"}))


def output(folder: Path, *arguments: str) -> str:
    return subprocess.run((*MUTMUT, *arguments), cwd=folder, check=True, capture_output=True, text=True).stdout


def change(folder: Path, name: str) -> str:
    """What a mutant changes, on one line: ``function: old => new``."""
    lines = [line for line in output(folder, "show", name).splitlines() if not line.startswith(("---", "+++"))]
    old, new = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    function = name.split(".", 1)[1].rsplit("__mutmut_", 1)[0].replace("x_", "", 1).replace("xǁ", "").replace("ǁ", ".")
    return f"{function}: {old} => {new}".strip()


def explained(name: str) -> set[str]:
    """The changes that are explained. Empty lines, and lines that begin with #, are the explanations."""
    path = EXPLAINED / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.strip() for line in lines if line and not line.startswith("#")}


def test(name: str, jobs: int) -> bool:
    """Test the mutants of one area. Returns whether each is killed or explained."""
    folder = ROOT / "build" / "mutation" / name
    copy(AREAS[name], folder)
    start = time.monotonic()
    with (folder / "warnings.log").open("w") as log:
        subprocess.run((*MUTMUT, "run", "--max-children", f"{jobs}"), cwd=folder, check=True, stderr=log)
    states = dict(line.strip().split(": ") for line in output(folder, "results", "--all", "true").splitlines())
    survivors = {each: change(folder, each) for each, state in states.items() if state not in KILLED}
    accepted = explained(name)
    new = {each: text for each, text in survivors.items() if text not in accepted}
    killed, known = len(states) - len(survivors), len(survivors) - len(new)
    print(  # noqa: T201
        f"{name}: {len(states)} mutants, {killed} killed, {known} explained, {len(new)} not explained, "
        f"in {time.monotonic() - start:.0f} s"
    )
    for each, text in new.items():
        print(f"  {states[each]}: {each}\n    {text}")  # noqa: T201
    for text in sorted(accepted.difference(survivors.values())):
        print(f"  explained, but it does not survive: {text}")  # noqa: T201
    return not new


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants that are tested at a time")
    options = parser.parse_args()
    if unknown := set(options.areas).difference(AREAS):
        parser.error(f"{', '.join(sorted(unknown))}: the areas are {', '.join(AREAS)}")
    server = OwnServer(max_connections=400).start()
    os.environ["DOTMAC_TEST_POSTGRES_URL"] = server.url()
    try:
        results = [test(name, options.jobs) for name in options.areas or AREAS]
    finally:
        server.stop()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
