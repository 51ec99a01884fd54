"""Every command, on both databases, as text and as JSON: good input, bad input, and a database that is not there."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from .conftest import APP, Run

BASE = f"{APP}:Base"
COMMANDS: dict[str, Sequence[str]] = {
    "health": ("health",),
    "sql": ("rls", "sql", "--app", BASE),
    "apply": ("rls", "apply", "--app", BASE, "--dry-run"),
    "verify": ("rls", "verify", "--app", BASE),
    "explain": ("explain", "User", "--app", BASE, "--tenant", "a", "--filter", "status=active"),
    "advise": ("advise", "User", "--app", BASE, "--tenant", "a", "--filter", "status=active"),
    "doctor": ("doctor", "--app", BASE),
    "list": ("tenants", "list", "--app", BASE),
    "stats": ("tenants", "stats", "--app", BASE),
    "stats of one": ("tenants", "stats", "a", "--app", BASE),
}
OFFLINE = ("sql",)
ONLY_POSTGRESQL = ("apply", "verify")
CODES = {"verify": 1, "advise": 1, "doctor": 1}
"""The exit codes of commands that end well with another one than 0: a superuser is a finding, as is a missing index."""

SHOWN = {
    "health": ("healthy: The database answers.", "latency_ms"),
    "sql": ("BEGIN;", "ALTER TABLE shop_users FORCE ROW LEVEL SECURITY;", "COMMIT;"),
    "apply": ("Nothing is applied.",),
    "verify": ("risk", "remedy", "findings."),
    "explain": ("SELECT shop_users.id", "shop_users", "1 index missing."),
    "advise": ("shop_users (tenant_id, status, id)", "CREATE INDEX", "1 index missing."),
    "doctor": ("warning  loose-key", "note  tenant-not-leading", "remedy", "skipped", "checks ran"),
    "list": ("tenant", "2 tenants.", "(without a tenant)"),
    "stats": ("tenant", "history", "2 tenants."),
    "stats of one": ("shop_order_tags", "history", "outbox", "a has 6 rows."),
}
KEYS = {
    "health": {"status", "message", "duration_ms", "details", "timestamp", "error"},
    "sql": {"statements"},
    "apply": {"applied", "statements"},
    "verify": {"findings"},
    "explain": {"statement", "plan", "scans", "indexes", "sorts", "advice"},
    "advise": {"advice"},
    "doctor": {"failed", "findings", "skipped", "ran"},
    "list": {"tenants", "absent_tables"},
    "stats": {"tenants", "absent_tables", "unattributed_tables"},
    "stats of one": {"tenants", "absent_tables", "unattributed_tables"},
}


def at(url: str, name: str) -> list[str]:
    return [] if name in OFFLINE else ["--url", url]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("name", COMMANDS)
def test_good_input(name: str, form: str, dialect: str, shop_url: str, run: Run) -> None:
    ended = run(*COMMANDS[name], *at(shop_url, name), *(["--json"] if form == "json" else []))
    if name in ONLY_POSTGRESQL and dialect == "sqlite":
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == "Row-level security requires PostgreSQL; this is sqlite.\n"
        return
    assert ended.code == CODES.get(name, 0), ended
    if form == "json":
        assert ended.document.keys() == KEYS[name]
        assert json.loads(ended.out) is not None
    else:
        for each in SHOWN[name]:
            assert each in ended.out
        assert not any(line != line.rstrip() for line in ended.out.splitlines())
    assert "\x1b" not in ended.out + ended.err
    if name != "apply":
        assert ended.err == ""


UNREACHABLE = {
    "postgresql": "postgresql://shop:geheim@127.0.0.1:1/shop",
    "sqlite": "sqlite:////nowhere/shop.db",
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in (*OFFLINE, "apply")])
def test_a_database_that_is_not_there(name: str, form: str, dialect: str, run: Run) -> None:
    ended = run(*COMMANDS[name], "--url", UNREACHABLE[dialect], *(["--json"] if form == "json" else []))
    if name in ONLY_POSTGRESQL and dialect == "sqlite":
        assert ended.code in (2, 3)
        return
    assert ended.code == 3, ended
    assert "geheim" not in ended.out + ended.err
    if name == "health":
        assert (ended.document["status"] if form == "json" else ended.out.partition(":")[0]) == "unhealthy"
    else:
        assert ended.out == ""
        assert ended.err.count("\n") == 1
        assert ("There is no file /nowhere/shop.db" if dialect == "sqlite" else "can't be reached") in ended.err


APPS = {
    "nothing": ("", "it must be package.module:name"),
    "no name": ("tests.cli.shop", "it must be package.module:name"),
    "no module": ("tests.cli.shopp:Base", "there is no module 'tests.cli.shopp'"),
    "no package": ("nowhere.shop:Base", "there is no module 'nowhere'"),
    "no object": (f"{APP}:Bsae", "tests.cli.shop has no 'Bsae'; did you mean 'Base'?"),
    "another object": (f"{APP}:nothing", "it is of the class int. It must be a FastAPI app"),
    "a function": (f"{APP}:current_user", "It must be a FastAPI app"),
    "a module that fails": (
        "tests.cli.broken:Base",
        "importing tests.cli.broken failed: RuntimeError: it is broken: postgresql://app:***@db/x",
    ),
    "a missing import": ("tests.cli.lacking:Base", "importing tests.cli.lacking failed: ModuleNotFoundError"),
    "no tables": ("tests.cli.bare:Base", "it has no tables"),
}


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("name", [name for name in COMMANDS if "--app" in COMMANDS[name]])
def test_an_app_that_is_none(name: str, app: str, run: Run, shop_url: str, dialect: str) -> None:
    value, message = APPS[app]
    if app == "no tables" and name in ONLY_POSTGRESQL and dialect == "sqlite":
        message = "this is sqlite"
    words = [value if each == BASE else each for each in COMMANDS[name]]
    ended = run(*words, *at(shop_url, name))
    assert (ended.code, ended.out) == (2, ""), ended
    assert message in ended.err
    assert ended.err.count("\n") == 1


BAD: dict[str, tuple[Sequence[str], str]] = {
    "no database": (("health",), "No database is named: use --url"),
    "two databases": (("health", "sqlite://", "--url", "sqlite://"), "Name the database once"),
    "no URL": (("health", "nonsense:"), "The database's URL can't be read."),
    "another database": (("health", "mysql://root@localhost/x"), "mysql"),
    "no models": (("tenants", "list", "--url", "sqlite://"), "No models are named: use --app"),
    "no database for models": (("tenants", "list", "--app", BASE), "No database is named"),
    "no database for stats": (("tenants", "stats", "--app", BASE), "No database is named"),
    "no database for explain": (("explain", "Plan", "--app", BASE), "No database is named"),
    "no database for apply": (("rls", "apply", "--app", BASE), "No database is named"),
    "no tenants' tables": (("rls", "sql", "--app", "tests.cli.untenanted:Base"), "No table has a tenant"),
    "a blank tenant": (("tenants", "stats", " ", "--app", BASE, "--url", "sqlite://"), "can't be blank"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, run: Run) -> None:
    words, message = BAD[name]
    for form in ([], ["--json"]):
        ended = run(*words, *form)
        assert (ended.code, ended.out) == (2, ""), ended
        assert message in ended.err
        assert ended.err.count("\n") == 1


@pytest.mark.parametrize("words", [("nope",), ("health", "--nope"), ("tenants", "nope"), ("explain",)])
def test_what_typer_refuses(words: Sequence[str], run: Run) -> None:
    ended = run(*words)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: dotmac-db" in ended.err


def test_the_help_names_every_command_and_exit_code(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    commands = ("health", "doctor", "rls", "explain", "advise", "tenants")
    for word in (*commands, "--traceback", "Exit codes", "130 interrupted"):
        assert word in ended.out
