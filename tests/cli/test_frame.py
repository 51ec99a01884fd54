"""What all commands share: the target, errors, questions, progress, terminals and the missing extra."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
import typer
from rich.console import Console

import dotmac_database
import dotmac_database.cli as command_line
from dotmac_database import (
    CircuitOpenError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DuplicateEntityError,
    InvalidCursorError,
    MisuseError,
    PermissionDeniedError,
    TenantIsolationError,
    UnscopedStatementError,
    ValidationError,
)
from dotmac_database.cli import output
from dotmac_database.cli.output import ExitCode, failure, hidden, proceed, progress, size
from dotmac_database.cli.target import open_target
from tests.cli.shop import Base, Order, Tag, User

from .conftest import APP, Run

ROOT = Path(__file__).parent.parent.parent


def start(*arguments: str, env: dict[str, str] | None = None, **options: object) -> subprocess.Popen[str]:
    """Start ``dotmac-db`` as its users do, who can interrupt it, also if the run of the tests ignores Ctrl-C."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "DOTMAC_APP")}
    # A process inherits what is ignored, such as Ctrl-C in the background of a shell, but no handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "dotmac_database.cli", *arguments],
            env={**environment, "PYTHONPATH": str(ROOT), **(env or {})},
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options},  # type: ignore[call-overload]
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValidationError("x"), 2),
        (MisuseError("x"), 2),
        (InvalidCursorError("x"), 2),
        (DatabaseUnavailableError("x"), 3),
        (DatabaseTimeoutError("x"), 3),
        (CircuitOpenError("x"), 3),
        (PermissionDeniedError("x"), 4),
        (TenantIsolationError("x"), 4),
        (UnscopedStatementError("x"), 4),
        (DuplicateEntityError("x"), 4),
        (RuntimeError("x"), 4),
    ],
)
def test_the_exit_code_of_an_error(error: Exception, code: int) -> None:
    assert failure(error)[0] == code


def test_an_error_of_any_other_kind_is_one_line_with_its_class() -> None:
    assert failure(KeyError("a\n b")) == (4, "KeyError: 'a\\n b' (dotmac-db --traceback … shows where)")
    assert failure(RuntimeError("a\n b"))[1].startswith("RuntimeError: a b (")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:geheim@db/x fails", "postgresql://app:***@db/x fails"),
        ("postgresql://app:ge@he:im@db/x fails", "postgresql://app:***@db/x fails"),
        ("postgresql://db/x?user=app&password=geheim&ssl=1", "postgresql://db/x?user=app&password=***&ssl=1"),
        ("host=db password=geheim user=app", "host=db password=*** user=app"),
        ("postgresql://db:5432/x", "postgresql://db:5432/x"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert hidden(text) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(None, None), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3 * 10**15, "3000.0 TB")],
)
def test_sizes_for_people(number: int | None, shown: str | None) -> None:
    assert size(number) == shown


def test_a_traceback_is_shown_where_it_is_wanted(run: Run) -> None:
    plain, wanted = run("health", "nonsense:"), run("--traceback", "health", "nonsense:")
    assert (plain.code, wanted.code) == (2, 2)
    assert "Traceback" not in plain.err
    assert "Traceback" in wanted.err
    assert wanted.err.endswith(plain.err)


@contextmanager
def _answering(answer: str, *, terminal: bool) -> Iterator[None]:
    stream = io.StringIO(answer)
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        yield


@pytest.mark.parametrize(
    ("dry_run", "yes", "terminal", "answer", "expected"),
    [
        (True, False, False, "", False),
        (True, True, False, "", False),
        (False, True, False, "", True),
        (False, False, False, "y\n", MisuseError),
        (False, False, True, "y\n", True),
        (False, False, True, "n\n", ExitCode.REFUSED),
        (False, False, True, "\n", ExitCode.REFUSED),
    ],
)
def test_what_destroys_says_it_and_asks(
    dry_run: bool,
    yes: bool,
    terminal: bool,
    answer: str,
    expected: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _answering(answer, terminal=terminal):
        if isinstance(expected, bool):
            assert proceed("All rows go.", dry_run=dry_run, yes=yes) is expected
        elif expected is MisuseError:
            with pytest.raises(MisuseError, match="add --yes"):
                proceed("All rows go.", dry_run=dry_run, yes=yes)
        else:
            with pytest.raises(typer.Exit) as ended:
                proceed("All rows go.", dry_run=dry_run, yes=yes)
            assert ended.value.exit_code == expected
    shown = capsys.readouterr()
    assert shown.err.startswith("All rows go.\n")
    assert shown.out == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_appears_on_a_terminal_when_it_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    appeared = threading.Event()

    class Watched(Terminal):
        def write(self, text: str) -> int:
            if "invoices" in text:
                appeared.set()
            return super().write(text)

    stream = Watched()
    monkeypatch.setattr(output, "_BEFORE_PROGRESS", 0.0)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "console", lambda **_: Console(file=stream, force_terminal=True, width=100))
    with progress() as report:
        report("invoices", 5, 10)
        assert appeared.wait(120)
        report("invoices", 10, 10)


