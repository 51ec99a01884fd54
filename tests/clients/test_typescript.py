"""A client that openapi-typescript generates: its program is compiled in strict mode, and called against each app."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.clients.conftest import APPS, blocks_of_docs, check_answers, write_documents
from tests.clients.installing import installed, run

HERE = Path(__file__).parent / "typescript"
NODE, NPM = shutil.which("node"), shutil.which("npm")
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")

pytestmark = pytest.mark.skipif(NODE is None or NPM is None, reason="node and npm are needed")


def packages() -> Path:
    """The folder of the packages in the lock file."""

    def commands(new: Path) -> Sequence[Sequence[str | Path]]:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, new)
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000")
        return [(str(NPM), "ci", *quiet)]

    def unreachable(done: CompletedProcess[str]) -> bool:
        return any(code in done.stderr for code in OFFLINE)

    return installed(HERE / "package-lock.json", commands, unreachable) / "node_modules"


@pytest.fixture(scope="module")
def programs(documents: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled programs."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(packages())
    for each in (HERE / "package.json", HERE / "tsconfig.json", *HERE.glob("*.ts")):
        shutil.copy(each, folder)
    (block,) = blocks_of_docs("ts")
    (folder / "docs.ts").write_text(block.replace("./types.js", "./tokens-types.js"))
    write_documents(documents, folder)
    # JSON is YAML. One run of the generator for all documents is faster than one for each.
    apis = {name: {"root": f"{name}.json", "x-openapi-ts": {"output": f"{name}-types.ts"}} for name in APPS}
    (folder / "redocly.yaml").write_text(json.dumps({"apis": apis}))
    generator = folder / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    # Without the last option, a body must name the fields that have a default value.
    run(str(NODE), generator, "--redocly", "redocly.yaml", "--default-non-nullable=false", folder=folder)
    run(str(NODE), folder / "node_modules" / "typescript" / "bin" / "tsc", "--project", ".", folder=folder)
    return folder / "out"


@pytest.mark.parametrize("name", APPS)
def test_a_client_calls_every_operation(
    name: str, programs: Path, documents: dict[str, Any], serve: Callable[[str], str]
) -> None:
    check_answers(documents[name], run(str(NODE), programs / f"{name}.js", serve(name)))
