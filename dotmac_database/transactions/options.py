"""The options of one transaction."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from ..errors import ValidationError

IsolationLevel: TypeAlias = Literal["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
_LEVELS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


@dataclass(frozen=True, slots=True)
class TransactionOptions:
    """Settings for one transaction only. None and False: the database's configuration applies.

    ``isolation_level``, ``read_only`` and ``deferrable`` are part of BEGIN and cost no statement.
    ``statement_timeout`` and ``lock_timeout`` limit each statement, and ``idle_in_transaction_timeout`` each pause
    between two statements, in seconds; 0 disables a limit that the connection or the server has. Together they cost one
    statement. PostgreSQL supports all of them; SQLite only SERIALIZABLE, which its transactions always are. Raises
    `ValidationError` for an unknown level or a negative timeout.
    """

    isolation_level: IsolationLevel | None = None
    read_only: bool = False
    deferrable: bool = False
    statement_timeout: float | None = None
    lock_timeout: float | None = None
    idle_in_transaction_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.isolation_level is not None and self.isolation_level not in _LEVELS:
            raise ValidationError(f"isolation_level must be one of {', '.join(_LEVELS)}.", field="isolation_level")
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_timeout"):
            if (getattr(self, name) or 0) < 0:
                raise ValidationError(f"{name} must not be negative.", field=name)

    def names(self) -> list[str]:
        """The names of the options that are set."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return [name for name, value in values.items() if value is not None and value is not False]