def test_work_of_less_than_a_second_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(output, "_BEFORE_PROGRESS", 3600.0)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress() as report:
        report("invoices", 5, 10)
    assert stream.getvalue() == ""


def test_nothing_shows_progress_in_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_BEFORE_PROGRESS", 0.0)
    with progress() as report:
        report("invoices", 5, None)
    assert capsys.readouterr().err == ""


def test_the_target_of_each_kind_of_object(shop_url: str) -> None:
    with open_target(f"{APP}:Base", shop_url) as target:
        assert target.metadata == (Base.metadata,)
        assert target.model("User") is User
        assert target.model("tests.cli.shop.User") is User
        assert target.rls is None
        assert {User, Order, Tag} <= set(target.models)
    with open_target(f"{APP}:User.metadata", shop_url) as target:
        assert target.metadata == (Base.metadata,)
    with open_target(f"{APP}:rls", shop_url) as target:
        assert target.rls is not None
        assert target.metadata == (Base.metadata,)
    with open_target(f"{APP}:plugin") as target:
        assert target.rls is not None
        assert Base.metadata in target.metadata
        assert not target.policies
        assert target.address == "postgresql://shop:***@127.0.0.1:1/shop"
        options = target.database.options
        assert (options.statement_timeout, options.application_name) == (None, "dotmac-db")
    with open_target(f"{APP}:ruled") as target:
        assert [each.model for each in target.policies] == [Tag]


