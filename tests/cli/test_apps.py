"""``--app`` that names a FastAPI app: its plugin is found."""

from __future__ import annotations

import pytest

from dotmac_database_fastapi import plugins_of
from tests.cli import shop, shop_app
from tests.cli.conftest import APP, Run

WAYS = ("by_lifespan", "installed", "of_its_own", "in_a_function", "twice")


@pytest.mark.parametrize("way", WAYS)
def test_the_plugin_of_an_app_is_found(way: str, run: Run, shop_url: str) -> None:
    assert plugins_of(getattr(shop_app, way)) == [shop.plugin]
    for words in (("rls", "sql"), ("tenants", "list", "--url", shop_url, "--json")):
        assert run(*words, "--app", f"tests.cli.shop_app:{way}") == run(*words, "--app", f"{APP}:plugin")


def test_the_doctor_looks_at_the_routes_of_the_app(run: Run, shop_url: str) -> None:
    words = ["doctor", "--url", shop_url, "--only", "missing-index", "--json"]
    whole = run(*words, "--app", "tests.cli.shop_app:by_lifespan")
    assert whole == run(*words, "--app", f"{APP}:plugin", "--routes", "tests.cli.shop_app:by_lifespan")
    assert whole.document["findings"]
    assert run(*words, "--app", f"{APP}:plugin").document["skipped"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("without", "no plugin is found in the app's lifespan. Pass the plugin itself."),
        ("two", "the app has several plugins, DatabasePlugin('postgresql"),
        ("routes", "it is of the class APIRouter. It must be a FastAPI app, a DatabasePlugin,"),
    ],
)
def test_an_app_without_one_plugin_is_refused(name: str, message: str, run: Run) -> None:
    ended = run("rls", "sql", "--app", f"tests.cli.shop_app:{name}")
    assert (ended.code, ended.out) == (2, "")
    assert f"--app tests.cli.shop_app:{name}: {message}" in ended.err
    assert "geheim" not in ended.err
