"""Callbacks after a transaction, `on_commit` and `on_rollback`, and values that are written directly before COMMIT."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_
from sqlalchemy.util.concurrency import in_greenlet

from ..dialects import translated
from ..errors import ValidationError
from ..execution.state import AnySession, refuse_ended, refuse_write, state_of, sync_session
from ..sqlalchemy_internals import autobegin, has_nothing_to_flush
from ..tenancy.context import TenantBinding, binding_of, with_registered_tenant

Callback = Callable[[], Any]
Write = Callable[[Session, Sequence[Any]], None]
"""Writes values in a session's transaction."""

_log = logging.getLogger(__name__)
_INFO = "dotmac_database.hooks"


@dataclass(frozen=True, slots=True)
class _Registered:
    """A callback, with the tenant that the session had when the callback was registered."""

    callback: Callback
    tenant: Any


@dataclass(slots=True)
class _Waiting:
    """The callbacks of one transaction or savepoint, and the values that `write_before_commit` was called with."""

    commit: list[_Registered] = field(default_factory=list)
    rollback: list[_Registered] = field(default_factory=list)
    values: list[tuple[Write, Any]] = field(default_factory=list)

    def written(self) -> dict[Write, list[Any]]:
        """The values of each function that writes them, in the order of the calls. They wait no longer."""
        values, self.values = self.values, []
        by_function: dict[Write, list[Any]] = {}
        for write, value in values:
            by_function.setdefault(write, []).append(value)
        return by_function


@dataclass(slots=True)
class _Hooks:
    """The callbacks of one session, for each open transaction or savepoint.

    ``early`` has those that wait for the next transaction.
    """

    waiting: dict[SessionTransaction, _Waiting] = field(default_factory=dict)
    early: _Waiting = field(default_factory=_Waiting)
    committing: set[SessionTransaction | None] = field(default_factory=set)
    committed: set[SessionTransaction | None] = field(default_factory=set)

    def wait(self) -> bool:
        """Whether a callback, or a value to be written, waits for a commit."""
        return bool(self.early.commit) or any(each.commit or each.values for each in self.waiting.values())


def on_commit(session: AnySession, callback: Callback) -> None:
    """Call ``callback`` after the current transaction of ``session`` is committed.

    Callbacks are called in the order of registration, after the outermost COMMIT, whoever sends it, and after the
    connection is returned to the pool. A callback is not called if the transaction is rolled back, or the savepoint in
    which it was registered. Without an open transaction, the callback waits for the session's next transaction.

    The callback may use the session, which then begins a new transaction. For an `AsyncSession` the callback may be a
    coroutine function. Its exceptions are logged, since the transaction is already committed. A guarded session can't
    change its tenant while a callback waits, and is bound to this tenant while the callback runs. Sends no statement.
    """
    _register(sync_session(session), callback, "commit")


def on_rollback(session: AnySession, callback: Callback) -> None:
    """Call ``callback`` after the current transaction or savepoint of ``session`` is rolled back.

    A COMMIT that fails is a rollback too. If the connection is lost during COMMIT, the outcome is unknown, and neither
    kind of callback is called. The callback must not use the session. Everything else is as for `on_commit`.
    """
    _register(sync_session(session), callback, "rollback")


def write_before_commit(session: AnySession, write: Write, value: object) -> None:
    """Have ``write(session, values)`` called directly before the COMMIT of the session's transaction, with all values.

    ``values`` are those of all calls with the same function, in the order of the calls, without those of savepoints
    that were rolled back. The call is after the flush, so its statements are the last ones of the transaction, which is
    begun here if none is open. If the COMMIT has begun, as in a listener to its flush, the value is written at once. No
    statement is sent now.
    """
    plain = sync_session(session)
    refuse_ended(plain)
    if state_of(plain).read_only:
        refuse_write()
    autobegin(plain)
    waiting = _waiting(plain, binding_of(plain))
    hooks: _Hooks = plain.info[_INFO]
    if plain.get_transaction() in hooks.committing and not plain.in_nested_transaction():
        write(plain, [value])
    else:
        waiting.values.append((write, value))


def awaits_commit(session: Session) -> bool:
    """Whether a callback waits for the next transaction, so that even an empty transaction must be committed."""
    hooks: _Hooks | None = session.info.get(_INFO)
    return hooks is not None and bool(hooks.early.commit)


