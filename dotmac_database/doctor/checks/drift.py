"""Checks of what the models say, and the database does not have: the schema, and the triggers of histories."""

from __future__ import annotations

from collections.abc import Iterator

from ...dialects.history_triggers import create_statements, outdated
from ...dialects.own_tables import OWN_TABLES
from ...history.tables import history_of, recorded
from ...outbox.table import NAME as OUTBOX
from ..comparing import Difference, differences
from ..examination import Examination
from ..findings import Severity
from ..registry import BOTH, Symptom, Unchecked, check

_OWN = OWN_TABLES | {OUTBOX}
_NEEDS = "Alembic is not installed: pip install 'dotmac-database-toolkit[migrations]'."


@check("schema-drift", Severity.WARNING, on=BOTH, source="https://alembic.sqlalchemy.org/en/latest/autogenerate.html")
def schema_drift(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The models and the schema differ, by Alembic's comparison; what only the schema has is a note."""
    try:
        all_differences = list(differences(examination))
    except ModuleNotFoundError:
        yield Unchecked(_NEEDS)
        return
    for each in all_differences:
        if not (each.is_extra and each.table in _OWN):
            yield _symptom(each)


def _symptom(each: Difference) -> Symptom:
    sql = ";\n".join(each.sql)
    if each.is_extra:
        remedy = f"Declare it in the models, or, if no program needs it: {sql}" if sql else "Declare it in the models."
        return Symptom(each.object, each.risk, remedy=remedy, severity=Severity.NOTE)
    remedy = "" if sql else "Write a migration; this database can't do it by ALTER TABLE."
    return Symptom(each.object, each.risk, each.sql, remedy, Severity.ERROR if each.is_missing else None)


@check(
    "history-triggers",
    Severity.ERROR,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/sql-createtrigger.html",
)
def history_triggers(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The triggers of a history are missing, or differ from those that its class needs."""
    tables = {}
    for table in examination.models:
        history = history_of(table)
        # A missing table is a difference of the schema.
        if history is not None and examination.of(table) is not None and examination.of(history) is not None:
            tables[recorded(table)] = examination.of(table)
    for each in outdated(examination.connection, list(tables)):
        facts = tables[each]
        assert facts is not None
        yield Symptom(
            facts.label,
            "Its triggers are not those that the class needs: changes are missing in the history, or wrong.",
            create_statements(examination.connection, each),
        )
