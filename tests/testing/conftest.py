"""Projects with tests of their own, which pytest runs in this process."""

from __future__ import annotations

import textwrap
from typing import Protocol

# A run in this process forgets what it was the first to import, and modules in C can't be imported twice.
import aiosqlite  # noqa: F401
import anyio.pytest_plugin
import asyncpg  # noqa: F401
import faker  # noqa: F401
import polyfactory.factories.sqlalchemy_factory  # noqa: F401
import psycopg  # noqa: F401
import pytest
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite.aiosqlite
import sqlalchemy.ext.asyncio  # noqa: F401

import dotmac_database_pytest.databases
import dotmac_database_pytest.plugin
import dotmac_database_pytest.settings
import dotmac_database_pytest.sharing
from dotmac_database.sqlalchemy_internals import all_mappers

PLUGINS = (dotmac_database_pytest.plugin, anyio.pytest_plugin)
"""Not by their entry points, since that of the toolkit can be of another checkout."""

ARGUMENTS = ("-W", "error", "--strict-markers", "-p", "no:cacheprovider")

CONFTEST = """
    import pytest

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


MODULES = ("project_models", "test_project")


class Run(Protocol):
    """Runs the tests of a project with these files and this configuration."""

    def __call__(
        self, tests: str, *arguments: str, conftest: str = "", ini: str = "", models: str = ""
    ) -> pytest.RunResult: ...


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The outer run's settings are not those of the project."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("TEST_DATABASE_URL", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)

    def run_project(
        tests: str, *arguments: str, conftest: str = "", ini: str = "", models: str = ""
    ) -> pytest.RunResult:
        pytester.makeini(f"[pytest]\n{textwrap.dedent(ini)}")
        pytester.makeconftest(textwrap.dedent(CONFTEST) + textwrap.dedent(conftest))
        pytester.makepyfile(test_project=textwrap.dedent(tests), project_models=textwrap.dedent(models))
        pytester.syspathinsert()
        try:
            return pytester.runpytest_inprocess(*ARGUMENTS, *arguments, plugins=PLUGINS)
        finally:
            forget_models()

    return run_project


def forget_models() -> None:
    """Let no class of a project stay mapped, because others take the tables of all mapped classes."""
    for registry in {each.registry for each in all_mappers() if each.class_.__module__ in MODULES}:
        registry.dispose(cascade=True)
