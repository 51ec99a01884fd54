"""``dotmac-db rls``: row-level security of the app's tenants, and of its policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import MetaData

from ..dialects.features import has_policies
from ..engines import Database
from ..errors import MisuseError
from ..policies import Policy
from ..row_policies import RowLevelSecurity
from ..tenancy import Finding
from .output import DryRunOption, ExitCode, JsonOption, YesOption, block, counted, note, proceed, show
from .target import AppOption, Target, UrlOption, open_target

rls = typer.Typer(no_args_is_help=True, help="Policies of PostgreSQL that confine each transaction to its tenant.")


@rls.command("sql")
def sql(
    app: AppOption = None,
    drop: Annotated[bool, typer.Option("--drop", help="The SQL that drops the policies.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the SQL that creates the policies, as one transaction that psql can run. Connects to nothing."""
    with open_target(app) as target:
        if target.own_database is not None:
            _require_policies(target.own_database)
        securities = _securities(target)
        statements = _statements(securities, drop=drop)
    if not drop:
        _note_secret(securities)
    show({"statements": statements}, _script(["BEGIN", *statements, "COMMIT"]), as_json=as_json)


@rls.command("apply")
def apply(
    app: AppOption = None,
    url: UrlOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Create the policies in the database, in one transaction. It can be repeated. Run it as the tables' owner."""
    with open_target(app, url) as target:
        _require_policies(target.database)
        securities = _securities(target)
        statements = _statements(securities)
        intent = f"These {counted(len(statements), 'statement')} will run on {target.address}:"
        applied = proceed(f"{intent}\n{_script(statements)}", dry_run=dry_run, yes=yes)
        if applied:
            with target.database.engine.begin() as connection:
                for each in securities:
                    each.apply(connection)
    done = f"{counted(len(statements), 'statement')} applied." if applied else "Nothing is applied."
    show({"applied": applied, "statements": statements}, done, as_json=as_json)


@rls.command("verify")
def verify(
    app: AppOption = None,
    url: UrlOption = None,
    attempts: Annotated[bool, typer.Option(help="Try to read and write other tenants' rows, and undo it.")] = True,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="OBJECT", help="Leave out the findings of this object. Repeatable.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the ways in which the database's role could get past the policies. Run it as the app's own role.

    Exit codes: 0 there are none, 1 there are findings.
    """
    with open_target(app, url) as target:
        _require_policies(target.database)
        securities = _securities(target)
        with target.database.engine.connect() as connection:
            findings = [
                finding
                for each in securities
                for finding in each.verify(connection, attempts=attempts, accepted=accept or ())
            ]
    document = [_as_dict(each) for each in findings]
    blocks = [block(each.object, {"risk": each.risk, "remedy": each.remedy}) for each in findings]
    show({"findings": document}, *blocks, f"{counted(len(findings), 'finding')}.", as_json=as_json)
    if findings:
        raise typer.Exit(ExitCode.FINDINGS)


def _as_dict(finding: Finding) -> dict[str, str]:
    return {"object": finding.object, "risk": finding.risk, "remedy": finding.remedy}


def _statements(securities: Sequence[RowLevelSecurity], *, drop: bool = False) -> list[str]:
    """The statements of all of them. Raises `MisuseError` if there is no table of tenants."""
    statements = [
        statement for each in securities for statement in (each.drop_statements() if drop else each.create_statements())
    ]
    if not any(each.tables() for each in securities):
        raise MisuseError("No table has a tenant, so there is nothing to protect.", field="--app")
    return list(dict.fromkeys(statements))


def _script(statements: Sequence[str]) -> str:
    return "\n".join(f"{statement};" for statement in statements)


def _securities(target: Target) -> list[RowLevelSecurity]:
    """The app's own row-level security, or else one for each metadata, with the plugin's policies."""
    if target.rls is not None:
        return [target.rls]
    if target.plugin is not None:
        note(
            "The plugin has no rls=, so its sessions name no tenant to PostgreSQL, and with these policies they would "
            "read no rows: give it DatabasePlugin(url, rls=RowLevelSecurity(metadata, policies=…)).",
            style="yellow",
        )
    return [RowLevelSecurity(each, policies=_policies_of(target, each)) for each in target.metadata]


def _policies_of(target: Target, metadata: MetaData) -> Iterator[Policy[Any]]:
    return (each for each in target.policies if each.model.metadata is metadata)


def _require_policies(database: Database) -> None:
    name = database.url.get_backend_name()
    if not has_policies(name):
        raise MisuseError(f"Row-level security requires PostgreSQL; this is {name}.", field="--url")


def _note_secret(securities: Sequence[RowLevelSecurity]) -> None:
    if any(each.signer is not None for each in securities):
        note(
            "The SQL does not contain the keys of the secret: `dotmac-db rls apply` stores them, and so does "
            "RowLevelSecurity.install_secret."
        )
