"""Checks of the isolation of tenants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import text

from ...history.tables import source_of
from ...tenancy import Finding
from ...tenancy.keys import loose_keys
from ...tenancy.rls.policies import protected_tables
from ..examination import Examination
from ..findings import Severity
from ..registry import BOTH, POSTGRESQL, Symptom, Unchecked, check
from .remedies import missing

_CREATES = "CREATE POLICY"
_ROW_SECURITY = "https://www.postgresql.org/docs/current/ddl-rowsecurity.html"


@check("row-level-security", Severity.ERROR, on=POSTGRESQL, source=_ROW_SECURITY)
def row_level_security(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A way past the policies of row-level security, as `RowLevelSecurity.verify` finds it without attempts."""
    rls = examination.row_level_security
    if rls is None:
        yield Unchecked(
            "the application names no RowLevelSecurity; pass an --app that has one, or in Python row_level_security=."
        )
        return
    by_object: dict[str, list[Finding]] = {}
    for finding in rls.verify(examination.connection, attempts=False):
        by_object.setdefault(finding.object, []).append(finding)
    for name, findings in by_object.items():
        # Policies and roles are corrected by a person: the statement may take rights from other programs, too.
        risks = "; ".join(dict.fromkeys(each.risk for each in findings))
        yield Symptom(name, risks, remedy=_remedy([each.remedy for each in findings]))


def _remedy(remedies: Sequence[str]) -> str:
    """The remedies of one object as one. Those that are a part of another one are left out."""
    chosen = [each for each in dict.fromkeys(remedies) if not any(each in other != each for other in remedies)]
    remedy = ";\n".join(chosen)
    return f"{remedy}\nOr for all tables: dotmac-db rls apply --app …" if _CREATES in remedy else remedy


@check("role-bypasses-policies", Severity.ERROR, on=POSTGRESQL, source=_ROW_SECURITY)
def role_bypasses_policies(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """The connection's role bypasses row-level security: superuser, BYPASSRLS, or owner without FORCE."""
    rows = examination.connection.execute(text(_BYPASS), {"schemas": examination.schemas}).all()
    if not rows:
        return
    first = rows[0]
    for attribute, has in (("SUPERUSER", first.superuser), ("BYPASSRLS", first.bypasses)):
        if has:
            yield Symptom(
                f"role {first.role}",
                f"The role is {attribute}, so that no policy holds for its statements: every tenant's rows are open.",
                [f"ALTER ROLE {first.role} NO{attribute}"],
            )
    for row in rows:
        if row.owned and not row.forced:
            yield Symptom(
                row.label,
                f"The role {row.role} owns the table, whose policies hold for its owner only with FORCE.",
                [f"ALTER TABLE {row.name} FORCE ROW LEVEL SECURITY"],
            )


_BYPASS = """
SELECT quote_ident(r.rolname) AS role, r.rolsuper AS superuser, r.rolbypassrls AS bypasses,
  format('%I.%I', n.nspname, c.relname) AS name, n.nspname || '.' || c.relname AS label,
  c.relforcerowsecurity AS forced, pg_has_role(r.oid, c.relowner, 'USAGE') AS owned
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.rolname = current_user
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND n.nspname = ANY(CAST(:schemas AS text[])) ORDER BY 4
"""


@check(
    "loose-key",
    Severity.WARNING,
    on=BOTH,
    source=_ROW_SECURITY,
)
def loose_key(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A foreign key or unique key of a tenants' table that does not carry the tenant (`loose_keys`)."""
    for key in (key for each in examination.metadata for key in loose_keys(each)):
        risk = "A row can reference another tenant's row, which then can't be deleted."
        if key.referred is None:
            risk = "A duplicate reveals that another tenant has the value, and takes the value from this tenant."
        yield Symptom(f"{key.table}.{', '.join(key.columns)}", f"{key} {risk}", remedy=key.remedy)


@check(
    "tenant-not-leading",
    Severity.WARNING,
    on=BOTH,
    source="https://www.postgresql.org/docs/current/indexes-multicolumn.html",
)
def tenant_not_leading(examination: Examination) -> Iterator[Symptom | Unchecked]:
    """A tenants' table without an index that begins with the tenant column. Small tables: notes."""
    protected = (pair for each in examination.metadata for pair in protected_tables(each).items())
    for table, column in protected:
        facts = examination.of(table)
        if column is None or facts is None or column.name not in facts.columns or source_of(table) is not None:
            continue  # a history is read by the key of a row
        if any(index.begins_with(frozenset((column.name,))) for index in facts.indexes):
            continue
        rest = tuple(each.name for each in table.primary_key.columns if each is not column)
        columns = (column.name, *(each for each in rest if each in facts.columns))
        sql, remedy = missing(examination, facts, columns)
        yield Symptom(
            f"{facts.label}.{column.name}",
            f"Each statement of a tenant reads the whole table ({examination.size(facts)}), since no index begins with "
            "the tenant.",
            [sql],
            remedy,
            severity=examination.severity(facts),
        )
