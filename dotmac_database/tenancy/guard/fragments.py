"""Detects the parts of a statement that can't be analysed: texts, and elements that can contain any SQL."""

# SQLAlchemy's compilers are not typed: for mypy, their methods return `Any` instead of a str.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import IdentifierPreparer, SQLCompiler
from sqlalchemy.sql.elements import (
    BinaryExpression,
    ClauseElement,
    ColumnClause,
    Extract,
    TextClause,
    TString,
    UnaryExpression,
)
from sqlalchemy.sql.functions import Function
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import TextualSelect
from sqlalchemy.sql.visitors import ExternallyTraversible

from .text import is_known_function, is_name, is_operator, is_plain, is_plain_hint

KNOWN = frozenset(
    """
    aggregate_order_by aggregate_orderby_inline aggregate_strings_func aggregateorderby alias array
    between_op_binary binary bindparam bitwise_xor_op_binary case cast char_length_func clauselist collation
    column compound_select contains_op_binary cte custom_op_binary custom_op_unary_modifier
    custom_op_unary_operator delete dmltargetcopy element_list empty_set_expr empty_set_op_expr
    endswith_op_binary expression_clauselist extract false floordiv_binary frame_clause fromclause funcfilter
    function function_as_comparison_op_binary getitem_binary grouping hstore_getitem_op_binary
    icontains_op_binary iendswith_op_binary ilike_case_insensitive_operand ilike_op_binary index insert
    is_distinct_from_binary is_false_unary_operator is_not_distinct_from_binary is_true_unary_operator
    istartswith_op_binary join json_getitem_op_binary json_path_getitem_op_binary label label_reference
    lambda_element lateral like_op_binary localtimestamp_func match_op_binary mod_binary next_value_func
    not_between_op_binary not_contains_op_binary not_endswith_op_binary not_icontains_op_binary
    not_iendswith_op_binary not_ilike_op_binary not_in_op_binary not_istartswith_op_binary not_like_op_binary
    not_match_op_binary not_regexp_match_op_binary not_startswith_op_binary now_func null on_conflict_do_nothing
    on_conflict_do_update order_by_list over override_binds phraseto_tsquery_func plainto_tsquery_func
    postgresql_distinct_on pow_func regexp_match_op_binary regexp_replace_op_binary release_savepoint
    rollback_to_savepoint savepoint scalar_function_column scalar_values select select_statement_grouping
    sequence slice startswith_op_binary subquery substring_func table table_valued_alias table_valued_column
    tablesample textclause textual_label_reference textual_select to_tsquery_func to_tsvector_func true
    truediv_binary ts_headline_func tstring tstring_text tuple type_coerce typeclause unary
    unsupported_compilation update values websearch_to_tsquery_func withingroup
    """.split()  # noqa: SIM905 - easier to compare
)
"""The elements that SQLAlchemy 2.1's compilers for PostgreSQL and SQLite render. All other elements are opaque."""


_Base: Any = SQLCompiler  # SQLAlchemy's compilers are not typed


