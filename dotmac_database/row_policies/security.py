"""`RowLevelSecurity`: the policies of PostgreSQL for tenants, and for the rights of actors within a tenant."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import Session

from ..errors import MisuseError
from ..execution.state import SettingsProvider
from ..policies.policy import Policy
from ..tenancy.rls.policies import protected_tables, quoted
from ..tenancy.rls.row_level_security import RowLevelSecurity as TenantRowLevelSecurity
from ..tenancy.rls.row_policies import RowPolicy
from ..tenancy.rls.signature import ACTOR_SETTING, Secret
from ..tenancy.rls.verification import Finding, Plan
from .announcing import actor_settings
from .compiling import union
from .related import check_related
from .ruled import RuledTable, ruled_tables


class RowLevelSecurity(TenantRowLevelSecurity):
    """Policies for the tenants' tables of ``metadata``. All methods are sync; use `AsyncConnection.run_sync`.

    ``policies`` are rules within a tenant, as for `bind_policies`: they become policies of PostgreSQL, which also rule
    raw SQL, Core statements and changes of objects that the session flushes. Each function is called once with a
    symbolic actor. It raises `PolicyNotExpressibleError` for a function that needs a value of the actor in Python, and
    for a rule that PostgreSQL can't have; the message names the model, the right and the value. The actor is the one of
    `bind_policies`. A session without an actor reads and writes no rows of these models, except in an `unscoped` block.

    ``all_tenants``: an `unscoped` session can access all tenants' rows; for this the policies read a second setting of
    the transaction. False: only roles with BYPASSRLS or with a policy of their own can; an `unscoped` session of any
    other role gets no rows. False also removes an OR from each policy, which helps the planner.

    ``secret``, of at least 16 bytes: the settings are signed, so that raw SQL can't name another tenant or actor. The
    policies accept a setting only if the database has verified its HMAC, and guarded sessions therefore allow any raw
    SQL. It requires `install_secret`, and an application role that does not own the tables. Use each secret for one
    database only. With several secrets the first one signs and all are accepted, so that a secret can be rotated:
    ``secret=(new, old)``. Without a secret, whoever can send arbitrary SQL can set any tenant; guarded sessions
    therefore refuse raw SQL unless its structure is known to be harmless.

    ``harmless_functions``: names of your own functions, or of an extension's, that raw SQL may call. A name includes
    the schema if the SQL writes the schema. The functions must neither run SQL from their arguments nor change
    settings. Name them with a secret too: after a call of a function that is not known, the connection is replaced
    before it serves another session.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        policies: Iterable[Policy[Any]] = (),
        all_tenants: bool = True,
        secret: Secret = None,
        harmless_functions: Collection[str] = (),
    ) -> None:
        super().__init__(metadata, all_tenants=all_tenants, secret=secret, harmless_functions=harmless_functions)
        self.policies = tuple(policies)
        if self.policies:
            self.settings = (*self.settings, ACTOR_SETTING)

    @cached_property
    def _ruled(self) -> Mapping[Table, RuledTable]:
        ruled = ruled_tables(self.policies, all_tenants=self.all_tenants, signed=self.signer is not None)
        protected = protected_tables(self.metadata) if ruled else {}
        for table, each in ruled.items():
            if protected.get(table) is None:
                raise MisuseError(
                    f"{each.traits.name} has a policy, but no tenant: row-level security protects only the tables of "
                    "tenants in its metadata.",
                    field="policies",
                )
            _ = each.policies
        check_related(ruled)
        union(each.readings for each in ruled.values())  # each value that is announced has one form
        return ruled

    def create_statements(self) -> list[str]:
        """The DDL that creates and enables the policies (ENABLE and FORCE, USING and WITH CHECK).

        The policies of rights are restrictive, one for each command, and come after those of the tenants. With a secret
        it first creates the functions that verify signatures, in the schema ``dotmac``. The secret itself is not in the
        statements, so they can be committed as a migration. Raises `PolicyNotExpressibleError`.
        """
        rules = [statement for each in self._ruled.values() for statement in each.create_statements()]
        return [*super().create_statements(), *rules]

    def drop_statements(self) -> list[str]:
        """The DDL that drops the policies. The schema ``dotmac`` stays, since other metadata can use its functions."""
        rules = [statement for each in self._ruled.values() for statement in each.drop_statements()]
        return [*rules, *super().drop_statements()]

    def row_policies(self) -> Mapping[Table, Sequence[RowPolicy]]:
        """The policies of actors' rights, by table. Raises `PolicyNotExpressibleError`."""
        return {table: ruled.policies for table, ruled in self._ruled.items()}

    def session_settings(self, session: Session, tenant: Callable[[], object]) -> tuple[SettingsProvider, ...]:
        """The settings of a guarded session's transactions beside those of the tenant, which ``tenant()`` returns."""
        if not self._ruled:
            return ()
        readings = union(each.readings for each in self._ruled.values())
        with_rights = any(each.announces_deletion for each in self._ruled.values())
        return (actor_settings(session, tenant, readings, self.signer, with_rights=with_rights),)

    def _unenforced(self) -> Iterator[Finding]:
        """A finding for each kind of columns that a policy rules."""
        for ruled in self._ruled.values():
            for kind, columns in ruled.unenforced():
                yield Finding(
                    f"{ruled.traits.name}: {kind}",
                    f"policies of PostgreSQL rule rows, not columns: only repositories know that {columns} "
                    f"{'are' if ' ' in columns else 'is'} {kind.replace('_', '-')} there",
                    "accept this finding, or revoke the column from roles that send SQL by hand",
                )

    def _plan(self) -> Plan:
        """The expected state of the database."""
        rules = {
            table: [each.statement(quoted(table)) for each in ruled.policies] for table, ruled in self._ruled.items()
        }
        return replace(super()._plan(), rules=rules)
