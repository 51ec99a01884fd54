"""The expected state of a database: the tables, and the statements by which the toolkit protects them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Table

Enable = Callable[[Table, str | None], list[str]]
"""Returns the statements that protect a table, by the table and the name of its tenant column.

None: the table has no tenant column, and its rows belong to the tenant of their parent rows.
"""

NameTenant = Callable[[Connection, str | None], None]
"""Sets the tenant of the open transaction as a session would; None: no tenant."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `RowLevelSecurity` would create, and how a session sets its tenant.

    ``tables`` are the tenants' tables, each with the name of its tenant column or None. ``settings`` are the settings
    that the policies read. ``statements`` create the toolkit's own functions. ``listed`` are the other tables of the
    metadata, which contain no tenant's rows and are therefore not reported as missing from the metadata. ``rules``: the
    statements that create the restrictive policies of rights, by table.
    """

    tables: Sequence[tuple[Table, str | None]]
    enable: Enable
    name_tenant: NameTenant
    settings: Sequence[str]
    statements: Sequence[str] = ()
    listed: Sequence[Table] = ()
    rules: Mapping[Table, Sequence[str]] = field(default_factory=dict)
    _functions: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    @property
    def columns(self) -> list[str]:
        """The names of tenant columns, by which tables that are not in the metadata are recognized."""
        return sorted({"tenant_id", *(column for _, column in self.tables if column is not None)})

    def defines(self, schema: str, name: str, body: str, configuration: Sequence[str]) -> bool:
        """Whether a function in the database is exactly one of the toolkit's own, with its body and settings."""
        for statement in self.statements:
            function = _FUNCTION.search(statement)
            if function is None or function["name"].replace('"', "") != f"{schema}.{name}":
                continue
            normalized = _normalize(statement)
            if function["body"] == body and all(_normalize(each) in normalized for each in configuration):
                return len(configuration) == len(_SETS.findall(statement.replace(function["body"], "")))
        return False


_FUNCTION = re.compile(
    r"\bFUNCTION\s+(?P<name>[\w.\"]+)\s*\(.*?\bAS\s+(?P<quote>\$\w*\$)(?P<body>.*?)(?P=quote)",
    re.DOTALL | re.IGNORECASE,
)
_SETS = re.compile(r"\bSET\s+[\w.]+\s*(?:=|\bTO\b)", re.IGNORECASE)


def _normalize(sql: str) -> str:
    """SQL in lower case without spaces and quotes, and with ``=`` instead of TO."""
    return re.sub(r"[\s\"']", "", re.sub(r"\s+TO\s+", "=", sql)).lower()
