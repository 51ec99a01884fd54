"""Compiles a rule into the text of a policy's condition, in which the actor's values are read from a setting."""

# SQLAlchemy's compilers are not typed: for mypy, their methods return `Any` instead of a str.
# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import ARRAY, BindParameter, ColumnElement, Select, Table, Text, literal_column, select
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeEngine

from ..dialects.postgresql import Postgresql, decorated
from ..errors import DatabaseError, PolicyNotExpressibleError
from ..models.traits import Traits
from ..policies.rights import Rule
from ..policies.rules import Rules
from ..policies.symbols import ActorValue, Exactly, Step, Trace, path_of, path_text
from ..policies.symbols import refuse as refuse_value
from ..statements.rules import RulesInSql
from ..statements.scope import Scope
from ..tenancy.context import ALL_TENANTS
from ..tenancy.rls.signature import actor_sql
from .forms import Form, is_known, quoted_text

Untyped: TypeAlias = Any
"""A part of SQLAlchemy's compilers, which are not typed, or a parameter of a class that can be any."""


_UNLIKE = "compares it with columns of two types that have one name and convert values differently"


@dataclass(frozen=True)
class Reading:
    """A value of the actor that a condition reads: its path, and the form in which it is compared.

    ``exactly``: only a value of this kind is announced. Two readings with the same ``key`` read the same text.
    """

    path: tuple[Step, ...]
    form: Form
    exactly: Exactly | None = None

    @property
    def key(self) -> str:
        """The name of the value within the setting, such as ``actor.id::INTEGER``."""
        kind = "" if self.exactly is None else f" as {self.exactly.kind.__name__}"
        return path_text(self.path) + self.form.name + kind


@dataclass(frozen=True)
class Compiled:
    """A condition as SQL, the values of the actor that it reads, and the tables that its subselects read.

    For each table: whether a row that is missing there can only make the condition refuse more rows.
    """

    sql: str
    readings: Mapping[str, Reading] = field(default_factory=dict)
    tables: Mapping[Table, bool] = field(default_factory=dict)


class _Compiler(PGCompiler):
    """Renders values as literals, and those of the actor as reads of the setting."""

    def __init__(self, *args: Untyped, **kw: Untyped) -> None:
        self.readings: dict[str, Reading] = {}
        self.tables: dict[Table, bool] = {}
        self._signed = bool(getattr(kw.get("dialect", args[0] if args else None), "dotmac_signed", False))
        self._sign = 1  # -1 within NOT; 0 where a missing row can have any effect
        super().__init__(*args, **kw)

    @contextmanager
    def _within(self, factor: int) -> Iterator[None]:
        before = self._sign
        self._sign *= factor
        try:
            yield
        finally:
            self._sign = before

    def visit_bindparam(self, bindparam: BindParameter[Untyped], *_: Untyped, **__: Untyped) -> str:
        """Render a value (called by SQLAlchemy)."""
        type_: TypeEngine[Untyped] = bindparam.type
        if isinstance(type_, ARRAY):
            return self._value(bindparam.value, decorated(type_.item_type), is_list=True)
        return self._value(bindparam.value, type_, is_list=False)

    def _value(self, value: object, type_: TypeEngine[Untyped], *, is_list: bool) -> str:
        exactly = value if isinstance(value, Exactly) else None
        symbol = exactly.value if exactly is not None else value
        if not is_known(type_):
            if isinstance(symbol, ActorValue):
                refuse_value(symbol, "compares it with something that has no SQL type; use cast()")
            type_ = Text() if isinstance(value, str) else type_
        form = Form(type_, is_list)
        if isinstance(symbol, ActorValue):
            reading = Reading(path_of(symbol), form, exactly)
            if not form.writes_like(self.readings.setdefault(reading.key, reading).form):
                refuse_value(symbol, _UNLIKE)
            return _cast(actor_sql(quoted_text(reading.key), signed=self._signed), form)
        for each in value if isinstance(value, (list, tuple)) else ():
            if isinstance(each, ActorValue):
                refuse_value(
                    each, "has it in a list of values; compare it by a condition of its own, in any_of() or or_()"
                )
        text = form.text(value)
        return "NULL" if text is None else _cast(quoted_text(text), form)

    def visit_in_op_binary(self, binary: Untyped, operator: Untyped, **kw: Untyped) -> str:
        """Render IN with a list of values as = ANY (called by SQLAlchemy)."""
        return self._among(binary, operator, "= ANY", **kw)

    def visit_not_in_op_binary(self, binary: Untyped, operator: Untyped, **kw: Untyped) -> str:
        """Render NOT IN with a list of values as <> ALL (called by SQLAlchemy)."""
        return self._among(binary, operator, "<> ALL", **kw)

    def _among(self, binary: Untyped, operator: Untyped, words: str, **kw: Untyped) -> str:
        if isinstance(binary.right, BindParameter):
            members = self._value(binary.right.value, binary.right.type, is_list=True)
            return f"{self.process(binary.left, **kw)} {words} ({members})"
        base: Untyped = super()
        inverse = words != "= ANY"
        return (base.visit_not_in_op_binary if inverse else base.visit_in_op_binary)(binary, operator, **kw)

    def visit_table(self, table: Untyped, asfrom: Untyped = False, **kw: Untyped) -> str:  # type: ignore[override]  # it passes the rest on
        """Note a table that a subselect reads (called by SQLAlchemy)."""
        if asfrom and isinstance(table, Table) and len(self.stack) > 1:  # the outermost FROM is the policy's own table
            real = table.metadata.tables.get(table.key, table)
            self.tables[real] = self.tables.get(real, True) and self._sign > 0
        return super().visit_table(table, asfrom=asfrom, **kw)

    def visit_unary(self, unary: Untyped, *args: Untyped, **kw: Untyped) -> str:
        """Render NOT, EXISTS and others (called by SQLAlchemy)."""
        keeps = unary.operator is operators.exists
        with self._within(1 if keeps else -1 if unary.operator is operators.inv else 0):
            return super().visit_unary(unary, *args, **kw)

    def visit_binary(self, binary: Untyped, *args: Untyped, **kw: Untyped) -> str:
        """Render a comparison (called by SQLAlchemy). Of a subselect in it, the effect is not known."""
        with self._within(0):
            return super().visit_binary(binary, *args, **kw)

    def visit_function(self, func: Untyped, *args: Untyped, **kw: Untyped) -> str:
        """Render a function (called by SQLAlchemy)."""
        with self._within(0):
            return super().visit_function(func, *args, **kw)

    def visit_case(self, clause: Untyped, **kw: Untyped) -> str:
        """Render CASE (called by SQLAlchemy)."""
        with self._within(0):
            return super().visit_case(clause, **kw)

    def visit_join(self, join: Untyped, *args: Untyped, **kw: Untyped) -> str:
        """Render a join (called by SQLAlchemy)."""
        with self._within(0 if join.isouter or join.full else 1):
            return super().visit_join(join, *args, **kw)

    def visit_compound_select(self, cs: Untyped, *args: Untyped, **kw: Untyped) -> str:
        """Render UNION, EXCEPT and others (called by SQLAlchemy)."""
        with self._within(0):
            return super().visit_compound_select(cs, *args, **kw)

    def visit_select(self, select_stmt: Untyped, *args: Untyped, **kw: Untyped) -> str:
        """Render a SELECT (called by SQLAlchemy). One with HAVING can return a row because others are missing."""
        before, self.tables = self.tables, {}
        text = super().visit_select(select_stmt, *args, **kw)
        whole = "HAVING" not in text
        inner, self.tables = self.tables, before
        for table, grows in inner.items():
            self.tables[table] = self.tables.get(table, True) and grows and whole
        return text