def has_callbacks(session: Session) -> bool:
    """Whether a callback was ever registered on the session."""
    return _INFO in session.info


def _register(session: Session, callback: Callback, end: Literal["commit", "rollback"]) -> None:
    if not callable(callback):
        raise ValidationError("The callback must be a function that can be called without arguments.")
    refuse_ended(session)
    binding = binding_of(session)
    registered = _Registered(callback, None if binding is None else binding.tenant)
    waiting = _waiting(session, binding)
    (waiting.commit if end == "commit" else waiting.rollback).append(registered)


def _waiting(session: Session, binding: TenantBinding | None) -> _Waiting:
    hooks: _Hooks | None = session.info.get(_INFO)
    if hooks is None:
        hooks = session.info[_INFO] = _Hooks()
        if binding is not None:
            binding.waits = hooks.wait
        event.listen(session, "after_transaction_create", _created)
        event.listen(session, "before_commit", _commits)
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_rollback", _rolled_back)
        event.listen(session, "after_transaction_end", _ended)
    transaction = _current(session)
    return hooks.early if transaction is None else hooks.waiting.setdefault(transaction, _Waiting())


def _created(session: Session, transaction: SessionTransaction) -> None:
    hooks: _Hooks = session.info[_INFO]
    if transaction.parent is None and not state_of(session).reading_alone:
        hooks.waiting[transaction], hooks.early = hooks.early, _Waiting()


def _commits(session: Session) -> None:
    # SQLAlchemy fires before_commit and after_commit also when a savepoint is released. If an outer transaction is
    # committed whose savepoints are open, both events of before_commit have the innermost savepoint.
    hooks: _Hooks = session.info[_INFO]
    current = _current(session)
    if not session.in_nested_transaction() or current in hooks.committing:
        _write_values(session, hooks, current)
    hooks.committing.add(current)


def _write_values(session: Session, hooks: _Hooks, innermost: SessionTransaction | None) -> None:
    open_ones = [] if innermost is None else [innermost]
    while open_ones and open_ones[0].parent is not None:
        open_ones.insert(0, open_ones[0].parent)
    levels = [hooks.waiting[each] for each in open_ones if each in hooks.waiting]
    with translated():
        while any(each.values for each in levels):
            if not has_nothing_to_flush(session):
                session.flush()  # listeners to the flush can add values, too
            for level in levels:
                for write, values in level.written().items():
                    write(session, values)


def _committed(session: Session) -> None:
    hooks: _Hooks = session.info[_INFO]
    hooks.committing.discard(_current(session))
    hooks.committed.add(_current(session))


def _rolled_back(session: Session) -> None:
    transaction = _current(session)
    if transaction is not None and not any(connection.invalidated for connection in transaction.connections):
        session.info[_INFO].committing.discard(transaction)


def _ended(session: Session, transaction: SessionTransaction) -> None:
    hooks: _Hooks = session.info[_INFO]
    waiting = hooks.waiting.pop(transaction, None)
    committed, unknown = transaction in hooks.committed, transaction in hooks.committing
    hooks.committed.discard(transaction)
    hooks.committing.discard(transaction)
    if waiting is None:
        return
    outer = _current(session)
    if committed and outer is not None:
        later = hooks.waiting.setdefault(outer, _Waiting())
        later.commit += waiting.commit
        later.rollback += waiting.rollback
        later.values += waiting.values
    elif committed:
        _call(session, waiting.commit)
    elif unknown and outer is None:
        _log.warning("It is unknown whether a transaction was committed; none of its callbacks is called")
    else:
        _call(session, waiting.rollback)


_listener: Any
for _listener in (_created, _ended):
    _listener.dotmac_internal = True  # see `dotmac_database.departures`: a read without a transaction has no callbacks


def _current(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def _call(session: Session, callbacks: list[_Registered]) -> None:
    for each in callbacks:
        try:
            with with_registered_tenant(session, each.tenant):
                result = each.callback()
                if inspect.isawaitable(result):
                    _await(result)
        except Exception:  # noqa: BLE001 - the transaction has ended, so nobody could handle it
            _log.exception("A callback of a finished transaction failed: %r", each.callback)


def _await(result: Any) -> None:
    if in_greenlet():
        await_(result)
        return
    if inspect.iscoroutine(result):
        result.close()
    raise ValidationError("A coroutine function can be the callback of an AsyncSession alone.")
