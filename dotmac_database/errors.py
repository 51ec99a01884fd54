"""The toolkit's exceptions, as one hierarchy.

DatabaseError
├── EntityNotFoundError
├── DuplicateEntityError            SQLSTATE 23505
├── ConstraintViolationError        23502, 23503, 23514, 23P01, 23001
├── ValidationError (ValueError)    bad input, refused before or by the database (class 22)
│   ├── InvalidCursorError
│   ├── MisuseError
│   │   └── PolicyNotExpressibleError
│   └── TenantRequiredError
│       └── TenantNotGivenError
├── PermissionDeniedError           a policy inside the tenant; 42501 from a policy of rights in the database
├── TenantIsolationError            any other 42501
│   └── UnscopedStatementError
├── SessionEndedError
├── StatementBudgetExceeded
├── LazyLoadError                   a lazy load of an object that a strict repository returned
├── StaleEntityError
├── TransactionError
├── CircuitOpenError
├── DatabaseUnavailableError        classes 08, 53, 57; refused or lost connections
└── DatabaseTimeoutError            57014, 55P03, a full pool

A message names the model and the field, and never contains a parameter of a statement. The driver's exception, if there
is one, is the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Outcome = Literal["rolled_back", "unknown"]


class DatabaseError(Exception):
    """The base class of the toolkit's exceptions.

    ``index`` is the position of the refused row in the data of a method for many rows. It is None if there was only one
    row, or if it is unknown which row was refused.
    """

    index: int | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


REFUSAL_HOOKS: list[Callable[[DatabaseError], None]] = []
"""Functions that get each `TenantIsolationError` and `TenantNotGivenError` when it is made: those of the telemetry.

What refuses a tenant's statement is in many places, and each of them raises one of these.
"""


def _note_refusal(error: DatabaseError) -> None:
    for hook in REFUSAL_HOOKS:
        hook(error)


class EntityNotFoundError(DatabaseError):
    """There is no such row, or it belongs to another tenant: the exception is the same for both."""

    def __init__(self, message: str | None = None, *, model: str | None = None) -> None:
        super().__init__(message)
        self.model = model


class _ConstraintError(DatabaseError):
    """The row violates a constraint."""

    def __init__(
        self, message: str | None = None, *, fields: tuple[str, ...] = (), constraint: str | None = None
    ) -> None:
        super().__init__(message)
        self.fields = fields
        self.constraint = constraint


class DuplicateEntityError(_ConstraintError):
    """The row violates a unique constraint: a row with these values already exists."""


class ConstraintViolationError(_ConstraintError):
    """The row violates a foreign key, check, exclusion or not-null constraint."""


class ValidationError(DatabaseError, ValueError):
    """The input is invalid."""

    def __init__(self, message: str | None = None, *, field: str | None = None, operator: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.operator = operator


class MisuseError(ValidationError):
    """The call itself is wrong, whatever its values. For example, it names a field that the class does not have."""


class InvalidCursorError(ValidationError):
    """The cursor is damaged, forged, or belongs to another query."""


class PolicyNotExpressibleError(MisuseError):
    """A policy needs in Python a value of the actor that only a setting of PostgreSQL's transaction has."""


class TenantRequiredError(ValidationError):
    """A tenant-scoped class was used without a tenant."""


class TenantNotGivenError(TenantRequiredError):
    """A session or a repository for a tenant-scoped class was given no tenant."""

    def __init__(self, message: str | None = None, *, field: str | None = None, operator: str | None = None) -> None:
        super().__init__(message, field=field, operator=operator)
        _note_refusal(self)


class PermissionDeniedError(DatabaseError):
    """A policy does not allow the actor to do this."""


class TenantIsolationError(DatabaseError):
    """A row of another tenant would have been read or written."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message)
        _note_refusal(self)


class UnscopedStatementError(TenantIsolationError):
    """The statement uses a tenant's table in a way that can't be confined to one tenant."""


class SessionEndedError(DatabaseError):
    """The session has ended. A request's session ends with the request.

    A background task needs its own session, plugin.session(tenant=...).
    """


class LazyLoadError(DatabaseError):
    """An attribute was used that is not loaded, and the object was read or written by a strict repository.

    ``model`` and ``attribute`` are the names of the class and of the attribute.
    """

    def __init__(self, message: str | None = None, *, model: str | None = None, attribute: str | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.attribute = attribute


class StatementBudgetExceeded(DatabaseError):  # noqa: N818 - the name is the contract's
    """A request or a block has sent more statements than its `StatementBudget` allows.

    ``limit`` is the number of statements that are allowed.
    """

    def __init__(self, message: str | None = None, *, limit: int = 0) -> None:
        super().__init__(message)
        self.limit = limit


class StaleEntityError(DatabaseError):
    """The row was changed after it was read: its version is not the expected one."""


class TransactionError(DatabaseError):
    """The transaction failed.

    ``outcome`` is ``"rolled_back"`` if nothing was written, and ``"unknown"`` if the connection was lost during COMMIT,
    so that the transaction may have been committed. ``transient``: the same transaction may succeed when it is run
    again (SQLSTATE 40001, 40P01, SQLite busy).
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        outcome: Outcome = "rolled_back",
        transient: bool = False,
        sqlstate: str | None = None,
    ) -> None:
        super().__init__(message or "The transaction failed.")
        self.outcome: Outcome = outcome
        self.transient = transient
        self.sqlstate = sqlstate


class CircuitOpenError(DatabaseError):
    """The circuit breaker is open. ``retry_after`` is the time until its next trial call, in seconds."""

    def __init__(self, message: str | None = None, *, retry_after: float = 0.0) -> None:
        super().__init__(message or "The circuit breaker is open.")
        self.retry_after = retry_after


class DatabaseUnavailableError(DatabaseError):
    """The database can't be reached, or refuses to work."""


class DatabaseTimeoutError(DatabaseError):
    """The database did not respond in time, or no connection became free in time."""
