"""``dotmac-db tenants export``, ``import`` and ``delete``: all rows of one tenant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from ..transfers import (
    DeletionReport,
    Manifest,
    OnProgress,
    TransferProgress,
    delete_tenant,
    export_tenant,
    has_rows,
    import_tenant,
)
from .output import (
    DryRunOption,
    ExitCode,
    JsonOption,
    Report,
    YesOption,
    counted,
    note,
    proceed,
    progress,
    show,
    size,
    table,
)
from .target import AppOption, Target, UrlOption, open_target
from .tenant_names import similar, without_rows
from .tenants import tenants

__all__ = ["tenants"]

TenantArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TENANT", show_default=False)]
FolderArgument: TypeAlias = Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False)]


@tenants.command("export")
def export(
    tenant: TenantArgument,
    folder: FolderArgument,
    app: AppOption = None,
    url: UrlOption = None,
    compress: Annotated[bool, typer.Option("--gzip", help="Compress the files.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Also export a tenant without rows.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all rows of a tenant into a folder: NDJSON files and a manifest with counts and checksums.

    The rows are the state of one moment. The same command resumes an export that was interrupted. Exit codes: 0 it is
    finished; 4 the tenant has no rows, and nothing is written.
    """
    with open_target(app, url) as target, progress() as report:
        if not allow_empty and not has_rows(target.database, target.metadata, tenant, rls=target.rls):
            note(without_rows(target, tenant), style="bold red")
            raise typer.Exit(ExitCode.REFUSED)
        manifest = export_tenant(
            target.database,
            target.metadata,
            tenant,
            folder,
            rls=target.rls,
            compress=compress,
            on_progress=_reporting(report),
        )
    rows = {each.name: each.rows for each in manifest.tables}
    total = f"{counted(manifest.rows, 'row')} ({size(manifest.size)}) in {folder}."
    show(_document(manifest), *_counts(rows), total, as_json=as_json)


@tenants.command("import")
def import_(
    tenant: TenantArgument,
    folder: FolderArgument,
    app: AppOption = None,
    url: UrlOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the rows of an export into a database in which the tenant has none.

    Everything is checked before the first row is written, and compared with the export at the end. The same command
    resumes an import that was interrupted.
    """
    with open_target(app, url) as target:
        manifest = Manifest.read(folder)
        would = "would" if dry_run else "will"
        intent = f"{counted(manifest.rows, 'row')} of {tenant} {would} be written to {target.address}."
        writes = proceed(intent, dry_run=dry_run, yes=yes)
        with progress() as report:
            result = import_tenant(
                target.database,
                target.metadata,
                tenant,
                folder,
                rls=target.rls,
                dry_run=not writes,
                on_progress=_reporting(report),
            )
    total = sum(result.rows.values())
    done = f"{counted(total, 'row')} {'imported, the same as exported' if writes else 'checked'}."
    document = {"imported": writes, "resumed": result.resumed, "rows": result.rows}
    show(document, *_counts(result.rows), done, as_json=as_json)


@tenants.command("delete")
def delete(
    tenant: TenantArgument,
    app: AppOption = None,
    url: UrlOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete all rows of a tenant: soft-deleted ones, history, outbox and idempotency keys too.

    It lists what remains and why. The same command finishes a deletion that was interrupted. Exit codes: 0 nothing
    counted remains; 1 rows remain.
    """
    with open_target(app, url) as target:
        plan = delete_tenant(target.database, target.metadata, tenant, rls=target.rls, dry_run=True)
        if _is_to_be_deleted(target, tenant, plan, dry_run=dry_run, yes=yes):
            with progress() as report:
                result = delete_tenant(
                    target.database, target.metadata, tenant, rls=target.rls, on_progress=_reporting(report)
                )
        else:
            result = plan
    show(_deletion(result), *_counts(result.rows), *_remaining(result), as_json=as_json)
    if any(each.rows for each in result.remaining):
        raise typer.Exit(ExitCode.FINDINGS)


def _is_to_be_deleted(target: Target, tenant: str, plan: DeletionReport, *, dry_run: bool, yes: bool) -> bool:
    """Whether to delete, by the answer of the user. Where there is nothing to delete, nobody is asked."""
    rows = sum(plan.rows.values())
    if rows:
        would = "would" if dry_run else "will"
        intent = f"{counted(rows, 'row')} of {tenant} {would} be deleted from {target.address}."
        return proceed(intent, dry_run=dry_run, yes=yes)
    note(f"{tenant} has no rows: nothing to delete{similar(target, tenant)}")
    return yes and not dry_run  # an interrupted deletion may have left notes of the tenant's imports


def _reporting(report: Report) -> OnProgress:
    def on_progress(done: TransferProgress) -> None:
        report(done.action, done.rows, done.total)

    return on_progress


def _counts(rows: Mapping[str, int]) -> Iterator[object]:
    """The tables that have rows."""
    counts: Sequence[tuple[str, int]] = [(name, number) for name, number in rows.items() if number]
    if counts:
        yield table(("table", "rows"), counts)


def _remaining(result: DeletionReport) -> Iterator[object]:
    number = sum(result.rows.values())
    yield f"{counted(number, 'row')} {'would be deleted' if result.dry_run else 'deleted'}."
    if result.remaining:
        rows = [(each.table, each.rows, each.reason) for each in result.remaining]
        yield table(("what remains", "rows", "why"), rows)


def _document(manifest: Manifest) -> dict[str, object]:
    return {
        "export": manifest.head.export,
        "runs": manifest.head.runs,
        "snapshot_at": manifest.snapshot_at,
        "rows": {each.name: each.rows for each in manifest.tables},
        "size": manifest.size,
        "left_out": manifest.left_out,
    }


def _deletion(result: DeletionReport) -> dict[str, object]:
    return {
        "deleted": not result.dry_run,
        "rows": result.rows,
        "remaining": [
            {"table": each.table, "rows": each.rows, "reason": each.reason, "blocks": each.blocks}
            for each in result.remaining
        ],
    }
