r"""The doctor: examines a live database and the models of an application, and says how to mend what is wrong.

    report = examine(database, Base.metadata, row_level_security=rls, processes=4)
    for finding in report:
        print(finding.code, finding.object, finding.risk, finding.remedy, sep="\n")

`examine` runs the checks of `CHECKS`, and `examine_migrations` judges the migrations that a database does not have yet.
"""

from .checks import CHECKS
from .examining import examine
from .findings import DoctorFinding, Report, Severity, Skipped
from .limits import Limits
from .migrations import RULES, Rule, examine_migrations, examine_statements
from .registry import Check

__all__ = [
    "CHECKS",
    "RULES",
    "Check",
    "DoctorFinding",
    "Limits",
    "Report",
    "Rule",
    "Severity",
    "Skipped",
    "examine",
    "examine_migrations",
    "examine_statements",
]
