"""The outbox in its database: the transactions of a relay, each of them short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from ..dialects.features import has_policies
from ..dialects.queueing import hides_rows, isolation_of_queue, limit_transaction, lock_queue, shares_connection
from ..engines import Database
from ..errors import MisuseError
from ..retry.transient import as_toolkit_errors
from ..tenancy.rls.policies import POLICY
from ..tenancy.rls.row_level_security import RowLevelSecurity, announce_tenant
from .claims import Claimed, Outcome, claim, dead_letters, record, release_all, renew, requeue
from .message import DeadLetter

T = TypeVar("T")


class OutboxStore:
    """The outbox ``table`` of a database, for a relay whose claims last ``lease`` seconds.

    ``rls``: each transaction is opened to all tenants' rows. All methods raise the toolkit's exceptions.
    """

    def __init__(self, database: Database, table: Table, lease: float, rls: RowLevelSecurity | None) -> None:
        self.table = table
        self.lease = lease
        self._database = database
        self._rls = rls

    @property
    def engine(self) -> AsyncEngine:
        """The database's async engine."""
        return self._database.async_engine

    async def check(self) -> None:
        """Raise `MisuseError` if the messages can't be relayed from this database by this role."""
        if shares_connection(self.engine.sync_engine):
            raise MisuseError("A relay needs a connection of its own, and an SQLite database in memory has only one.")
        crosses = self._rls is not None and self._rls.all_tenants
        if not crosses and await self._run(lambda connection: hides_rows(connection, self.table, POLICY)):
            raise MisuseError(
                f"Row-level security hides the messages of {self.table.fullname} from the relay. Give it a role with "
                "BYPASSRLS or with a policy of its own, or OutboxRelay(rls=…) with policies made with all_tenants=True."
            )

    async def claim(self, claim_id: UUID, batch: int) -> list[Claimed]:
        """Claim up to ``batch`` messages, in order. The claims of all relays of the table wait for each other."""

        def work(connection: Connection) -> list[Claimed]:
            lock_queue(connection, self.table)
            return claim(connection, self.table, claim_id, batch=batch, lease=self.lease)

        return await self._run(work)

    async def record(self, outcomes: Sequence[Outcome], renewed: Sequence[UUID]) -> int:
        """Record outcomes, and renew claims. Returns the number of outcomes that came too late."""

        def work(connection: Connection) -> int:
            late = record(connection, self.table, outcomes) if outcomes else 0
            if renewed:
                renew(connection, self.table, renewed, lease=self.lease)
            return late

        return await self._run(work)

    async def release(self, claims: Sequence[UUID]) -> None:
        """Release what the claims still hold."""

        def work(connection: Connection) -> None:
            for claim_id in claims:
                release_all(connection, self.table, claim_id)

        await self._run(work)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """The messages that were given up, the oldest first."""
        return await self._run(lambda connection: dead_letters(connection, self.table, limit))

    async def requeue(self, ids: Sequence[UUID]) -> int:
        """Let dead letters be delivered again, and return their number."""
        return await self._run(lambda connection: requeue(connection, self.table, ids))

    async def _run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of its own, which the server ends if this process stops in the middle of it."""
        options = isolation_of_queue(self.engine.dialect.name)
        with as_toolkit_errors():
            async with self.engine.execution_options(**options).begin() as connection:
                return await connection.run_sync(self._opened, work)

    def _opened(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        limit_transaction(connection, self.lease)
        if self._rls is not None and has_policies(connection.dialect.name):
            announce_tenant(connection, None, across=True, signer=self._rls.signer)
        return work(connection)
