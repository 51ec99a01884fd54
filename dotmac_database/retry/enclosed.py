"""Whether an operation is part of an open transaction, so that it can't be retried by itself."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransactionOrigin

from ..dialects.isolation import may_have_written
from ..execution.state import state_of


def encloses(session: Session) -> bool:
    """Whether a retry would repeat only a part of the transaction that is open on ``session``.

    This is true in a `DatabaseTransaction` block, in an explicitly begun transaction, and in a savepoint. In a
    transaction that earlier statements have opened implicitly, it is true if the session has pending changes, or if the
    transaction may have changed rows. To find this out takes one statement on PostgreSQL.
    """
    if state_of(session).open_blocks:
        return True
    transaction = session.get_transaction()
    if transaction is None:
        return False
    if transaction.origin is not SessionTransactionOrigin.AUTOBEGIN or session.in_nested_transaction():
        return True
    return bool(session.new or session.dirty or session.deleted) or any(
        may_have_written(connection) for connection in transaction.connections
    )
