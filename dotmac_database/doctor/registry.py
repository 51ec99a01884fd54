"""The registry of checks: each is a function with a stable code, a severity, and the source of its rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..errors import MisuseError
from .examination import Examination
from .findings import DoctorFinding, Severity, Skipped


class Symptom(NamedTuple):
    """What a check has seen: the finding without the code of its check.

    ``remedy`` in words; empty: it is ``sql``. ``severity``; None: that of the check.
    """

    object: str
    risk: str
    sql: Sequence[str] = ()
    remedy: str = ""
    severity: Severity | None = None


class Unchecked(NamedTuple):
    """The reason why a check, or a part of it, could not run."""

    reason: str


Outcome: TypeAlias = Iterable[Symptom | Unchecked]

POSTGRESQL = frozenset(("postgresql",))
SQLITE = frozenset(("sqlite",))
BOTH = POSTGRESQL | SQLITE


@dataclass(frozen=True, slots=True)
class Check:
    """A check of the registry. ``on`` are the names of the dialects that have it."""

    code: str
    severity: Severity
    on: frozenset[str]
    source: str
    examine: Callable[[Examination], Outcome]

    @property
    def summary(self) -> str:
        """What the check looks for: the first line of the function's docstring."""
        return (self.examine.__doc__ or "").strip().splitlines()[0]

    def finding(self, symptom: Symptom) -> DoctorFinding:
        """The finding of a symptom."""
        sql = tuple(symptom.sql)
        return DoctorFinding(
            symptom.object,
            symptom.risk,
            symptom.remedy or ";\n".join(sql),
            code=self.code,
            severity=symptom.severity or self.severity,
            sql=sql,
        )

    def skip(self, reason: str) -> Skipped:
        """That the check could not run."""
        return Skipped(self.code, reason)


_CHECKS: dict[str, Check] = {}


def check(
    code: str, severity: Severity, *, on: frozenset[str], source: str
) -> Callable[[Callable[[Examination], Outcome]], Callable[[Examination], Outcome]]:
    """Register the decorated function as the check ``code``. ``source`` is the URL of the page that gives the rule."""

    def register(function: Callable[[Examination], Outcome]) -> Callable[[Examination], Outcome]:
        assert code not in _CHECKS, code
        _CHECKS[code] = Check(code, severity, on, source, function)
        return function

    return register


def registered() -> tuple[Check, ...]:
    """All checks, in the order in which they run."""
    return tuple(_CHECKS.values())


def chosen(codes: Sequence[str], only: Collection[str], skip: Collection[str]) -> list[str]:
    """The codes of ``only`` (empty: all) that are not in ``skip``. Raises `MisuseError` for an unknown code."""
    for field, names in (("only", only), ("skip", skip)):
        unknown = sorted(set(names).difference(codes))
        if unknown:
            raise MisuseError(f"{field}: there is no check {unknown[0]!r}. There are: {', '.join(codes)}.", field=field)
    return [each for each in codes if (not only or each in only) and each not in skip]
