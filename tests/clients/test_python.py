"""A client that openapi-python-client generates: it is checked by mypy in strict mode, and called against each app."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from dotmac_database_fastapi import register_exception_handlers
from tests.clients import tokens_app
from tests.clients.conftest import APPS, blocks_of_docs, check_answers, write_documents
from tests.clients.installing import installed, run

HERE = Path(__file__).parent / "python"
UV_ERROR = 2
"""uv's exit code for errors such as an index that can't be reached. Versions that can't be resolved are 1."""


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python with the generator, which needs an older typer than the example, and the libraries of its clients."""
    uv = (sys.executable, "-m", "uv")
    pytest.importorskip("uv", reason="uv is needed, which nox[uv] installs")

    def commands(new: Path) -> Sequence[Sequence[str | Path]]:
        install = (
            *uv,
            "pip",
            "install",
            "--python",
            new / "bin" / "python",
            "--requirement",
            HERE / "requirements.txt",
        )
        return [(*uv, "venv", "--clear", "--python", sys.executable, new), install]

    def unreachable(done: CompletedProcess[str]) -> bool:
        return done.returncode == UV_ERROR

    return installed(HERE / "requirements.txt", commands, unreachable) / "bin" / "python"


@pytest.fixture(scope="module")
def programs(python: Path, documents: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs, with the generated packages beside them."""
    folder = tmp_path_factory.mktemp("python")
    for each in HERE.glob("*.py"):
        shutil.copy(each, folder)
    write_documents(documents, folder)
    for name in APPS:
        output = ("--output-path", folder / name, "--meta", "none", "--config", HERE / "config.yml")
        run(python, "-m", "openapi_python_client", "generate", "--path", f"{name}.json", *output, folder=folder)
    return folder


def test_the_programs_and_the_generated_packages_are_typed(python: Path, programs: Path) -> None:
    options = ("--strict", "--python-executable", python, "--cache-dir", programs / "cache", "--config-file=")
    run(sys.executable, "-m", "mypy", *options, *sorted(programs.glob("call_*.py")), *APPS, folder=programs)


@pytest.mark.parametrize("name", APPS)
def test_a_client_calls_every_operation(
    name: str, python: Path, programs: Path, documents: dict[str, Any], serve: Callable[[str], str]
) -> None:
    check_answers(documents[name], run(python, programs / f"call_{name}.py", serve(name), folder=programs))


def test_the_document_is_written_as_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = tokens_app.create_app("sqlite://")
    (block,) = blocks_of_docs("python")
    exec(block, {"app": app, "register_exception_handlers": register_exception_handlers})
    document = json.loads((tmp_path / "openapi.json").read_text())
    assert document == app.openapi()
    assert "sold_out" in document["components"]["schemas"]["ProblemCode"]["enum"]
