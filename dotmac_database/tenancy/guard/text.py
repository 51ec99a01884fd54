"""The SQL texts that a confined statement may contain: texts that can have no condition and no subselect."""

from __future__ import annotations

import re

from ..functions import FUNCTIONS
from ..tables import TABLES

_PLAIN = re.compile(
    r"\s*(?:\*|-?\d+|'[\w ]*'(?:::[a-z]+(?:\[\])?)?|'\{\}'::text\[\]|[A-Za-z_][\w.]*(?:\s+(?:asc|desc))?)\s*\Z",
    re.IGNORECASE,
)
_HINT = re.compile(r"\s*(?:NOT INDEXED|INDEXED BY \w+|ONLY|/\*\+[\w\s(),.]+\*/)\s*\Z", re.IGNORECASE)
_OPERATOR = re.compile(
    r"(?!.*(?:--|/\*))[-+*/<>=~!@#%^&|`?:.]+\Z"
    r"|(?:NOT )?(?:LIKE|ILIKE|GLOB|REGEXP|RLIKE|MATCH|SIMILAR TO|IN|IS|IS NOT)\Z|IS (?:NOT )?DISTINCT FROM\Z"
    r"|DIV\Z|MOD\Z|XOR\Z|OVERLAPS\Z|COLLATE\Z|AT TIME ZONE\Z|ESCAPE\Z|OPERATOR\([\w.]*[-+*/<>=~!@#%^&|`?]+\)\Z",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
_OTHER_FUNCTIONS = frozenset(
    """
    all any array coalesce cube exists greatest grouping least nullif rollup row some

    aggregate_strings current_date current_time current_timestamp current_user next_value session_user sysdate user

    char date datetime glob hex ifnull iif instr json json_array json_array_length json_each json_error_position
    json_extract json_group_array json_group_object json_insert json_object json_patch json_quote json_remove
    json_replace json_set json_tree json_type json_valid julianday like likelihood likely max min
    octet_length printf quote randomblob soundex sqlite_version strftime timediff total typeof unhex
    unicode unixepoch unlikely zeroblob bm25 highlight snippet group_concat

    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
    hashtext hashtextextended

    similarity word_similarity strict_word_similarity show_trgm unaccent uuid_generate_v1 uuid_generate_v1mc
    uuid_generate_v3 uuid_generate_v4 uuid_generate_v5 uuid_nil uuid_ns_dns uuid_ns_oid uuid_ns_url uuid_ns_x500 crypt
    gen_salt digest hmac gen_random_bytes armor levenshtein levenshtein_less_equal metaphone dmetaphone dmetaphone_alt
    difference daitch_mokotoff earth_distance earth_box ll_to_earth latitude longitude nlevel subpath subltree index lca
    text2ltree ltree2text akeys avals skeys svals hstore hstore_to_json hstore_to_jsonb hstore_to_array slice defined
    exist delete cube_distance l1_distance l2_distance cosine_distance inner_product vector_dims vector_norm
    l2_normalize subvector binary_quantize
    """.split()  # noqa: SIM905 - a list of words is read more easily
)
"""Functions of the SQL grammar, of SQLite, of extensions that are part of PostgreSQL, and of pgvector."""

_PREFIXED_FUNCTIONS = re.compile(r"(?:dotmac|st(?!_(?:estimated_?extent|find_?extent)\Z)|rum)_\w+\Z")
"""The toolkit's functions for SQLite, and functions of PostGIS and RUM, by prefix.

The excluded functions of PostGIS have the name of a table as an argument, and read that table.
"""


def is_plain(text: str) -> bool:
    """Whether a text is a name, a number, a star or a simple constant, or is part of a class's mapping."""
    return _PLAIN.match(text) is not None or text in TABLES.texts


def is_plain_hint(text: str) -> bool:
    """Whether a hint of a statement only controls how tables are read."""
    return _HINT.match(text) is not None


def is_operator(text: str) -> bool:
    """Whether ``text`` is an operator and nothing else."""
    return _OPERATOR.match(text.strip()) is not None


def is_name(text: str) -> bool:
    """Whether ``text`` is an identifier that needs no quotes."""
    return _NAME.match(text) is not None


def is_known_function(name: str, tenant_free: frozenset[str]) -> bool:
    """Whether a function is known, or declared in ``tenant_free``, to read only its arguments and no tenant's rows."""
    plain = name.lower()
    return (
        plain in FUNCTIONS
        or plain in _OTHER_FUNCTIONS
        or plain in tenant_free
        or _PREFIXED_FUNCTIONS.match(plain) is not None
    )
