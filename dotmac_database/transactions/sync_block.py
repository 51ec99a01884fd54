"""The implementation of a `DatabaseTransaction` block on a sync session, which sync and async blocks share."""

from __future__ import annotations

import logging

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from ..dialects import translated
from ..dialects.features import has_transaction_settings, is_always_serializable
from ..dialects.isolation import begin_options, set_timeouts
from ..dialects.own_statements import OWN
from ..dialects.transactions import connections_of
from ..errors import TransactionError
from ..execution.state import Held, loaded_values, refuse_ended, restore_values, sole_bind, state_of
from ..execution.work import begin_for_savepoint, commit, refuse_aborted, refuse_in_use, rollback
from .hooks import awaits_commit
from .options import TransactionOptions

_log = logging.getLogger(__name__)
_NO_OPTIONS = TransactionOptions()


class SyncBlock:
    """A `DatabaseTransaction` block on a sync session.

    The outermost block commits the session's transaction, even if earlier statements have opened it implicitly. A
    block is a savepoint instead if it is inside another block, or inside a transaction or savepoint that the user has
    begun explicitly. With ``nested``, it is a savepoint inside any transaction. With ``lazy``, the outermost block
    begins nothing: its first write begins the transaction.
    """

    def __init__(
        self,
        session: Session,
        options: TransactionOptions | None,
        *,
        lazy: bool,
        nested: bool,
        savepoints: bool,
    ) -> None:
        self._session = session
        self._savepoints = savepoints
        self._outer_savepoints = True
        self._state = state_of(session)
        self._options = options or _NO_OPTIONS
        self._option_names = () if options is None else options.names()
        self._lazy = lazy
        self._always_nested = nested
        self._nested = False
        # The transaction or savepoint. None before `begin`, and in a lazy block that is not a savepoint.
        self._owned: SessionTransaction | None = None
        self._counted = False
        self._open = False
        self._held: list[Held] = []

    def begin_silently(self) -> bool:
        """Begin the block if that sends nothing, and return whether it has begun."""
        if self._option_names or self._is_inside():
            return False
        self._begin_at(nested=False)
        return True

    @property
    def has_nothing_to_commit(self) -> bool:
        """Whether `succeed` will send no statement and call no callback, because nothing was begun."""
        return not self._session.in_transaction() and not awaits_commit(self._session)

    def begin(self) -> None:
        """Begin the transaction or savepoint. Raises `TransactionError` for options that can't be set at this point."""
        self._begin_at(nested=self._is_inside())

    def _begin_at(self, *, nested: bool) -> None:
        refuse_ended(self._session)
        self._nested = nested
        if self._option_names:
            with translated():
                self._check_options()
        self._state.open_blocks += 1
        self._outer_savepoints, self._state.savepoints = self._state.savepoints, self._savepoints
        self._counted = self._open = True
        # A rollback expires loaded attributes. An AsyncSession could not load them again implicitly.
        holds = self._state.asynchronous and len(self._session.identity_map) > 0
        self._held = loaded_values(self._session) if holds else []
        if self._lazy and not self._nested:
            self._state.lazy = True
            return
        with translated():
            try:
                self._owned = self._begin()
            except BaseException:
                self.abandon()
                raise

    def succeed(self) -> None:
        """Commit, or release the savepoint. If this raises an exception, call `abandon`."""
        refuse_ended(self._session)
        if self._always_nested:
            self._own_next_transaction()
        if not self._nested and self.has_nothing_to_commit:
            self._leave()
            self._open = False
            return
        if not self._nested:
            # This is checked before `_leave` closes the block: after that, a write of another task with ``auto_commit``
            # would commit the session's transaction.
            refuse_in_use(self._session)
        self._leave()
        with translated():
            if self._nested:
                self._release()
            else:
                if self._owned is not None:
                    self._check_not_ended()
                commit(self._session)
        self._open = False

    def abandon(self) -> None:
        """Roll back the block's work, if its transaction is still open. Never raises an error of the database."""
        if not self._open:
            return
        self._open = False
        self._own_next_transaction()
        try:
            if self._nested:
                self._undo_savepoint()
            else:
                rollback(self._session)
        finally:
            self._leave()
        restore_values(self._session, self._held)

    def _undo_savepoint(self) -> None:
        if self._is_closed():
            return
        try:
            self._owned.rollback()  # type: ignore[union-attr]  # None counts as closed
        except Exception:  # noqa: BLE001  # it must not replace the exception that leaves the block
            # The connection is lost, and so is the whole transaction. Its owner gets an error at the commit.
            _log.info("A savepoint could not be rolled back", exc_info=True)

    def _own_next_transaction(self) -> None:
        """Let a ``nested`` block own the session's next transaction if its savepoint has ended.

        An explicit commit or rollback inside the block has ended the savepoint together with the outer transaction.
        """
        outermost = self._state.open_blocks == int(self._counted)  # no other block is open
        if self._always_nested and outermost and self._owned is not None and self._nested and self._is_closed():
            self._nested, self._owned = False, None

    def _is_inside(self) -> bool:
        transaction = self._session.get_transaction()
        if self._state.open_blocks or transaction is None:
            return bool(self._state.open_blocks)
        if self._always_nested or self._session.in_nested_transaction():
            return True
        return transaction.origin is SessionTransactionOrigin.BEGIN

    def _check_options(self) -> None:
        options = self._option_names
        if not options:
            return
        named = ", ".join(options)
        if self._lazy:
            raise TransactionError(f"{named}: a lazy block can't set this, since it does not begin a transaction.")
        bind = sole_bind(self._session)
        outside = isinstance(bind, Connection) and bind.in_transaction()
        if self._nested or outside or self._session.in_transaction():
            raise TransactionError(f"{named}: this can only be set when a transaction begins, and it has begun.")
        dialect = bind.dialect.name
        serializable = self._options == TransactionOptions(isolation_level="SERIALIZABLE")
        needless = serializable and is_always_serializable(dialect)
        if not has_transaction_settings(dialect) and not needless:
            raise TransactionError(f"{named}: {dialect} can't do this for one transaction.")

    def _begin(self) -> SessionTransaction | None:
        session = self._session
        if self._nested:
            refuse_aborted(connections_of(session))
            begin_for_savepoint(session)
            return session.begin_nested()
        if session.in_transaction():
            return session.get_transaction()
        transaction = session.begin()
        if self._option_names and has_transaction_settings(sole_bind(session).dialect.name):
            self._apply()
        return transaction

    def _apply(self) -> None:
        options, session = self._options, self._session
        begin = begin_options(
            isolation_level=options.isolation_level, read_only=options.read_only, deferrable=options.deferrable
        )
        timeouts = set_timeouts(
            statement=options.statement_timeout, lock=options.lock_timeout, idle=options.idle_in_transaction_timeout
        )
        connection = session.connection(bind_arguments={"bind": sole_bind(session)}, execution_options=begin)
        if timeouts is not None:
            # Marked as the toolkit's own: guarded sessions refuse set_config, which could change the tenant.
            connection.execute(timeouts, execution_options={OWN: True})

    def _check_not_ended(self) -> None:
        """Raise `TransactionError` if an explicit commit or rollback has ended the block's transaction."""
        if self._session.get_transaction() is not self._owned:
            raise TransactionError(
                "The transaction of this block was ended inside it by an explicit commit or rollback; "
                "later work in the block is rolled back."
            )

    def _release(self) -> None:
        savepoint = self._owned
        if savepoint is None or self._is_closed():
            raise TransactionError("The savepoint of this block was ended inside it by an explicit commit or rollback.")
        if not savepoint.is_active:
            raise TransactionError("An earlier error has ended the savepoint of this block; it is rolled back.")
        refuse_aborted(connections_of(self._session))
        savepoint.commit()

    def _is_closed(self) -> bool:
        current = self._session.get_nested_transaction()
        while current is not None and current is not self._owned:
            current = current.parent
        return current is None

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._state.open_blocks -= 1
            self._state.savepoints = self._outer_savepoints
            if not self._state.open_blocks:
                self._state.lazy = False
