"""The verdict on a statement that a guarded session is about to send. No other module decides it.

`judge` is a pure function of a `StatementFacts`, the facts about the statement that `connection` has collected.
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
    OTHER_REPOSITORY = "The statement was made by a repository of another tenant."
    OTHER_PARAMETER = "A parameter that confines the statement names another tenant."
    UNCONFINED = "Nothing confines the statement to the tenant."
    UNSIGNED_SETTING = "The statement could change the setting by which the policies know the tenant."


class KnownTenant(Enum):
    """What is known of the tenant of a statement that the guard's compiler has confined."""

    UNBOUND = "The session is bound to no tenant."
    OWN = "All parameters name the session's tenant."
    OTHER_REPOSITORY = "The repository is of another tenant."
    OTHER_PARAMETER = "A parameter names another tenant."


class StatementFacts(NamedTuple):
    """The facts about a statement that a guarded session is about to send.

    ``bound``: the session is bound to a tenant. ``has_policies``: row-level security confines everything that is sent.
    ``text`` describes raw SQL, or a part of the statement that can't be analysed; ``unsafe`` describes the part of that
    SQL that could change the setting of the tenant, if the setting is not signed. ``unknown`` describes a table or an
    element that could contain tenants' rows. ``table`` is the name of a tenants' table that the statement uses, and
    ``confinement`` is what is known of the statement's tenant. None: there is no such part. The descriptions are
    subjects of error messages. ``is_checked``: the statement was checked before, as one of the ORM, a repository or a
    flush.
    """

    bound: bool
    has_policies: bool
    text: str | None = None
    unsafe: str | None = None
    unknown: str | None = None
    table: str | None = None
    confinement: KnownTenant | None = None
    is_checked: bool = False


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
                return TenantIsolationError("A parameter of the statement names another tenant than the session's.")
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


def judge(sent: StatementFacts) -> Ruling:
    """The verdict on a statement: it is in the first line of this table that applies.

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
        case KnownTenant.UNBOUND:
            return Ruling(Verdict.UNBOUND, f"The table {sent.table!r}")
        case KnownTenant.OTHER_REPOSITORY:
            return Ruling(Verdict.OTHER_REPOSITORY)
        case KnownTenant.OTHER_PARAMETER:
            return Ruling(Verdict.OTHER_PARAMETER)
    unchecked = None if sent.is_checked or sent.table is None else f"The table {sent.table!r}"
    for subject in (sent.text, sent.unknown, unchecked):
        if subject is None:
            continue
        if not sent.bound:
            return Ruling(Verdict.NO_TENANT, subject)
        if not sent.has_policies:
            return Ruling(Verdict.UNCONFINED, subject)
        if subject is sent.text and sent.unsafe is not None:
            return Ruling(Verdict.UNSIGNED_SETTING, subject, sent.unsafe)
    return ALLOWED