class FragmentCompiler(_Base):  # type: ignore[misc]  # as above
    """Records the first ``opaque`` and the first ``unknown`` part of a statement, in words; None: there is none.

    Opaque is a text or an element that can contain any SQL. Unknown is what the compiler can't confine, such as a table
    that is in no mapped class's metadata. ``tenant_free`` are the names of tables and functions that are declared to
    contain or read no tenant's rows.
    """

    tenant_free: frozenset[str] = frozenset()

    def __init__(self, *args: object, **kw: object) -> None:
        self.opaque: str | None = None
        self.unknown: str | None = None
        super().__init__(*args, **kw)
        if self.statement is not None:
            self._look_for_custom(self.statement)

    def _mark_unknown(self, what: str) -> None:
        self.unknown = self.unknown or what

    def _mark_opaque(self, what: str) -> None:
        self.opaque = self.opaque or what

    def _look_for_custom(self, statement: ExternallyTraversible) -> None:
        """Mark elements with a compile function of the user's (``@compiles``) as opaque: they can render any SQL."""
        for element in visitors.iterate(statement):
            kind = type(element)
            if hasattr(kind, "_compiler_dispatcher") and not kind.__module__.startswith("dotmac_database."):
                self._mark_opaque(f"The element {kind.__name__}, which has its own compile function,")

    def _look_at_hints(self, statement: ClauseElement) -> None:
        hints = [
            *(text for (_, name), text in dict(getattr(statement, "_hints", None) or {}).items() if self._is_for(name)),
            *(text for name, text in getattr(statement, "_statement_hints", None) or () if self._is_for(name)),
        ]
        if not all(map(is_plain_hint, hints)):
            self._mark_opaque("A hint")

    def _is_for(self, dialect: str) -> bool:
        return dialect in ("*", self.dialect.name)

    def _generate_prefixes(
        self, stmt: ClauseElement, prefixes: Sequence[tuple[ClauseElement, str]], **kw: object
    ) -> str:
        for prefix, _ in prefixes:
            self._look_for_custom(prefix)
        return super()._generate_prefixes(stmt, prefixes, **kw)

    def visit_textclause(self, textclause: TextClause, *args: object, **kw: object) -> str:
        """Render a text (called by SQLAlchemy)."""
        if not self.stack or not is_plain(textclause.text):
            self._mark_opaque("A text in the statement")
        return super().visit_textclause(textclause, *args, **kw)

    def visit_textual_select(self, taf: TextualSelect, *args: object, **kw: object) -> str:
        """Render a SELECT that is a text (called by SQLAlchemy)."""
        self._mark_opaque("A text in the statement")
        return super().visit_textual_select(taf, *args, **kw)

    def visit_tstring(self, tstring: TString, *args: object, **kw: object) -> str:
        """Render a template string (called by SQLAlchemy)."""
        self._mark_opaque("A text in the statement")
        return super().visit_tstring(tstring, *args, **kw)

    def visit_column(self, column: ColumnClause[Any], *args: object, **kw: object) -> str:
        """Render a column, which can be a text (called by SQLAlchemy)."""
        if column.is_literal and not is_plain(str(column.name)):
            self._mark_opaque("A text in the statement")
        return super().visit_column(column, *args, **kw)

    def visit_extract(self, extract: Extract, **kw: object) -> str:
        """Render an EXTRACT, in which the field is a text (called by SQLAlchemy)."""
        if not is_name(extract.field):
            self._mark_opaque("The field of an EXTRACT")
        return super().visit_extract(extract, **kw)

    def visit_function(self, func: Function[Any], *args: object, **kw: object) -> str:
        """Render a function, which could execute SQL or read tables (called by SQLAlchemy)."""
        if not is_known_function(str(func.name), self.tenant_free):
            self._mark_opaque(f"The function {str(func.name)!r}, which is not known to read only its arguments,")
        return super().visit_function(func, *args, **kw)

    def visit_custom_op_binary(self, element: BinaryExpression[Any], operator: custom_op[Any], **kw: object) -> str:
        """Render a binary operator that is a text (called by SQLAlchemy)."""
        self._look_at_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kw)

    def visit_custom_op_unary_operator(
        self, element: UnaryExpression[Any], operator: custom_op[Any], **kw: object
    ) -> str:
        """Render an operator before its operand that is a text (called by SQLAlchemy)."""
        self._look_at_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kw)

    def visit_custom_op_unary_modifier(
        self, element: UnaryExpression[Any], operator: custom_op[Any], **kw: object
    ) -> str:
        """Render an operator after its operand that is a text (called by SQLAlchemy)."""
        self._look_at_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **kw)

    def _look_at_operator(self, operator: custom_op[Any]) -> None:
        if not is_operator(operator.opstring):
            self._mark_opaque("An operator that is a text")


def unknown_hooks(base: type[SQLCompiler]) -> dict[str, Callable[..., str]]:
    """Methods that mark elements as opaque, for those that ``base`` renders and that are not in `KNOWN`."""
    names = (name for name in dir(base) if name.startswith("visit_"))
    return {name: _opaque_hook(name) for name in names if name.removeprefix("visit_") not in KNOWN}


def _opaque_hook(name: str) -> Callable[..., str]:
    def visit(self: FragmentCompiler, element: object, *args: object, **kw: object) -> str:
        self._mark_opaque(f"An element of an unknown kind, {name.removeprefix('visit_')},")
        return getattr(super(type(self), self), name)(element, *args, **kw)

    return visit


class Quoting(IdentifierPreparer):
    """An identifier preparer that quotes all but plain names, even if an identifier is marked as not to be quoted."""

    def quote(self, ident: str) -> str:
        """The identifier for SQL (called by SQLAlchemy)."""
        if getattr(ident, "quote", None) is False and not is_name(str(ident)):
            return self.quote_identifier(ident)
        return super().quote(ident)
