"""What a sound database has: the toolkit's statements for each table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Table

Enable = Callable[[Table, str | None], list[str]]
"""The statements that put one table under its policy; the column that names the tenant, None: parents do."""

NameTenant = Callable[[Connection, str | None], None]
"""Name the open transaction's tenant, or none, the way that a session does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `RowLevelSecurity` would make, and how a session names its tenant.

    ``statements`` are all that are not one table's: they hold the toolkit's own functions. ``listed`` are the tables
    of the metadata that hold no tenant's rows, which are therefore not taken for forgotten ones.
    """

    tables: Sequence[tuple[Table, str | None]]
    enable: Enable
    name_tenant: NameTenant
    settings: Sequence[str]
    statements: Sequence[str] = ()
    listed: Sequence[Table] = ()
    _functions: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    @property
    def columns(self) -> list[str]:
        """The names by which tenants' columns go."""
        return sorted({"tenant_id", *(column for _, column in self.tables if column is not None)})

    def defines(self, schema: str, name: str, body: str, configuration: Sequence[str]) -> bool:
        """Whether a function of the database is one of the toolkit's own, by its exact body and settings."""
        for statement in self.statements:
            found = _FUNCTION.search(statement)
            if found is None or found["name"].replace('"', "") != f"{schema}.{name}":
                continue
            plain = _spelling(statement)
            if found["body"] == body and all(_spelling(each) in plain for each in configuration):
                return len(configuration) == len(_SETS.findall(statement.replace(found["body"], "")))
        return False


_FUNCTION = re.compile(
    r"\bFUNCTION\s+(?P<name>[\w.\"]+)\s*\(.*?\bAS\s+(?P<quote>\$\w*\$)(?P<body>.*?)(?P=quote)",
    re.DOTALL | re.IGNORECASE,
)
_SETS = re.compile(r"\bSET\s+[\w.]+\s*(?:=|\bTO\b)", re.IGNORECASE)


def _spelling(sql: str) -> str:
    return re.sub(r"[\s\"']", "", re.sub(r"\s+TO\s+", "=", sql)).lower()