def test_the_order_of_what_names_the_database(shop_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option goes before the app's database, and that before the environment."""
    monkeypatch.setenv("DATABASE_URL", "sqlite:////elsewhere.db")
    with open_target(f"{APP}:database", shop_url) as target:
        assert target.database.url.database != "shop"
    with open_target(f"{APP}:database") as target:
        assert target.database.url.database == "shop"
    with open_target(f"{APP}:Base") as target, pytest.raises(DatabaseUnavailableError, match=r"elsewhere\.db"):
        _ = target.database


def test_a_model_of_two_modules_is_named_with_its_module(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twins_of_the_shop.py").write_text(
        "from sqlalchemy.orm import DeclarativeBase, mapped_column\nfrom sqlalchemy import Integer\n"
        "class Base(DeclarativeBase): pass\n"
        "def make(module, table):\n"
        "    return type('Twin', (Base,), {'__module__': module, '__tablename__': table,\n"
        "        'id': mapped_column(Integer, primary_key=True)})\n"
        "one, two = make('first', 'twins_one'), make('second', 'twins_two')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    ended = run("explain", "Twin", "--app", "twins_of_the_shop:Base", "--url", "sqlite://")
    assert ended.code == 2
    assert "Several models have the name Twin: first.Twin, second.Twin." in ended.err


def test_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch, shop_url: str) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dotmac_database.cli.tenants.measure", interrupted)
    ended = run("tenants", "stats", "--app", f"{APP}:Base", "--url", shop_url)
    assert (ended.code, ended.out, ended.err) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("missing", [["typer"], ["rich"], ["typer", "rich"]])
def test_a_missing_extra(
    missing: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: None if name in missing else object())
    assert command_line.main(["--help"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (f"dotmac-db: it needs {' and '.join(missing)}: pip install 'dotmac-database-toolkit[cli]'\n")


def test_nothing_of_it_is_imported_by_the_toolkit() -> None:
    script = (
        "import sys, dotmac_database\n"
        "packages = ('typer', 'rich', 'click', 'alembic', 'psycopg')\n"
        "def heavy(): return [each for each in packages if each in sys.modules]\n"
        "assert heavy() == [] and 'dotmac_database.cli' not in sys.modules, heavy()\n"
        "import dotmac_database.cli.app\n"
        "assert heavy() == ['typer'], heavy()\n"
        "sys.modules['typer'] = None\n"
        "sys.exit(dotmac_database.cli.main(['--help']))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert "pip install 'dotmac-database-toolkit[cli]'" in ended.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dotmac-db ", "tenants"),
        ("dotmac-db ten", "tenants"),
        ("dotmac-db rls ", "verify"),
        ("dotmac-db health --", "--json"),
    ],
)
def test_completion_of_a_shell(words: str, expected: str, run: Run) -> None:
    number = len(words.split(" ")) - 1
    env = {"_DOTMAC_DB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    ended = run(env=env)
    assert ended.code == 0
    assert expected in ended.out.splitlines()


def _on_a_terminal(url: str, **env: str) -> str:
    """What ``dotmac-db health`` writes to a terminal."""
    terminal, end = pty.openpty()
    process = start("health", url, env={"TERM": "xterm-256color", "COLUMNS": "100", **env}, stdout=end, stderr=end)
    os.close(end)
    parts = []
    with suppress(OSError):  # Linux says EIO where others say that it has ended
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    process.communicate()
    assert process.returncode == 0
    return b"".join(parts).decode()


def test_colours_are_for_terminals_alone(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    url = f"sqlite:///{tmp_path}/empty.db"
    assert "\x1b[" in _on_a_terminal(url)
    assert "\x1b[3" not in _on_a_terminal(url, NO_COLOR="1")


def test_ctrl_c_while_the_database_works(postgres_url: str) -> None:
    """The signal comes while the statement waits for a lock."""
    url = postgres_url
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as watcher:
        holder.execute("CREATE TABLE IF NOT EXISTS shop_tags (id int, tenant_id text, name text)")
        holder.commit()
        holder.execute("LOCK TABLE shop_tags")
        process = start("tenants", "stats", "--app", f"{APP}:Base", "--url", url)
        waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'dotmac-db' AND wait_event_type = 'Lock'"
        while watcher.execute(waiting).fetchone() is None:
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert err == "Interrupted.\n"


def test_the_environment_names_the_app(run: Run, monkeypatch: pytest.MonkeyPatch, shop_url: str) -> None:
    monkeypatch.setenv("DOTMAC_APP", f"{APP}:Base")
    monkeypatch.setenv("DATABASE_URL", shop_url)
    ended = run("tenants", "list", "--json")
    assert [each["tenant"] for each in ended.document["tenants"]] == [None, "a", "b"]


def test_an_app_in_the_current_folder(tmp_path: Path) -> None:
    """As uvicorn and Alembic do, in a process of its own: a Database, SQLModel and a plugin with its own database."""
    (tmp_path / "books_app.py").write_text(
        "from sqlmodel import Field, SQLModel\n"
        "from dotmac_database import create_database\n"
        "from dotmac_database.sqlmodel import TenantMixin\n"
        "from dotmac_database_fastapi import DatabasePlugin, tenant_from_header\n"
        "class Book(TenantMixin, SQLModel, table=True):\n"
        "    id: int | None = Field(default=None, primary_key=True)\n"
        "database = create_database('sqlite:///books.db')\n"
        "plugin = DatabasePlugin('sqlite:///books.db', tenant=tenant_from_header('X-Tenant-ID'))\n"
    )
    script = (
        "import sys, books_app\n"
        "from dotmac_database.cli import main\n"
        "books_app.SQLModel.metadata.create_all(books_app.database.engine)\n"
        "sys.path.remove('')\n"
        "sys.path_importer_cache.clear()\n"
        "del sys.modules['books_app']\n"
        "books_app.SQLModel.metadata.clear(); books_app.SQLModel._sa_registry.dispose()\n"
        "codes = [main(['tenants', 'list', '--app', f'books_app:{name}']) for name in ('plugin', 'database')]\n"
        "words = ['advise', 'Book', '--app', 'books_app:SQLModel', '--url', 'sqlite:///books.db', '--tenant', 'a']\n"
        "codes.append(main(words))\n"
        "sys.exit(codes != [0, 0, 0])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "0 tenants.\n0 tenants.\nNo index is missing.\n"
    assert ended.stderr == ""


def test_the_version_is_that_of_the_package(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.out) == (0, f"dotmac-db {version('dotmac-database-toolkit')}\n")
    assert dotmac_database.__version__ == version("dotmac-database-toolkit")
    with pytest.raises(AttributeError, match="has no attribute '__versions__'"):
        _ = dotmac_database.__versions__


@pytest.mark.parametrize("words", [("sql",), ("apply", "--yes"), ("verify",)])
def test_row_level_security_needs_postgresql_and_nothing_else_is_said(
    words: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.db").touch()
    (tmp_path / "small_shop.py").write_text(
        "from dotmac_database_fastapi import DatabasePlugin, tenant_from_header\n"
        f"plugin = DatabasePlugin('sqlite:///{tmp_path}/shop.db', tenant=tenant_from_header('X-Tenant-ID'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ended = run("rls", *words, "--app", "small_shop:plugin")
    sys.modules.pop("small_shop", None)
    assert (ended.code, ended.out, ended.err) == (2, "", "Row-level security requires PostgreSQL; this is sqlite.\n")
