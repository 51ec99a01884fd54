"""The guard's truth table: each combination of facts about a statement, and the verdict on it."""

from __future__ import annotations

from itertools import product

import pytest

from dotmac_database import TenantIsolationError, TenantNotGivenError, UnscopedStatementError
from dotmac_database.tenancy.guard.verdicts import KnownTenant, Ruling, StatementFacts, Verdict, judge

TABLES = [
    (None, None, False),
    *(("accounts", confinement, is_checked) for confinement in KnownTenant for is_checked in (False, True)),
]
FACTS = [
    StatementFacts(bound, has_policies, text, unsafe, unknown, table, confinement, is_checked)
    for bound, has_policies, text, unsafe, unknown, (table, confinement, is_checked) in product(
        (False, True), (False, True), (None, "Raw SQL"), (None, "a DO"), (None, "A hint"), TABLES
    )
    if (text is not None or unsafe is None)
    and (confinement is None or bound is not (confinement is KnownTenant.UNBOUND))
]


def expected(sent: StatementFacts) -> Verdict:
    """The rules in another form: first all that is wrong, then the first of it."""
    if sent.table is not None and not sent.bound:
        return Verdict.UNBOUND
    if sent.confinement is KnownTenant.OTHER_REPOSITORY:
        return Verdict.OTHER_REPOSITORY
    if sent.confinement is KnownTenant.OTHER_PARAMETER:
        return Verdict.OTHER_PARAMETER
    open_parts = [sent.text, sent.unknown, None if sent.is_checked else sent.table]
    if not any(open_parts):
        return Verdict.ALLOWED
    if not sent.bound:
        return Verdict.NO_TENANT
    if not sent.has_policies:
        return Verdict.UNCONFINED
    return Verdict.UNSIGNED_SETTING if sent.unsafe else Verdict.ALLOWED


def test_the_table_is_whole() -> None:
    assert len(FACTS) == 120
    assert {judge(sent).verdict for sent in FACTS} == set(Verdict)


@pytest.mark.parametrize("sent", FACTS, ids=lambda sent: "-".join(map(str, sent)))
def test_each_combination_of_facts(sent: StatementFacts) -> None:
    assert judge(sent).verdict is expected(sent)


ERRORS = {
    Verdict.UNBOUND: TenantNotGivenError,
    Verdict.NO_TENANT: TenantNotGivenError,
    Verdict.OTHER_REPOSITORY: TenantIsolationError,
    Verdict.OTHER_PARAMETER: TenantIsolationError,
    Verdict.UNCONFINED: UnscopedStatementError,
    Verdict.UNSIGNED_SETTING: UnscopedStatementError,
}


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_but_one_raises(verdict: Verdict) -> None:
    ruling = Ruling(verdict, "The table 'accounts'", "a DO")
    if verdict is Verdict.ALLOWED:
        ruling.enforce()
        return
    with pytest.raises(ERRORS[verdict]):
        ruling.enforce()


SUBJECTS = [
    (StatementFacts(False, False, table="accounts", confinement=KnownTenant.UNBOUND), ["The table 'accounts'"]),
    (StatementFacts(False, False, text="Raw SQL"), ["Raw SQL"]),
    (StatementFacts(True, False, unknown="A hint"), ["A hint", "unscoped("]),
    (StatementFacts(True, False, table="accounts", confinement=KnownTenant.OWN), ["The table 'accounts'"]),
    (StatementFacts(True, True, text="Raw SQL", unsafe="a DO"), ["Raw SQL", "a DO", "secret="]),
]


@pytest.mark.parametrize(("sent", "words"), SUBJECTS)
def test_an_error_names_the_part_that_it_is_about(sent: StatementFacts, words: list[str]) -> None:
    message = str(judge(sent).error())
    assert [word for word in words if word not in message] == []
