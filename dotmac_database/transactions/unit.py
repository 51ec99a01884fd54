"""One block of work on one session: what it opens, and how it ends. Sync code, which serves both faces."""

from __future__ import annotations

from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from ..dialects import translated
from ..dialects.isolation import begin_options, set_timeouts
from ..dialects.transactions import ensure_begun
from ..errors import TransactionError
from ..sessions import commit, rollback, state_of
from .options import TransactionOptions


class Unit:
    """A `DatabaseTransaction` block on a sync session.

    Outermost, it owns the session's transaction (also one that earlier reads have opened) and commits it. Inside
    another block, or a transaction or savepoint that the user began by hand, it is a savepoint.
    """

    def __init__(self, session: Session, options: TransactionOptions | None, *, lazy: bool) -> None:
        self._session = session
        self._state = state_of(session)
        self._options = options or TransactionOptions()
        self._lazy = lazy
        self._savepoint: SessionTransaction | None = None
        self._counted = False
        self._open = False

    def begin(self) -> None:
        """Open what the block needs. Options are refused where it does not begin a transaction of its own."""
        with translated():
            nested = self._is_nested()
            self._check(nested)
            self._state.units += 1
            self._counted = self._open = True
            try:
                self._begin(nested)
            except BaseException:
                self.abandon()
                raise

    def succeed(self) -> None:
        """Commit, or release the savepoint. A failure rolls back and is raised as the toolkit's."""
        self._leave()
        if self._savepoint is None:
            commit(self._session)
        else:
            with translated():
                self._release(self._savepoint)
        self._open = False

    def abandon(self) -> None:
        """Roll back what the block has done, if it is still open. Never raises a database's error."""
        if not self._open:
            return
        self._open = False
        self._leave()
        if self._savepoint is None:
            rollback(self._session)
        elif not self._is_closed(self._savepoint):
            try:
                self._savepoint.rollback()
            except Exception:
                # The connection is gone, and the whole transaction with it: its owner finds out at its end.
                return

    def _is_nested(self) -> bool:
        transaction = self._session.get_transaction()
        if self._state.units or self._session.in_nested_transaction():
            return True
        return transaction is not None and transaction.origin is SessionTransactionOrigin.BEGIN

    def _check(self, nested: bool) -> None:
        given = self._options.given()
        if not given:
            return
        named = ", ".join(given)
        if self._lazy:
            raise TransactionError(f"{named}: a lazy block has no transaction of its own to set this on.")
        if nested or self._session.in_transaction():
            raise TransactionError(f"{named}: this can only be set where the transaction begins, and it has begun.")
        dialect = self._session.get_bind().dialect.name
        if dialect == "postgresql" or (
            dialect == "sqlite" and given == ["isolation_level"] and self._is_serializable()
        ):
            return
        raise TransactionError(f"{named}: {dialect} can't do this for one transaction.")

    def _is_serializable(self) -> bool:
        return self._options.isolation_level == "SERIALIZABLE"

    def _begin(self, nested: bool) -> None:
        session = self._session
        if nested:
            ensure_begun(session.connection())
            self._savepoint = session.begin_nested()
        elif self._lazy:
            self._state.lazy = True
        elif not session.in_transaction():
            session.begin()
            self._apply()

    def _apply(self) -> None:
        options, session = self._options, self._session
        begin = begin_options(
            isolation_level=options.isolation_level, read_only=options.read_only, deferrable=options.deferrable
        )
        timeouts = set_timeouts(statement=options.statement_timeout, lock=options.lock_timeout)
        if begin and session.get_bind().dialect.name == "postgresql":
            session.connection(execution_options=begin)
        if timeouts is not None:
            session.connection().execute(timeouts)

    def _release(self, savepoint: SessionTransaction) -> None:
        if self._is_closed(savepoint):
            raise TransactionError("The savepoint of this block was ended inside it, by a commit or rollback by hand.")
        if not savepoint.is_active:
            raise TransactionError("An earlier error has ended the savepoint of this block; it is rolled back.")
        savepoint.commit()

    def _is_closed(self, savepoint: SessionTransaction) -> bool:
        current = self._session.get_nested_transaction()
        while current is not None and current is not savepoint:
            current = current.parent
        return current is None

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._state.units -= 1
            if not self._state.units:
                self._state.lazy = False
