"""``dotmac-db rls`` on a real server: what it prints is what psql can run, and what it applies is verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from dotmac_database import create_database
from dotmac_database.cli import target as targets
from tests.cli.shop import Base, without_rls

from .conftest import APP, Run

ROLE = "dotmac_cli_app"


@dataclass(frozen=True)
class Server:
    """The URLs of a superuser, and of an app's role that the policies bind."""

    superuser: str
    role: str


@pytest.fixture
def server(postgres_url: str) -> Iterator[Server]:
    """The shop's tables without policies."""
    database = create_database(postgres_url)
    with database.engine.begin() as connection:
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        if connection.exec_driver_sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'").first() is None:
            connection.exec_driver_sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'dotmac' NOSUPERUSER NOBYPASSRLS")
        connection.exec_driver_sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE}")
    url = database.url.set(username=ROLE, password="dotmac").render_as_string(hide_password=False)
    yield Server(postgres_url, url)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS dotmac CASCADE")
        Base.metadata.drop_all(connection)
    database.dispose()


def policies(server: Server) -> list[str]:
    with psycopg.connect(server.superuser) as connection:
        rows = connection.execute("SELECT DISTINCT tablename || '.' || policyname FROM pg_policies ORDER BY 1")
        return [row[0] for row in rows]


TENANTS = [
    f"{table}.dotmac_tenant"
    for table in ("dotmac_outbox", "shop_order_tags", "shop_orders", "shop_tags", "shop_users", "shop_users_history")
]
RIGHTS = [f"shop_tags.dotmac_{right}" for right in ("create", "delete", "read", "update")]


@pytest.mark.parametrize(("app", "expected"), [("Base", TENANTS), ("ruled", sorted(TENANTS + RIGHTS))])
def test_the_sql_runs_as_it_is_printed_and_is_then_verified(
    app: str, expected: list[str], server: Server, run: Run
) -> None:
    script = run("rls", "sql", "--app", f"{APP}:{app}")
    assert (script.code, script.err) == (0, "")
    with psycopg.connect(server.superuser, autocommit=True) as connection:
        connection.execute(script.out.encode())
    assert policies(server) == expected
    verified = run("rls", "verify", "--app", f"{APP}:{app}", "--url", server.role)
    assert (verified.code, verified.out, verified.err) == (0, "0 findings.\n", "")
    dropped = run("rls", "sql", "--drop", "--app", f"{APP}:{app}")
    with psycopg.connect(server.superuser, autocommit=True) as connection:
        connection.execute(dropped.out.encode())
    assert policies(server) == []


@pytest.mark.parametrize("signed", [False, True])
def test_apply_shows_its_sql_and_asks(signed: bool, server: Server, run: Run) -> None:
    words = ("rls", "apply", "--app", f"{APP}:{'signed' if signed else 'rls'}", "--url", server.superuser)
    for refused in (run(*words), run(*words, "--json")):
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.endswith("Nobody can answer the question whether to do it: add --yes, or --dry-run.\n")
    dry = run(*words, "--dry-run", "--json")
    assert (dry.code, dry.document["applied"]) == (0, False)
    assert policies(server) == []
    assert f"These {len(dry.document['statements'])} statements will run on" in dry.err
    assert all(f"{each};\n" in dry.err for each in dry.document["statements"])

    for _ in range(2):
        done = run(*words, "--yes", "--json")
        assert (done.code, done.document) == (0, {**dry.document, "applied": True})
        assert policies(server) == TENANTS
    assert "a secret of the shop" not in done.out + done.err
    verified = run("rls", "verify", "--app", f"{APP}:{'signed' if signed else 'rls'}", "--url", server.role, "--json")
    assert (verified.code, verified.document) == (0, {"findings": []})


def test_the_sql_of_signed_settings_says_what_it_lacks(run: Run) -> None:
    script = run("rls", "sql", "--app", f"{APP}:signed")
    assert "CREATE OR REPLACE FUNCTION dotmac.tenant_id()" in script.out
    assert "rls apply" in script.err
    assert "a secret of the shop" not in script.out + script.err


def test_findings_have_a_remedy_and_can_be_accepted(server: Server, run: Run) -> None:
    words = ("rls", "verify", "--app", f"{APP}:rls", "--no-attempts")
    run("rls", "apply", "--app", f"{APP}:rls", "--url", server.superuser, "--yes")
    with psycopg.connect(server.superuser, autocommit=True) as connection:
        connection.execute("ALTER TABLE shop_tags NO FORCE ROW LEVEL SECURITY")
    found = run(*words, "--url", server.role, "--json")
    assert found.code == 1
    findings = found.document["findings"]
    assert [each["object"] for each in findings] == ["public.shop_tags"], findings
    assert all(each["risk"] and each["remedy"] for each in findings)
    text = run(*words, "--url", server.role)
    assert text.code == 1
    assert text.out.startswith("public.shop_tags\n  risk    ")
    assert text.out.endswith("1 finding.\n")
    accepted = run(*words, "--url", server.role, "--accept", "public.shop_tags")
    assert (accepted.code, accepted.out) == (0, "0 findings.\n")


def test_a_plugin_without_rls_is_warned_and_its_policies_are_in_the_sql(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "mapped_tables", lambda: list(Base.metadata.tables.values()))
    script = run("rls", "sql", "--app", f"{APP}:without_rls")
    assert script.code == 0
    assert "The plugin has no rls=" in script.err
    assert "CREATE POLICY dotmac_read ON shop_tags" in script.out
    assert without_rls.rls is None


def test_a_role_that_may_not_change_the_tables_is_refused(server: Server, run: Run) -> None:
    refused = run("rls", "apply", "--app", f"{APP}:rls", "--url", server.role, "--yes")
    assert refused.code == 4
    assert refused.out == ""
    assert policies(server) == []


def test_no_password_is_shown(server: Server, run: Run) -> None:
    shown = run("rls", "apply", "--app", f"{APP}:rls", "--url", server.role, "--dry-run")
    assert f"{ROLE}:***@" in shown.err
    assert "dotmac@" not in shown.err
