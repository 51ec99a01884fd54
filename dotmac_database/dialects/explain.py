"""EXPLAIN of any statement, as an executable of its own.

https://docs.sqlalchemy.org/en/21/core/compiler.html
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement, Executable


class Explain(Executable, ClauseElement):
    """``EXPLAIN (FORMAT JSON)`` of ``statement``, on PostgreSQL."""

    inherit_cache = False

    def __init__(self, statement: Any) -> None:
        self.statement = statement


@compiles(Explain, "postgresql")
def _explain(element: Explain, compiler: Any, **kw: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **kw)}"


def planned_rows(session: Session, statement: Any) -> int:
    """The rows that PostgreSQL's planner expects of this very statement. One round trip; nothing is run."""
    return expected_rows(session.execute(Explain(statement)).scalar_one())


def expected_rows(plan: Any) -> int:
    """The rows that a plan is expected to give."""
    told = json.loads(plan) if isinstance(plan, str) else plan
    return int(told[0]["Plan"]["Plan Rows"])
