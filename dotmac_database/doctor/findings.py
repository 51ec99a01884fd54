"""The results of an examination: findings, checks that were skipped, and the report of both."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from ..tenancy.rls.verification import Finding


class Severity(StrEnum):
    """How bad a finding is. ``ERROR`` and ``WARNING`` make `Report.failed` True; a ``NOTE`` only informs."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFinding(Finding):
    """Something in a database, its models or a migration that does harm now or later.

    It is a `Finding` with a stable ``code``, a ``severity``, and ``sql``: the statements that remove the cause, in
    their order. Run each by itself outside a transaction, since some can't run inside one. An empty ``sql`` means that
    SQL is not the remedy, or that nobody should run it without a thought; ``remedy`` then says in words what to do.
    """

    code: str
    severity: Severity
    sql: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A check, or a part of one, that could not run, and the reason in a sentence."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, the most severe first and then in the order of the checks, and what was skipped.

    ``ran`` are the codes of the checks that ran. A code can be both in ``ran`` and in ``skipped``: then a part of the
    objects could not be examined. Iterating a report gives the findings.
    """

    findings: tuple[DoctorFinding, ...]
    skipped: tuple[Skipped, ...] = ()
    ran: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[DoctorFinding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def failed(self) -> bool:
        """Whether there is a finding that is more than a note."""
        return any(each.severity is not Severity.NOTE for each in self.findings)

    def as_dict(self) -> Mapping[str, object]:
        """The report as values that JSON has: ``failed``, ``findings``, ``skipped`` and ``ran``."""
        return {
            "failed": self.failed,
            "findings": [{**asdict(each), "severity": each.severity.value} for each in self.findings],
            "skipped": [asdict(each) for each in self.skipped],
            "ran": list(self.ran),
        }

    def without(self, objects: Collection[str]) -> Report:
        """The report without the findings on these objects (`Finding.object`), which somebody has reviewed."""
        return replace(self, findings=tuple(each for each in self.findings if each.object not in objects))

    def merged(self, other: Report) -> Report:
        """One report of two."""
        return report_of([*self.findings, *other.findings], [*self.skipped, *other.skipped], [*self.ran, *other.ran])


def report_of(findings: list[DoctorFinding], skipped: list[Skipped], ran: list[str]) -> Report:
    """A report whose findings are sorted by severity."""
    order = list(Severity)
    return Report(tuple(sorted(findings, key=lambda each: order.index(each.severity))), tuple(skipped), tuple(ran))
