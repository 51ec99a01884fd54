"""The meaning of the databases' error codes, as tables.

PostgreSQL, appendix A: https://www.postgresql.org/docs/current/errcodes-appendix.html
SQLite, result and error codes: https://www.sqlite.org/rescode.html
"""

from __future__ import annotations

from enum import Enum, auto


class Kind(Enum):
    """A kind of failure. `errors.py` in this folder maps each kind to an exception."""

    DUPLICATE = auto()
    CONSTRAINT = auto()
    INVALID = auto()
    FORBIDDEN = auto()
    TRANSIENT = auto()
    STALE_PLAN = auto()
    TRANSACTION = auto()
    UNAVAILABLE = auto()
    TIMEOUT = auto()
    NO_TABLE = auto()
    NO_COLUMN = auto()
    OTHER = auto()


_SQLSTATES = {
    "23505": Kind.DUPLICATE,
    "40001": Kind.TRANSIENT,
    "40P01": Kind.TRANSIENT,
    "25P03": Kind.TIMEOUT,  # idle in transaction for too long
    "25P04": Kind.TIMEOUT,  # the transaction took too long
    "55P03": Kind.TIMEOUT,  # the lock was not available in time
    "57014": Kind.TIMEOUT,  # cancelled, usually by statement_timeout
    "42501": Kind.FORBIDDEN,
    "44000": Kind.FORBIDDEN,  # WITH CHECK OPTION of a view
    "3D000": Kind.UNAVAILABLE,
    "3F000": Kind.NO_TABLE,
    "42P01": Kind.NO_TABLE,
    "42703": Kind.NO_COLUMN,
}

FOREIGN_KEY_STATES = frozenset(("23503", "23001"))
"""The SQLSTATEs of a violated foreign key. The second is for ON DELETE RESTRICT since PostgreSQL 18."""

_CLASSES = {
    "08": Kind.UNAVAILABLE,
    "22": Kind.INVALID,
    "23": Kind.CONSTRAINT,
    "25": Kind.TRANSACTION,
    "28": Kind.UNAVAILABLE,
    "40": Kind.TRANSACTION,
    "53": Kind.UNAVAILABLE,
    "57": Kind.UNAVAILABLE,
    "58": Kind.UNAVAILABLE,
}

_REASONS = {
    "22001": "a text is longer than its column allows",
    "22003": "a number is beyond what its type can hold",
    "22007": "a date or a time is not written as one",
    "22008": "a date or a time is beyond what its type can hold",
    "22009": "the offset of a time zone is out of range",
    "22012": "a number is divided by zero",
    "2201B": "a regular expression is not a valid one",
    "2201E": "a logarithm is taken of a number that has none",
    "2201F": "a power is taken of a number that has none",
    "2201G": "an argument of width_bucket() is not valid",
    "2201W": "LIMIT, the number of rows, is less than 0",
    "2201X": "OFFSET, the number of rows to skip, is less than 0",
    "22021": "a text has a character that the database's encoding lacks, such as NUL",
    "22023": "an argument of a function or a setting has a value that is not allowed",
    "22025": "a pattern ends with its escape character, or that is not a single one",
    "22019": "an escape character is not a single character",
    "22004": "a value is null where null is not allowed",
    "22011": "the length of a part of a text is less than 0",
    "22026": "a bit string has another length than its column",
    "2202E": "an index of an array is out of its range",
    "22030": "a JSON object has the same key twice",
    "22032": "a text is not valid JSON",
    "22P02": "a text can't be read as a value of the type",
    "22P03": "a binary value can't be read as a value of the type",
    "22P05": "a text has a character that the client's encoding does not have",
}

_SQLITE_EXTENDED = {
    1555: Kind.DUPLICATE,  # CONSTRAINT_PRIMARYKEY
    2067: Kind.DUPLICATE,  # CONSTRAINT_UNIQUE
    2579: Kind.DUPLICATE,  # CONSTRAINT_ROWID
}

_SQLITE_PRIMARY = {
    5: Kind.TRANSIENT,  # BUSY
    6: Kind.TRANSIENT,  # LOCKED
    8: Kind.UNAVAILABLE,  # READONLY
    9: Kind.TIMEOUT,  # INTERRUPT
    10: Kind.UNAVAILABLE,  # IOERR
    11: Kind.UNAVAILABLE,  # CORRUPT
    13: Kind.UNAVAILABLE,  # FULL
    14: Kind.UNAVAILABLE,  # CANTOPEN
    18: Kind.INVALID,  # TOOBIG
    19: Kind.CONSTRAINT,  # CONSTRAINT
    20: Kind.INVALID,  # MISMATCH
    26: Kind.UNAVAILABLE,  # NOTADB
}


def kind_of_sqlstate(sqlstate: str) -> Kind:
    """The kind of a SQLSTATE: that of the code itself, or else that of its class (the first two characters)."""
    return _SQLSTATES.get(sqlstate) or _CLASSES.get(sqlstate[:2], Kind.OTHER)


def refusal_of_sqlstate(sqlstate: str | None) -> str | None:
    """The reason why the database refused a value, as a clause for a message; None if the code has no known reason."""
    return _REASONS.get(sqlstate) if sqlstate is not None else None


def kind_of_sqlite(code: int) -> Kind:
    """The kind of an extended SQLite result code: that of the code itself, or else that of its low byte."""
    return _SQLITE_EXTENDED.get(code) or _SQLITE_PRIMARY.get(code & 0xFF, Kind.OTHER)
