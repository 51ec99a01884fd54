"""``dotmac-db doctor``: what is wrong in a database, in the models, or in migrations that did not run yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ..declared_reads import DeclaredRead
from ..engines import Database
from ..errors import MisuseError
from .output import ExitCode, JsonOption, block, counted, show
from .target import AppOption, Target, UrlOption, imported, is_app, open_target

if TYPE_CHECKING:
    from ..doctor import Report


MigrationOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="REVISION",
        help="Judge the migrations up to this revision of Alembic (head), and nothing else.",
        show_default=False,
    ),
]
OnlyOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="CHECK", help="Run this check. Repeatable. Default: all.", show_default=False),
]
SkipOption: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="CHECK", help="Leave this check out. Repeatable.", show_default=False)
]
AcceptOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="OBJECT", help="Leave out the findings of this object. Repeatable.", show_default=False),
]
RoutesOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="The FastAPI app whose lists need indexes. Default: that of --app.",
        show_default=False,
    ),
]
ProcessesOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="The app's processes, for its pools and the server's limit.", show_default=False),
]


def doctor(
    app: AppOption = None,
    url: UrlOption = None,
    migration: MigrationOption = None,
    only: OnlyOption = None,
    skip: SkipOption = None,
    accept: AcceptOption = None,
    routes: RoutesOption = None,
    processes: ProcessesOption = None,
    alembic: Annotated[str, typer.Option(metavar="FILE", help="Alembic's configuration.")] = "alembic.ini",
    as_json: JsonOption = False,
) -> None:
    """Examine a live database and the app's models, read only. Connect as the app does.

    Exit codes: 0 nothing but notes, 1 there are errors or warnings.
    """
    from ..doctor import examine  # no other command needs it

    with open_target(app, url) as target, _as_the_app(target) as database:
        if migration is not None:
            report = _migrations(database, migration, alembic, only or (), skip or ())
        else:
            report = examine(
                database,
                target.metadata,
                only=only or (),
                skip=skip or (),
                row_level_security=target.rls,
                reads=_reads(target, routes),
                processes=processes,
            )
    report = report.without(accept or ())
    show(report.as_dict(), *_parts(report), as_json=as_json)
    if report.failed:
        raise typer.Exit(ExitCode.FINDINGS)


def _migrations(database: Database, revision: str, alembic: str, only: Sequence[str], skip: Sequence[str]) -> Report:
    from ..doctor import examine_migrations

    if not Path(alembic).is_file():
        raise MisuseError(f"There is no file {alembic}: name Alembic's configuration.", field="--alembic")
    try:
        from alembic.config import Config
    except ModuleNotFoundError:
        raise MisuseError("Migrations need Alembic: pip install 'dotmac-database-toolkit[doctor]'.") from None
    return examine_migrations(database, Config(alembic), revision, only=only, skip=skip)


@contextmanager
def _as_the_app(target: Target) -> Iterator[Database]:
    """The database with the app's own time limits and pools, which are a part of what is examined."""
    own = target.own_database
    if own is None:
        yield target.database
        return
    database = Database(target.database.url, own.options, own.engine_options)
    try:
        yield database
    finally:
        database.dispose()


def _reads(target: Target, routes: str | None) -> list[DeclaredRead] | None:
    """The reads that the lists of an app declare; None: no app is named. Its plugin is imported, if it uses one."""
    value = target.fastapi if routes is None else imported(routes, option="--routes")
    if value is None:
        return None
    if not is_app(value):
        raise MisuseError(f"--routes {routes}: it is no FastAPI app.", field="--routes")
    plugin = sys.modules.get("dotmac_database_fastapi")
    return [] if plugin is None else list(plugin.declared_reads(value))


def _parts(report: Report) -> Iterator[object]:
    for each in report:
        yield block(f"{each.severity.value}  {each.code}  {each.object}", {"risk": each.risk, "remedy": each.remedy})
    reasons: dict[str, list[str]] = {}
    for skipped in report.skipped:
        reasons.setdefault(skipped.reason, []).append(skipped.code)
    for reason, codes in reasons.items():
        yield f"skipped  {', '.join(codes)}\n  {reason}\n"
    ran = f"{counted(len(report.ran), 'check')} ran"
    yield f"{counted(len(report), 'finding')}, {ran}, {len(report.skipped)} skipped."
