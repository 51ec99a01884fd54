"""Whether an operation is only a part of a transaction, so that it can't be run again by itself."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransactionOrigin

from ..dialects.isolation import may_have_written
from ..sessions import state_of


def encloses(session: Session) -> bool:
    """Whether a transaction of ``session`` has begun that a retry would tear.

    That is a `DatabaseTransaction` block, one begun explicitly, a savepoint, or one that reads or writes by hand
    have opened, unless it has certainly written nothing (which costs one statement on PostgreSQL).
    """
    if state_of(session).units:
        return True
    transaction = session.get_transaction()
    if transaction is None:
        return False
    if transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or session.in_nested_transaction():
        return True
    return bool(session.new or session.dirty or session.deleted) or any(
        may_have_written(connection) for connection in transaction.connections
    )
