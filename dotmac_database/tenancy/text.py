"""Which fragments of SQL text a confined statement may hold: those that can carry no condition and no subselect."""

from __future__ import annotations

import re

from sqlalchemy.sql.functions import FunctionElement

from .tables import TABLES

_PLAIN = re.compile(
    r"\s*(?:\*|-?\d+|'[\w ]*'(?:::[a-z]+(?:\[\])?)?|'\{\}'::text\[\]|[A-Za-z_][\w.]*(?:\s+(?:asc|desc))?)\s*\Z",
    re.IGNORECASE,
)
_HINT = re.compile(r"\s*(?:NOT INDEXED|INDEXED BY \w+|ONLY|/\*\+[\w\s(),.]+\*/|%\(name\)s [\w ]+)\s*\Z", re.IGNORECASE)
_OPERATOR = re.compile(
    r"(?!.*(?:--|/\*))[-+*/<>=~!@#%^&|`?:.]+\Z"
    r"|(?:NOT )?(?:LIKE|ILIKE|GLOB|REGEXP|RLIKE|MATCH|SIMILAR TO|IN|IS|IS NOT)\Z|IS (?:NOT )?DISTINCT FROM\Z"
    r"|DIV\Z|MOD\Z|XOR\Z|OVERLAPS\Z|COLLATE\Z|AT TIME ZONE\Z|ESCAPE\Z|OPERATOR\([\w.]*[-+*/<>=~!@#%^&|`?]+\)\Z",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_RUNS_SQL = re.compile(
    r"(?:query|table|schema|database|cursor)_to_xml|dblink|set_config|pg_read_|pg_ls_|pg_logical_|lo_|ts_stat|ts_rewrite"
    r"|crosstab|connectby|xmltable|load_extension|readfile|writefile|edit\Z|fts3_tokenizer|eval\Z"
)
"""The functions that run the SQL, or read the table or file, that an argument names."""

_ROWS = frozenset(
    """
    generate_series generate_subscripts unnest regexp_matches regexp_split_to_table string_to_table json_each
    json_tree jsonb_each json_each_text jsonb_each_text json_array_elements jsonb_array_elements
    json_array_elements_text jsonb_array_elements_text json_object_keys jsonb_object_keys json_to_record
    jsonb_to_record json_to_recordset jsonb_to_recordset json_populate_record jsonb_populate_record
    json_populate_recordset jsonb_populate_recordset jsonb_path_query ts_debug ts_parse
    """.split()  # noqa: SIM905 - easier to compare
)
"""The functions that may stand as a FROM: they make rows of their arguments alone."""


def is_plain(text: str) -> bool:
    """Whether a fragment is a name, a number, a star or a simple constant, or stands so in a mapping."""
    return _PLAIN.match(text) is not None or text in TABLES.texts


def is_plain_hint(text: str) -> bool:
    """Whether an optimizer hint says no more than how to read."""
    return _HINT.match(text) is not None


def is_operator(text: str) -> bool:
    """Whether ``text`` is an operator and nothing else."""
    return _OPERATOR.match(text.strip()) is not None


def is_name(text: str) -> bool:
    """Whether ``text`` is an identifier that needs no quotes."""
    return _NAME.match(text) is not None


def runs_sql(function: FunctionElement[object]) -> bool:
    """Whether a function runs what its arguments say, or reads what they name."""
    return _RUNS_SQL.match(str(getattr(function, "name", "")).lower()) is not None


def makes_rows(name: str, tenant_free: frozenset[str]) -> bool:
    """Whether a function may stand as a FROM: it is built in, or declared to read no tenant's rows."""
    return name.lower() in _ROWS or name.lower() in tenant_free