class _PolicyDialect(PGDialect):
    """Compiles the conditions of policies. With "named" parameters a percent sign in a name is not doubled."""

    statement_compiler = _Compiler
    supports_statement_cache = False

    def __init__(self, signed: bool) -> None:
        make: Untyped = super().__init__
        make(paramstyle="named")
        self.dotmac_signed = signed


def _cast(sql: str, form: Form) -> str:
    return sql if form.cast is None else f"CAST({sql} AS {form.cast})"


def compiled(rule: Rule, traits: Traits[Untyped], trace: Trace, *, signed: bool) -> Compiled:
    """The condition of a rule on the rows of the table of ``traits``.

    Raises `PolicyNotExpressibleError` if the rule can't be written without the actor's values.
    """
    if isinstance(rule, bool):
        return Compiled("true" if rule else "false")
    table = traits.mapper.local_table
    try:
        condition = RulesInSql(Rules((), None), Postgresql(), traits).condition(
            rule, traits, traits.model, Scope(tenant=ALL_TENANTS)
        )
        return _compiled(condition, table, signed)
    except PolicyNotExpressibleError:
        raise
    except (DatabaseError, SQLAlchemyError, NotImplementedError) as error:
        trace.refuse(f"{error}")


def _compiled(condition: ColumnElement[bool], table: Untyped, signed: bool) -> Compiled:
    # The table is the FROM of a SELECT around the condition, so that subselects refer to it instead of reading it.
    around: Select[Untyped] = select(literal_column("1")).select_from(table)
    dialect = _PolicyDialect(signed)
    whole: Untyped = around.where(condition).compile(dialect=dialect)
    start = str(around.compile(dialect=dialect)) + " \nWHERE "
    text = str(whole)
    if not text.startswith(start):
        raise NotImplementedError("its condition reads rows of another table beside those of its model.")
    return Compiled(text[len(start) :], whole.readings, whole.tables)


def union(many: Iterable[Mapping[str, Reading]]) -> dict[str, Reading]:
    """All values that several conditions read, by their key.

    Raises `PolicyNotExpressibleError` if two have the same key, and their types do not write the same texts.
    """
    known: dict[str, Reading] = {}
    for readings in many:
        for key, reading in readings.items():
            if not reading.form.writes_like(known.setdefault(key, reading).form):
                raise PolicyNotExpressibleError(f"{key}: a policy {_UNLIKE}.", field="policies")
    return known
