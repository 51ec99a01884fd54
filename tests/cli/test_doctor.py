"""``dotmac-db doctor``: the report as text and as JSON, its exit codes, and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from dotmac_database import create_database
from dotmac_database.doctor import CHECKS, RULES

from .conftest import APP, Run

BASE = f"{APP}:Base"


def test_the_findings_are_shown_with_their_remedies(run: Run, shop_url: str, dialect: str) -> None:
    ended = run("doctor", "--app", BASE, "--url", shop_url, "--only", "tenant-not-leading")
    schema = "public" if dialect == "postgresql" else "main"
    assert ended.code == 0  # of a small table it is a note
    assert f"note  tenant-not-leading  {schema}.shop_orders.tenant_id\n" in ended.out
    assert "  remedy  CREATE INDEX" in ended.out
    assert ended.out.endswith("findings, 1 check ran, 0 skipped.\n")


def test_reviewed_objects_are_left_out(run: Run, shop_url: str) -> None:
    words = ["--app", BASE, "--url", shop_url, "--only", "loose-key"]
    objects = [each["object"] for each in run("doctor", *words, "--json").document["findings"]]
    accepted = [word for each in objects[1:] for word in ("--accept", each)]
    left = run("doctor", *words, *accepted, "--json")
    assert (left.code, [each["object"] for each in left.document["findings"]]) == (1, objects[:1])
    assert run("doctor", *words, *accepted, "--accept", objects[0]).code == 0


def test_json_has_the_whole_report(run: Run, shop_url: str) -> None:
    document = run("doctor", "--app", BASE, "--url", shop_url, "--json").document
    assert document["failed"] is True
    codes = {each["code"] for each in [*document["findings"], *document["skipped"]]} | {*document["ran"]}
    assert codes == {each.code for each in CHECKS}
    assert set(document["findings"][0]) == {"object", "risk", "remedy", "code", "severity", "sql"}


def test_without_findings_the_exit_code_is_zero(run: Run, shop_url: str) -> None:
    ended = run("doctor", "--app", BASE, "--url", shop_url, "--only", "no-primary-key")
    assert (ended.code, ended.out) == (0, "0 findings, 1 check ran, 0 skipped.\n")
    ended = run("doctor", "--app", BASE, "--url", shop_url, "--only", "missing-index")
    assert ended.code == 0
    assert "no route declares what it reads; pass --routes module:app" in ended.out


def test_the_routes_of_an_app_are_advised(run: Run, shop_url: str) -> None:
    words = ["--app", BASE, "--url", shop_url, "--only", "missing-index"]
    document = run("doctor", *words, "--routes", "tests.cli.doctor_app:app", "--json").document
    assert [each["object"].partition(".")[2] for each in document["findings"]] == ["shop_users.tenant_id, name, id"]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_the_time_limits_and_pools_of_the_app_count(run: Run, shop_url: str) -> None:
    """A plugin sets timeouts itself. The commands have none, but the doctor looks at those of the app."""
    words = ["--url", shop_url, "--only", "timeout-missing", "--only", "too-many-connections", "--json"]
    plugin = run("doctor", "--app", f"{APP}:plugin", *words, "--processes", "1000").document
    found = [each["object"] for each in plugin["findings"] if each["severity"] != "note"]
    assert found == ["setting max_connections"]
    base = run("doctor", "--app", BASE, *words).document
    assert "setting statement_timeout" in [each["object"] for each in base["findings"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "only: there is no check 'nothing'. There are: row-level-security"),
        (["--routes", "tests.cli.shop:nothing"], "--routes tests.cli.shop:nothing: it is no FastAPI app."),
        (["--app", "tests.cli.doctor_app:app"], "no plugin is found in the app's lifespan. Pass the plugin itself."),
        (["--routes", "tests.cli.shop:lost"], "--routes tests.cli.shop:lost: tests.cli.shop has no 'lost'"),
        (["--migration", "head", "--alembic", "lost.ini"], "There is no file lost.ini"),
    ],
)
def test_bad_input_is_one_line(run: Run, shop_url: str, words: list[str], message: str) -> None:
    ended = run("doctor", "--app", BASE, "--url", shop_url, *words)
    assert ended.code == 2
    assert message in ended.err
    assert ended.out == ""


def test_migrations_are_judged_before_they_run(run: Run, shop_url: str, dialect: str, tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(url='postgresql://', literal_binds=True)\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    (tmp_path / "versions" / "one.py").write_text(
        "from alembic import op\nrevision, down_revision = 'one', None\n\n"
        "def upgrade():\n    op.drop_column('shop_users', 'name')\n"
    )
    (tmp_path / "alembic.ini").write_text(f"[alembic]\nscript_location = {tmp_path}\npath_separator = os\n")
    words = ["--url", shop_url, "--migration", "head", "--alembic", str(tmp_path / "alembic.ini"), "--json"]
    ended = run("doctor", *words)
    if dialect == "sqlite":
        assert ended.code == 0
        assert ended.document["skipped"][0]["code"] == "migration"
        return
    assert ended.code == 1
    found = [(each["code"], each["object"]) for each in ended.document["findings"]]
    assert found[0] == ("migration-drops", "one: public.shop_users.name")
    assert ended.document["ran"] == [each.code for each in RULES]
    database = create_database(shop_url)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SELECT name FROM shop_users").all()
    database.dispose()
    assert run("doctor", *words, "--skip", "migration-drops").code == 0
