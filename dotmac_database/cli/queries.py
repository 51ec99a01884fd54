"""``dotmac-db explain`` and ``dotmac-db advise``: the plan of a read, and the indexes that it lacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import Signature, signature
from typing import Annotated, Any, Concatenate, ParamSpec, TypeAlias

import typer
from sqlalchemy.orm import Session, sessionmaker

from ..advisor import IndexAdvice, QueryPlan
from ..errors import MisuseError
from ..models import Traits, traits_of
from ..repositories import create_repository
from ..tenancy import ALL_TENANTS, guard_tenants, unscoped
from .output import ExitCode, JsonOption, block, counted, show
from .read_options import ReadWords
from .target import AppOption, Target, UrlOption, open_target

ModelArgument: TypeAlias = Annotated[str, typer.Argument(metavar="MODEL", help="The class that is read.")]
TenantOption: TypeAlias = Annotated[
    str | None, typer.Option("--tenant", help="The tenant whose rows are read.", show_default=False)
]
AllTenantsOption: TypeAlias = Annotated[bool, typer.Option("--all-tenants", help="Read the rows of all tenants.")]
FilterOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="FIELD[__OPERATOR]=VALUE",
        help="As in a query string: status=active, score__gte=10, status__in=a,b. Repeatable.",
        show_default=False,
    ),
]
SortOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--sort", metavar="[-]FIELD", help="As in a query string: -created_at,name.", show_default=False),
]
LimitOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", help="The rows of a page; without it all rows.", show_default=False)
]
PageOption: TypeAlias = Annotated[
    int | None, typer.Option("--page", help="The number of the page, from 1.", show_default=False)
]
IncludeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATH", help="A relationship to load. Repeatable.", show_default=False),
]
QueryOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--query",
        metavar="QUERY",
        help="All of it as a request has it: 'status=active&sort=-created_at&limit=20'.",
        show_default=False,
    ),
]
DeletedOption: TypeAlias = Annotated[bool, typer.Option("--deleted", help="Read soft-deleted rows, too.")]


@dataclass(frozen=True)
class Read:
    """Which rows of which class a command reads, and in which database: the options that such commands have."""

    model: ModelArgument
    app: AppOption = None
    url: UrlOption = None
    tenant: TenantOption = None
    all_tenants: AllTenantsOption = False
    filters: FilterOption = None
    sort: SortOption = None
    limit: LimitOption = None
    page: PageOption = None
    include: IncludeOption = None
    query: QueryOption = None
    deleted: DeletedOption = False

    @property
    def words(self) -> ReadWords:
        """What the options say, and the query string before them."""
        numbers = {name: value for name, value in (("limit", self.limit), ("page", self.page)) if value is not None}
        words = ReadWords(tuple(self.filters or ()), tuple(self.sort or ()), tuple(self.include or ()), numbers)
        return words if self.query is None else ReadWords.of_query(self.query) + words

    @property
    def scope(self) -> object:
        """The tenant whose rows are read, or `ALL_TENANTS`; None: none is named."""
        if self.tenant is not None and self.all_tenants:
            raise MisuseError("Either --tenant or --all-tenants, not both.", field="--tenant")
        return ALL_TENANTS if self.all_tenants else self.tenant

    def plan(self, *, analyze: bool = False) -> QueryPlan:
        """The plan of the read. ``analyze``: it is run and measured."""
        words, scope = self.words, self.scope
        with open_target(self.app, self.url) as target:
            return _plan(target, self.model, scope, words, deleted=self.deleted, analyze=analyze)


P = ParamSpec("P")


def _with_options_of_a_read(command: Callable[Concatenate[Read, P], None]) -> Callable[..., None]:
    """The command with the options of `Read` before its own, since typer takes no dataclass."""
    of_read = signature(Read, eval_str=True).parameters
    own = list(signature(command, eval_str=True).parameters.values())[1:]

    @wraps(command)
    def run(*_: P.args, **options: P.kwargs) -> None:
        read: dict[str, Any] = {name: options.pop(name) for name in of_read}
        command(Read(**read), *_, **options)

    vars(run)["__signature__"] = Signature([*of_read.values(), *own])
    return run


@_with_options_of_a_read
def explain(
    read: Read,
    analyze: Annotated[bool, typer.Option("--analyze", help="Run it, and measure it (PostgreSQL).")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the plan of a read of MODEL, and the indexes that are missing for it. The plan shows the filters' values."""
    plan = read.plan(analyze=analyze)
    document = {
        "statement": plan.statement,
        "plan": plan.plan,
        "scans": plan.scans,
        "indexes": plan.indexes,
        "sorts": plan.sorts,
        "advice": [_as_dict(each) for each in plan.advice],
    }
    show(document, plan.statement, f"\n{plan.text}\n", *_texts(plan.advice), as_json=as_json)


@_with_options_of_a_read
def advise(read: Read, as_json: JsonOption = False) -> None:
    """List the indexes that are missing for a read of MODEL.

    Exit codes: 0 none is missing, 1 some are.
    """
    advice = read.plan().advice
    show({"advice": [_as_dict(each) for each in advice]}, *_texts(advice), as_json=as_json)
    if advice:
        raise typer.Exit(ExitCode.FINDINGS)


def _plan(target: Target, name: str, tenant: object, words: ReadWords, *, deleted: bool, analyze: bool) -> QueryPlan:
    model = target.model(name)
    traits: Traits[Any] = traits_of(model)
    if traits.tenant is None:
        tenant = None
    elif tenant is None:
        raise MisuseError(
            f"The rows of {traits.name} belong to tenants: use --tenant or --all-tenants.", field="--tenant"
        )
    options = words.options(traits, include_deleted=deleted)
    with _session(target, tenant) as session:
        return create_repository(session, model, tenant).explain(options, analyze=analyze)


@contextmanager
def _session(target: Target, tenant: object) -> Iterator[Session]:
    """A session that works for the tenant as the app's sessions do, with row-level security where the app has it."""
    with guard_tenants(sessionmaker(target.database.engine), rls=target.rls)() as session:
        if tenant is ALL_TENANTS:
            with unscoped(session, reason="dotmac-db --all-tenants", level=logging.INFO):
                yield session
        else:
            yield session  # the repository binds it


def _as_dict(advice: IndexAdvice) -> dict[str, object]:
    return {
        "table": advice.table,
        "columns": advice.columns,
        "reason": advice.reason,
        "remedy": _remedy(advice),
        "ddl": advice.ddl,
        "concurrently_ddl": advice.concurrently_ddl,
        "extension": advice.extension,
    }


def _remedy(advice: IndexAdvice) -> str:
    """The SQL that does not block writers, with the extension that it needs."""
    extension = f"CREATE EXTENSION IF NOT EXISTS {advice.extension};\n" if advice.extension else ""
    return f"{extension}{advice.concurrently_ddl or advice.ddl};"


def _texts(advice: Sequence[IndexAdvice]) -> Iterator[str]:
    for each in advice:
        yield block(f"{each.table} ({', '.join(each.columns)})", {"reason": each.reason, "remedy": _remedy(each)})
    yield f"{counted(len(advice), 'index', 'indexes')} missing." if advice else "No index is missing."
