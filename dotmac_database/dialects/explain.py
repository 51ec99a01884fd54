"""EXPLAIN of any statement as an SQLAlchemy executable, and the parsing of its result.

https://docs.sqlalchemy.org/en/21/core/compiler.html
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql import ClauseElement, Executable

from ..sqlalchemy_internals import forget_result_columns

_NUMBER = itertools.count(1)
_PREFIX = re.compile(r"\AEXPLAIN (?:\([\w, ]+\)|QUERY PLAN /\* \d+ \*/) ")
# SQLite before 3.36 says TABLE: https://www.sqlite.org/eqp.html
_SCAN = re.compile(r"\ASCAN (?:TABLE )?(?P<table>.+?)(?: AS .+)?\Z")
_NOT_A_FULL_SCAN = re.compile(r" USING | VIRTUAL TABLE |\ASCAN (?:CONSTANT ROW|\d+|SUBQUERY|\()")
_INDEX = re.compile(r"USING (?:AUTOMATIC )?(?:PARTIAL )?(?:COVERING )?INDEX (?P<index>\w+)")


class Explain(Executable, ClauseElement):
    """``EXPLAIN (FORMAT JSON)`` of ``statement`` on PostgreSQL, ``EXPLAIN QUERY PLAN`` on SQLite.

    With ``analyze`` PostgreSQL also runs the statement and measures it.
    """

    inherit_cache = False

    def __init__(self, statement: object, *, analyze: bool = False) -> None:
        self.statement = statement
        self.analyze = analyze


@compiles(Explain, "postgresql")
def _explain(element: Explain, compiler: object, **kw: object) -> str:
    options = "ANALYZE, BUFFERS, FORMAT JSON" if element.analyze else "FORMAT JSON"
    return f"EXPLAIN ({options}) {_compiled(element, compiler, kw)}"


@compiles(Explain, "sqlite")
def _explain_query_plan(element: Explain, compiler: object, **kw: object) -> str:
    # The driver caches prepared statements by their text, and SQLite does not notice if the schema has changed since it
    # prepared an EXPLAIN. Therefore a number makes each text unique.
    return f"EXPLAIN QUERY PLAN /* {next(_NUMBER)} */ {_compiled(element, compiler, kw)}"


def _compiled(element: Explain, compiler: Any, kw: dict[str, Any]) -> str:
    sql = str(compiler.process(element.statement, **kw))
    # EXPLAIN returns other columns than the statement. If names coincide, SQLAlchemy would use the statement's types.
    forget_result_columns(compiler)
    return sql


class Plan(NamedTuple):
    """A plan as data and as text, with the tables it scans, the indexes it uses, and whether it sorts rows."""

    data: object
    text: str
    scans: tuple[str, ...]
    indexes: tuple[str, ...]
    sorts: bool


def without_explain(sql: str) -> str:
    """The SQL of the explained statement, without the EXPLAIN that precedes it in ``sql``."""
    return _PREFIX.sub("", sql, count=1)


def plan_of(dialect: str, rows: Sequence[Mapping[str, object]]) -> Plan:
    """The plan that the rows of an EXPLAIN describe. ``dialect`` is the name of the database's dialect."""
    return _sqlite_plan(rows) if dialect == "sqlite" else _postgresql_plan(_parsed(next(iter(rows[0].values()))))


def planned_rows(session: Session, statement: object) -> int:
    """The number of rows that PostgreSQL's planner expects. One round trip; the statement itself is not run."""
    return expected_rows(session.execute(Explain(statement)).scalar_one())


def expected_rows(plan: Any) -> int:
    """The number of rows that a plan of PostgreSQL is expected to return."""
    return int(_parsed(plan)[0]["Plan"]["Plan Rows"])


def _parsed(plan: Any) -> Any:
    return json.loads(plan) if isinstance(plan, str) else plan


