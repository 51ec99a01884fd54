"""The command line ``dotmac-db``. It needs the extra ``cli`` (typer and rich), and nothing else imports this package.

Each group of commands is a module: `health`, `rls`, `queries`, …. A command is a function with typer's annotations,
which `app` registers. What a command does is in a library that can be used without the command line; the command reads
its options, calls the library, and shows the result. Two modules are for all commands:

- `target` finds what ``--app package.module:plugin`` and ``--url`` name. A command has the parameters
  ``app: AppOption = None, url: UrlOption = None``, and uses ``with open_target(app, url) as target:``. A `Target` has
  ``metadata``, ``models``, ``model(name)``, ``rls``, ``policies``, and a ``database`` of its own, without the app's
  time limits.
- `output` shows results. A command has the parameter ``as_json: JsonOption``, and ends with
  ``show(document, table((…), rows), "3 tenants.", as_json=as_json)``. ``note(text)`` writes a line to stderr;
  ``with progress() as report:`` with ``report("invoices", done, total)`` shows bars; a command that destroys something
  has ``dry_run: DryRunOption`` and ``yes: YesOption``, and asks ``if not proceed(intent, dry_run=…, yes=…): return``.

A command ends with ``raise typer.Exit(ExitCode.FINDINGS)``, or raises an error of the toolkit, which becomes one line
on stderr and an exit code (see `ExitCode`). For bad input it raises `MisuseError`. Modules of commands import nothing
heavy beside what ``import dotmac_database`` has imported already: rich, alembic and drivers are imported where they are
used, so that ``dotmac-db --help`` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dotmac-db`` and return its exit code. ``arguments`` None: those of the process.

    It returns 2, after one line that names the extra, if typer or rich is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        needed = " and ".join(missing)
        sys.stderr.write(f"dotmac-db: it needs {needed}: pip install 'dotmac-database-toolkit[cli]'\n")
        return 2
    from .app import run

    return run(arguments)
