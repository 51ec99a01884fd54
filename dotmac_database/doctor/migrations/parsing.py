"""Statements of PostgreSQL, parsed by PostgreSQL's own parser. Requires postgast."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import MisuseError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from postgast.pg_query_pb2 import ColumnDef, Constraint, Node, RangeVar, TypeName

_REVISION = re.compile(r"-- Running (?:upgrade|downgrade) (?P<from>\S*) ?-> (?P<to>[^\n]+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of a migration. ``kind`` is the name of its node, such as ``alter_table_stmt``."""

    revision: str
    kind: str
    node: Node


def statements(sql: str) -> Iterator[Statement]:
    """The statements of a script that Alembic has rendered, each with the revision whose comment precedes it.

    Raises `MisuseError` without postgast, and for SQL that PostgreSQL's parser refuses.
    """
    try:
        from postgast import PgQueryError, parse
    except ModuleNotFoundError:
        raise MisuseError("Migrations are judged by postgast: pip install 'dotmac-database-toolkit[doctor]'.") from None
    try:
        parsed = parse(sql)
    except PgQueryError as error:
        raise MisuseError(f"The SQL of the migrations can't be parsed: {error}") from None
    revision, encoded, begin = "", sql.encode(), 0
    for each in parsed.stmts:
        end = each.stmt_location + each.stmt_len if each.stmt_len else len(encoded)
        for match in _REVISION.finditer(encoded[begin:end].decode()):
            revision = match["to"].split(",")[0].strip()
        begin = end
        kind = each.stmt.WhichOneof("node") or ""
        yield Statement(revision, kind, each.stmt)


def deparsed(kind: str, node: Message) -> str:
    """The SQL of a statement's node."""
    from postgast import deparse
    from postgast.pg_query_pb2 import Node, ParseResult, RawStmt

    wrapped = Node()
    getattr(wrapped, kind).CopyFrom(node)
    sql: str = deparse(ParseResult(stmts=[RawStmt(stmt=wrapped)]))
    return sql


def name_of(relation: RangeVar) -> tuple[str | None, str]:
    """The schema (None: the default one) and the name of a relation."""
    return relation.schemaname or None, relation.relname


def names(nodes: Sequence[Node]) -> list[str]:
    """The texts of a list of names."""
    return [each.string.sval for each in nodes]


def constraint_of(column: ColumnDef, kind: int) -> Constraint | None:
    """The constraint of this kind in a column's definition; None: it has none."""
    constraints = (each.constraint for each in column.constraints)
    return next((each for each in constraints if each.contype == kind), None)


def type_of(type_: TypeName) -> tuple[str, tuple[int, ...]]:
    """The name of a type without ``pg_catalog``, and its modifiers, such as ``("varchar", (20,))``."""
    name = names(type_.names)[-1] + "[]" * len(type_.array_bounds)
    return name, tuple(each.a_const.ival.ival for each in type_.typmods if each.WhichOneof("node") == "a_const")


def functions_in(message: Message) -> set[str]:
    """The names of all functions that an expression calls."""
    found_names = set[str]()
    pending = [message]
    while pending:
        each = pending.pop()
        if each.DESCRIPTOR.name == "FuncCall":
            found_names.add(getattr(each, "funcname")[-1].string.sval)  # noqa: B009 - the class of a message is unknown
        for field, value in each.ListFields():
            if field.message_type is not None:
                pending += value if hasattr(value, "__len__") else [value]
    return found_names
