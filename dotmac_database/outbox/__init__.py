"""The outbox: messages that are written in the transaction of the work they tell of, and delivered afterwards."""

from .message import DeadLetter, OutboxMessage
from .publishing import publish
from .relay import OutboxRelay
from .table import outbox_table

__all__ = ["DeadLetter", "OutboxMessage", "OutboxRelay", "outbox_table", "publish"]
