"""The verdict on a statement that a guarded session is about to send. No other module decides it.

`judge` is a pure function of a `Sent`, the facts about the statement that `connection` has collected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ...errors import DatabaseError, TenantIsolationError, TenantNotGivenError, UnscopedStatementError


class Verdict(Enum):
    """What the guard decides about a statement."""

    ALLOWED = "The statement is sent."
    UNBOUND = "The statement uses a tenants' table, but the session is bound to no tenant."
    NO_TENANT = "The statement could use tenants' rows, but the session is bound to no tenant."
    OTHER_REPOSITORY = "The statement is of a repository of another tenant."
    OTHER_PARAMETER = "A parameter that confines the statement names another tenant."
    UNCONFINED = "Nothing confines the statement to the tenant."
    UNSIGNED_SETTING = "The statement could change the setting by which the policies know the tenant."


class Confinement(Enum):
    """What is known of the tenant of a statement that the guard's compiler has confined."""

    UNBOUND = "The session is bound to no tenant."
    OWN = "All parameters name the session's tenant."
    OTHER_REPOSITORY = "The repository is of another tenant."
    OTHER_PARAMETER = "A parameter names another tenant."


class Sent(NamedTuple):
    """The facts about a statement. ``text`` and ``unknown`` are the subjects of error messages; None: there is no such
    part.

    ``bound`` is whether the session is bound to a tenant, ``backed`` whether row-level security confines whatever is
    sent. ``text`` is raw SQL, or a part of the statement that can't be analysed, and ``unsafe`` the construct of it
    that could change the unsigned setting. ``unknown`` is a table or an element that is not known to be free of
    tenants' rows. ``table`` is the name of a tenants' table that the statement uses, and ``confinement`` what is known
    of its tenant. ``passed``: the ORM, a repository or a flush sends the statement, and has checked what it writes.
    """

    bound: bool
    backed: bool
    text: str | None = None
    unsafe: str | None = None
    unknown: str | None = None
    table: str | None = None
    confinement: Confinement | None = None
    passed: bool = False


@dataclass(frozen=True, slots=True)
class Ruling:
    """A verdict, and the part of the statement that it is about."""

    verdict: Verdict
    subject: str = ""
    unsafe: str = ""

    def enforce(self) -> None:
        """Raise the error of the verdict; nothing if the statement is allowed."""
        error = self.error()
        if error is not None:
            raise error

    def error(self) -> DatabaseError | None:
        """The error of the verdict, or None if the statement is allowed."""
        match self.verdict:
            case Verdict.ALLOWED:
                return None
            case Verdict.UNBOUND:
                return TenantNotGivenError(f"{self.subject} belongs to tenants, and the session is bound to no tenant.")
            case Verdict.NO_TENANT:
                return TenantNotGivenError(
                    f"{self.subject} may contain tenants' rows, and the session is bound to no tenant."
                )
            case Verdict.OTHER_REPOSITORY:
                return TenantIsolationError("The session serves another tenant than the repository.")
            case Verdict.OTHER_PARAMETER:
                return TenantIsolationError("The statement was bound to another tenant than the session serves.")
            case Verdict.UNCONFINED:
                return UnscopedStatementError(
                    f"{self.subject} can't be confined to a tenant; use the mapped class, or "
                    "unscoped(session, reason=…)."
                )
            case Verdict.UNSIGNED_SETTING:
                return UnscopedStatementError(
                    f"{self.subject} may change the setting that names the tenant, because it contains {self.unsafe}. "
                    "With RowLevelSecurity(…, secret=…) the setting is signed, and all raw SQL is allowed."
                )


ALLOWED = Ruling(Verdict.ALLOWED)


def judge(sent: Sent) -> Ruling:
    """The verdict on a statement: that of the first line that applies.

    ================================================  ===========  ================  ================
    the statement                                     no tenant    bound, no policy  bound, policies
    ================================================  ===========  ================  ================
    uses a tenants' table, confined to another tenant UNBOUND      OTHER_…           OTHER_…
    uses a tenants' table, and nobody checked it      UNBOUND      UNCONFINED        —
    contains text that could change the setting       NO_TENANT    UNCONFINED        UNSIGNED_SETTING
    contains other text, or an unknown table          NO_TENANT    UNCONFINED        —
    uses a tenants' table, checked and confined       UNBOUND      ALLOWED           ALLOWED
    uses no tenants' table, and is analysed           ALLOWED      ALLOWED           ALLOWED
    ================================================  ===========  ================  ================

    "—" means that this line does not apply, because the policies confine the statement.
    """
    match sent.confinement:
        case Confinement.UNBOUND:
            return Ruling(Verdict.UNBOUND, f"The table {sent.table!r}")
        case Confinement.OTHER_REPOSITORY:
            return Ruling(Verdict.OTHER_REPOSITORY)
        case Confinement.OTHER_PARAMETER:
            return Ruling(Verdict.OTHER_PARAMETER)
    unchecked = None if sent.passed or sent.table is None else f"The table {sent.table!r}"
    for subject in (sent.text, sent.unknown, unchecked):
        if subject is None:
            continue
        if not sent.bound:
            return Ruling(Verdict.NO_TENANT, subject)
        if not sent.backed:
            return Ruling(Verdict.UNCONFINED, subject)
        if subject is sent.text and sent.unsafe is not None:
            return Ruling(Verdict.UNSIGNED_SETTING, subject, sent.unsafe)
    return ALLOWED
