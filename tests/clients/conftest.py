"""The apps that clients are generated for, their documents, and the answers that a client got."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from dotmac_database import create_database, idempotency_metadata
from example_app.app import create_app
from example_app.loading import load
from example_app.settings import Settings
from tests.clients import tokens_app
from tests.fastapi import endpoints_app
from tests.fastapi.conftest import serving

APPS = ("library", "tokens", "airports")
"""The app of `docs/endpoints.md`, a small one with what that does not have, and the example."""


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URLs of the apps' databases, by the names of the apps."""
    folder = tmp_path_factory.mktemp("databases")
    return {name: f"sqlite:///{folder / name}.db" for name in APPS}


@pytest.fixture(scope="module")
def apps(urls: dict[str, str]) -> dict[str, FastAPI]:
    return {
        "library": endpoints_app.load().app_of(urls["library"]),
        "tokens": tokens_app.create_app(urls["tokens"]),
        "airports": create_app(Settings(database_url=urls["airports"], cursor_key="a key of the tests")),
    }


@pytest.fixture(scope="module")
def documents(apps: dict[str, FastAPI]) -> dict[str, Any]:
    """The apps' documents, as they are before the apps have run."""
    return {name: app.openapi() for name, app in apps.items()}


@pytest.fixture(scope="module")
def serve(apps: dict[str, FastAPI], urls: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """A function that fills the database of an app and serves the app; it returns the app's address."""
    with ExitStack() as servers:

        def address(name: str) -> str:
            if name == "library":
                create_tables(urls[name], library_tables())
            elif name == "tokens":
                create_tables(urls[name], tokens_app.Base.metadata)
            else:
                database = create_database(urls[name])
                load(database)
                database.dispose()
            return servers.enter_context(serving(apps[name]))

        yield address


def library_tables() -> sa.MetaData:
    """The tables of the app of `docs/endpoints.md`."""
    page, metadata = endpoints_app.load(), sa.MetaData()
    tables = [model.__table__ for model in (page.Author, page.Tag, page.Book, page.BookTag)]
    for table in (*tables, *idempotency_metadata.tables.values()):
        table.to_metadata(metadata)
    return metadata


def create_tables(url: str, metadata: sa.MetaData) -> None:
    """Create the tables of an app."""
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    engine.dispose()


def write_documents(documents: dict[str, Any], folder: Path) -> None:
    """Write each document into a file of its own, ``library.json``."""
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))


def blocks_of_docs(language: str) -> list[str]:
    """The blocks of a language in the section of the documentation about clients."""
    text = (Path(__file__).parents[2] / "docs" / "fastapi.md").read_text()
    section = text.partition("## OpenAPI and generated clients")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def check_answers(document: Any, output: str) -> None:
    """Check the record of a client: each operation was called, and each status that it answered is documented.

    The record is a JSON list of the method, the path and the status of each answer.
    """
    called: set[tuple[str, str]] = set()
    for method, path, status in json.loads(output):
        template = _template(document, method, path)
        responses = document["paths"][template][method]["responses"]
        assert str(status) in responses or ("default" in responses and status >= 400), (method, path, status)
        called.add((method, template))
    assert called == {(method, path) for path, operations in document["paths"].items() for method in operations}


def _template(document: Any, method: str, path: str) -> str:
    """The path of the document that a request's path matches; one without parameters comes first."""
    for template in sorted(document["paths"], key=lambda each: each.count("{")):
        pattern = "[^/]+".join(map(re.escape, re.split(r"\{\w+\}", template)))
        if method in document["paths"][template] and re.fullmatch(pattern, path):
            return str(template)
    raise AssertionError(f"{method} {path} is not in the document")
