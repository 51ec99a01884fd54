"""``dotmac-db tenants``: which tenants there are, and what they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..usage import TableKind, TenantUsage, Usage, find_tenants, measure
from .output import ExitCode, JsonOption, counted, note, progress, show, size, table
from .target import AppOption, Target, UrlOption, open_target
from .tenant_names import without_rows

if TYPE_CHECKING:
    from ..tenancy.rls.signature import Signer

tenants = typer.Typer(no_args_is_help=True, help="The tenants of a database, and their rows.")

_NOBODY = "(without a tenant)"


@tenants.command("list")
def list_tenants(app: AppOption = None, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the tenants that have rows in any table, by name.

    It needs the tables' owner, or a role with BYPASSRLS, where row-level security would hide rows.
    """
    with open_target(app, url) as target, target.database.engine.connect() as connection, progress() as report:
        result = find_tenants(connection, target.metadata, signer=_signer(target), report=report)
    document = {
        "tenants": [{"tenant": tenant, "tables": tables} for tenant, tables in result.tenants.items()],
        "absent_tables": result.absent,
    }
    rows = [(_shown(tenant), len(tables)) for tenant, tables in result.tenants.items()]
    number = sum(tenant is not None for tenant in result.tenants)
    show(document, *_tables(("tenant", "tables with rows"), rows), f"{counted(number, 'tenant')}.", as_json=as_json)
    _note_absent(result.absent)


@tenants.command("stats")
def stats(
    tenant: Annotated[
        str | None, typer.Argument(metavar="[TENANT]", help="Only this tenant, table by table.", show_default=False)
    ] = None,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count the rows of each tenant, and estimate the space that they take.

    Without TENANT each table is read completely. Soft-deleted rows are counted. It needs the tables' owner, or a role
    with BYPASSRLS, where row-level security would hide rows. Exit codes: 0; 1 TENANT has no rows.
    """
    absence = None
    with open_target(app, url) as target, progress() as report:
        with target.database.engine.connect() as connection:
            usage = measure(connection, target.metadata, tenant=tenant, signer=_signer(target), report=report)
        if tenant is not None and not usage.tenants[0].tables:
            absence = without_rows(target, tenant)
    parts = _summary(usage) if tenant is None else _by_table(usage.tenants[0])
    show(_document(usage), *parts, as_json=as_json)
    _note_absent(usage.absent)
    if usage.unattributed:
        note(f"These tables have rows of tenants, but nothing tells whose: {', '.join(usage.unattributed)}.")
    if absence is not None:
        note(absence, style="bold red")
        raise typer.Exit(ExitCode.FINDINGS)


def _signer(target: Target) -> Signer | None:
    return None if target.rls is None else target.rls.signer


def _shown(tenant: str | None) -> str:
    return _NOBODY if tenant is None else tenant


def _note_absent(absent: Sequence[str]) -> None:
    if absent:
        note(f"The database does not have these tables of the models: {', '.join(absent)}.")


def _tables(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[object]:
    """The table, or nothing if it has no rows."""
    if rows:
        yield table(columns, rows)


def _summary(usage: Usage) -> Iterator[object]:
    columns = ("tenant", "rows", "history", "outbox", "size", "oldest", "newest")
    rows = [
        (
            _shown(each.tenant),
            each.rows(),
            each.rows(TableKind.HISTORY),
            each.rows(TableKind.OUTBOX),
            size(each.bytes),
            each.oldest,
            each.newest,
        )
        for each in usage.tenants
    ]
    yield from _tables(columns, rows)
    yield f"{counted(sum(each.tenant is not None for each in usage.tenants), 'tenant')}."


def _by_table(usage: TenantUsage) -> Iterator[object]:
    columns = ("table", "kind", "rows", "size", "oldest", "newest")
    rows = [(each.table, each.kind, each.rows, size(each.bytes), each.oldest, each.newest) for each in usage.tables]
    yield from _tables(columns, rows)
    total = sum(each.rows for each in usage.tables)
    if total:
        yield f"{usage.tenant} has {counted(total, 'row')}."


def _document(usage: Usage) -> dict[str, object]:
    return {
        "tenants": [
            {
                "tenant": each.tenant,
                "rows": each.rows(),
                "history_rows": each.rows(TableKind.HISTORY),
                "outbox_rows": each.rows(TableKind.OUTBOX),
                "idempotency_rows": each.rows(TableKind.IDEMPOTENCY),
                "estimated_bytes": each.bytes,
                "oldest": each.oldest,
                "newest": each.newest,
                "tables": each.tables,
            }
            for each in usage.tenants
        ],
        "absent_tables": usage.absent,
        "unattributed_tables": usage.unattributed,
    }
