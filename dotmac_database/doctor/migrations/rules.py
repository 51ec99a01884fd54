"""The rules for migrations: codes, severities and sources. `judging` applies them."""

from __future__ import annotations

from dataclasses import dataclass

from ..findings import Severity

_ALTER = "https://www.postgresql.org/docs/current/sql-altertable.html"
_INDEX = "https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"
_SQUAWK = "https://squawkhq.com/docs"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. ``severity`` is that of a finding on a large table.

    ``by_size``: on a small table the finding is a note, since the lock is short there.
    """

    code: str
    severity: Severity
    summary: str
    source: str
    by_size: bool = True


INDEX = Rule(
    "migration-index-blocks-writes",
    Severity.ERROR,
    "CREATE INDEX, DROP INDEX or REINDEX without CONCURRENTLY on an existing table.",
    _INDEX,
)
IN_TRANSACTION = Rule(
    "migration-concurrently-in-transaction",
    Severity.ERROR,
    "CONCURRENTLY inside a transaction, which PostgreSQL refuses.",
    _INDEX,
    by_size=False,
)
REWRITE = Rule(
    "migration-rewrites-table",
    Severity.ERROR,
    "ALTER COLUMN TYPE that rewrites, ADD COLUMN with a volatile default, VACUUM FULL, CLUSTER, SET TABLESPACE.",
    f"{_ALTER}#SQL-ALTERTABLE-NOTES",
)
NOT_NULL_COLUMN = Rule(
    "migration-not-null-without-default",
    Severity.ERROR,
    "ADD COLUMN … NOT NULL without a default, which fails as soon as the table has a row.",
    f"{_SQUAWK}/adding-required-field",
    by_size=False,
)
SET_NOT_NULL = Rule(
    "migration-set-not-null-scans",
    Severity.ERROR,
    "SET NOT NULL without a validated CHECK (… IS NOT NULL), which reads the whole table under a lock.",
    f"{_ALTER}#SQL-ALTERTABLE-DESC-SET-DROP-NOT-NULL",
)
CONSTRAINT = Rule(
    "migration-constraint-scans",
    Severity.ERROR,
    "ADD FOREIGN KEY or CHECK without NOT VALID, or VALIDATE in the same transaction.",
    f"{_ALTER}#SQL-ALTERTABLE-DESC-ADD-TABLE-CONSTRAINT",
)
UNIQUE = Rule(
    "migration-constraint-builds-index",
    Severity.ERROR,
    "ADD UNIQUE, PRIMARY KEY or EXCLUDE without USING INDEX, which builds an index under a lock.",
    f"{_ALTER}#SQL-ALTERTABLE-DESC-ADD-TABLE-CONSTRAINT-USING-INDEX",
)
DROP = Rule(
    "migration-drops",
    Severity.WARNING,
    "DROP COLUMN or DROP TABLE, which breaks the processes that still run the old code.",
    f"{_SQUAWK}/ban-drop-column",
    by_size=False,
)
RENAME = Rule(
    "migration-renames",
    Severity.WARNING,
    "RENAME of a column or table, which breaks the processes that still run the old code.",
    f"{_SQUAWK}/renaming-column",
    by_size=False,
)
LOCK_TIMEOUT = Rule(
    "migration-no-lock-timeout",
    Severity.WARNING,
    "A lock on an existing table without lock_timeout.",
    f"{_SQUAWK}/safe_migrations",
)

OLD_CODE = "Release code that does not use it first (Alembic: a migration of the next release)."

RULES = (
    INDEX,
    IN_TRANSACTION,
    REWRITE,
    NOT_NULL_COLUMN,
    SET_NOT_NULL,
    CONSTRAINT,
    UNIQUE,
    DROP,
    RENAME,
    LOCK_TIMEOUT,
)
"""All rules, in the order of the documentation."""
