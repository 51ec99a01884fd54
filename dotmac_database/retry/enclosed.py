"""Whether an operation is part of an open transaction, so that it can't be retried by itself."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransactionOrigin

from ..dialects.isolation import may_have_written
from ..execution.state import state_of


def encloses(session: Session) -> bool:
    """Whether ``session`` is in a transaction of which a retry would repeat only a part.

    That is a `DatabaseTransaction` block, an explicitly begun transaction, a savepoint, or a transaction that earlier
    statements have opened, unless it has certainly written nothing (a check that costs one statement on PostgreSQL).
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
