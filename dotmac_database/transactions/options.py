"""The options of one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import ValidationError

IsolationLevel: TypeAlias = Literal["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
_LEVELS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


@dataclass(frozen=True, slots=True)
class TransactionOptions:
    """Settings for one transaction only. An option that is None or False leaves the database's configuration as it is.

    ``isolation_level``, ``read_only`` and ``deferrable`` are part of BEGIN and cost no statement. The timeouts are in
    seconds: ``statement_timeout`` and ``lock_timeout`` limit each statement, and ``idle_in_transaction_timeout`` limits
    each pause between two statements. 0 disables a limit that the connection or the server has. The timeouts that are
    set cost one statement together.

    PostgreSQL supports all options. SQLite supports only the level SERIALIZABLE, which its transactions always have.
    Raises `ValidationError` for an unknown level or a negative timeout.
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
        return [name for name in self.__slots__ if getattr(self, name) is not None and getattr(self, name) is not False]