def _unique(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _sqlite_plan(rows: Sequence[Mapping[str, Any]]) -> Plan:
    data = [dict(row) for row in rows]
    depths: dict[int, int] = {0: -1}
    lines = []
    for row in data:
        depth = depths[row["id"]] = depths.get(row["parent"], -1) + 1
        lines.append(f"{'  ' * depth}{row['detail']}")
    details = [row["detail"] for row in data]
    whole = [detail for detail in details if not _NOT_A_FULL_SCAN.search(detail)]
    scans = _unique(match["table"] for match in map(_SCAN.match, whole) if match)
    indexes = _unique(match["index"] for match in map(_INDEX.search, details) if match)
    return Plan(data, "\n".join(lines), scans, indexes, any("TEMP B-TREE" in detail for detail in details))


def _postgresql_plan(data: Any) -> Plan:
    nodes = list(_nodes(data[0]["Plan"]))
    scans = _unique(node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan")
    indexes = _unique(node.get("Index Name") for node in nodes)
    sorts = any(node["Node Type"] in ("Sort", "Incremental Sort") for node in nodes)
    return Plan(data, "\n".join(_lines(data[0])), scans, indexes, sorts)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


_DETAILS = (
    "Index Cond",
    "Recheck Cond",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "Filter",
    "Sort Key",
    "Presorted Key",
    "Group Key",
    "Sort Method",
    "Rows Removed by Filter",
    "Rows Removed by Index Recheck",
    "Heap Fetches",
)
_BUFFERS = (("hit", "Shared Hit Blocks"), ("read", "Shared Read Blocks"), ("dirtied", "Shared Dirtied Blocks"))


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    """The lines of the plan in a form that resembles PostgreSQL's FORMAT TEXT."""
    yield from _lines_of(plan["Plan"], 0)
    for name in ("Planning Time", "Execution Time"):
        if name in plan:
            yield f"{name}: {plan[name]:.3f} ms"


def _lines_of(node: dict[str, Any], depth: int) -> Iterator[str]:
    if "Subplan Name" in node:
        yield f"{'  ' * depth}{node['Subplan Name']}"
        depth += 1
    yield f"{'  ' * depth}{'->  ' if depth else ''}{_title(node)}  {_costs(node)}"
    depth += 3 if depth else 1
    inset = "  " * depth
    for name in _DETAILS:
        value = node.get(name)
        if value not in (None, 0, [], ""):
            yield f"{inset}{name}: {', '.join(value) if isinstance(value, list) else value}"
    buffers = " ".join(f"{word}={node[name]}" for word, name in _BUFFERS if node.get(name))
    if buffers:
        yield f"{inset}Buffers: shared {buffers}"
    for child in node.get("Plans", ()):
        yield from _lines_of(child, depth)


_STRATEGIES = {"Hashed": "HashAggregate", "Sorted": "GroupAggregate", "Mixed": "MixedAggregate"}


def _title(node: dict[str, Any]) -> str:
    title = str(node["Node Type"])
    if title == "Aggregate":
        title = _STRATEGIES.get(node.get("Strategy", ""), title)
    if node.get("Partial Mode", "Simple") != "Simple":
        title = f"{node['Partial Mode']} {title}"
    if node.get("Parallel Aware"):
        title = f"Parallel {title}"
    if node.get("Join Type", "Inner") != "Inner":
        title = f"{title.removesuffix(' Join')} {node['Join Type']} Join"
    if node.get("Scan Direction") == "Backward":
        title += " Backward"
    if "Index Name" in node:
        title += f"{' on' if node['Node Type'] == 'Bitmap Index Scan' else ' using'} {node['Index Name']}"
    if "Relation Name" in node:
        alias = node.get("Alias", node["Relation Name"])
        title += f" on {node['Relation Name']}" + (f" {alias}" if alias != node["Relation Name"] else "")
    return title


def _costs(node: dict[str, object]) -> str:
    costs = (
        f"(cost={node['Startup Cost']:.2f}..{node['Total Cost']:.2f} rows={node['Plan Rows']} "
        f"width={node['Plan Width']})"
    )
    if "Actual Loops" not in node:
        return costs
    if not node["Actual Loops"]:
        return f"{costs} (never executed)"
    times = f"time={node['Actual Startup Time']:.3f}..{node['Actual Total Time']:.3f} " if _timed(node) else ""
    return f"{costs} (actual {times}rows={node['Actual Rows']} loops={node['Actual Loops']})"


def _timed(node: dict[str, object]) -> bool:
    return "Actual Total Time" in node
