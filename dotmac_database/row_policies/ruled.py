"""The policies of one table: a restrictive policy for each command, beside the policy of the tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Table

from ..dialects.policy_refusals import POLICIES_OF_RIGHTS
from ..errors import MisuseError, PolicyNotExpressibleError
from ..models.traits import Traits, traits_of
from ..policies.policy import Policy
from ..policies.rights import Right, Rule
from ..policies.symbols import ActorValue, Trace
from ..policies.watching import called
from ..tenancy.rls.policies import across_tenants, quoted
from ..tenancy.rls.row_policies import RowPolicy
from ..tenancy.rls.signature import actor_sql
from .compiling import Compiled, Reading, compiled, union
from .forms import quoted_text

RIGHT = "right"
"""The key of the setting under which a repository announces that an UPDATE deletes or restores rows."""


@dataclass(frozen=True)
class _Rules:
    read: Compiled
    create: Compiled
    update: Compiled
    stored: Compiled
    delete: Compiled

    @property
    def all(self) -> tuple[Compiled, ...]:
        return self.read, self.create, self.update, self.stored, self.delete


class RuledTable:
    """The rules of one model as policies of its table. ``signed``: the settings are signed.

    Raises `PolicyNotExpressibleError` if they can't be policies, and names the model, the right and the actor's value.
    """

    def __init__(self, policy: Policy[Any], *, all_tenants: bool, signed: bool) -> None:
        self.policy = policy
        self.traits: Traits[Any] = traits_of(policy.model)
        self.table = self._own_table()
        self._all_tenants, self._signed = all_tenants, signed

    def _own_table(self) -> Table:
        mapper = self.traits.mapper
        tables = {table for each in mapper.base_mapper.self_and_descendants for table in each.tables}
        if mapper.base_mapper is not mapper:
            reason = f"it is a subclass of {mapper.base_mapper.class_.__name__}, whose rows are in the same tables"
        elif len(tables) > 1 or not isinstance(mapper.local_table, Table):
            reason = "the rows of the model and of its subclasses are not in one table"
        else:
            return mapper.local_table
        raise PolicyNotExpressibleError(
            f"The policy of {self.traits.name} can't be a policy of the database: {reason}.", field="policies"
        )

    @cached_property
    def _rules(self) -> _Rules:
        policy = self.policy
        return _Rules(
            read=self._compiled("read", lambda actor: policy.rule(Right.READ, actor)),
            create=self._compiled("create", lambda actor: policy.stored_rule(Right.CREATE, actor)),
            update=self._compiled("update", lambda actor: policy.rule(Right.UPDATE, actor)),
            stored=self._compiled("update", lambda actor: policy.stored_rule(Right.UPDATE, actor)),
            delete=self._compiled("delete", lambda actor: policy.rule(Right.DELETE, actor)),
        )

    def _compiled(self, right: str, rule: Any) -> Compiled:
        trace = Trace(f"{self.traits.name}: {right}")
        written: Rule = called(lambda: rule(ActorValue(trace)), trace)
        return compiled(written, self.traits, trace, signed=self._signed)

    @property
    def restricts_reads(self) -> bool:
        """Whether some actors can't read some rows of the tenant."""
        return self._rules.read.sql != "true"

    @cached_property
    def announces_deletion(self) -> bool:
        """Whether an UPDATE that deletes or restores rows is ruled otherwise than other UPDATEs."""
        rules = self._rules
        return self.traits.deletion_mark is not None and (
            rules.delete.sql != rules.update.sql or rules.stored.sql != rules.update.sql
        )

    @property
    def readings(self) -> Mapping[str, Reading]:
        """The values of the actor that the policies read."""
        return union(each.readings for each in self._rules.all)

    def reads(self, *, only_select: bool = False) -> dict[str, Mapping[Table, bool]]:
        """The tables that the rules' subselects read, by right: see `Compiled.tables`."""
        rules = self._rules
        tables = {"read": rules.read.tables}
        if not only_select:
            tables |= {"create": rules.create.tables, "update": rules.update.tables, "delete": rules.delete.tables}
            tables["update of the stored row"] = rules.stored.tables
        return tables

    @cached_property
    def policies(self) -> list[RowPolicy]:
        """The policies: of SELECT, INSERT, UPDATE and DELETE."""
        rules = self._rules
        read, update, delete = rules.read.sql, rules.update.sql, rules.delete.sql
        changed, stored = _all(read, update), rules.stored.sql
        if self.announces_deletion:
            right = actor_sql(quoted_text(RIGHT), signed=self._signed)
            deletes = f"CASE WHEN {right} = '{Right.DELETE.value}'"
            changed = f"{_grouped(read)} AND {deletes} THEN {_grouped(delete)} ELSE {_grouped(update)} END"
            stored = f"{deletes} THEN true ELSE {_grouped(stored)} END"
        return [
            RowPolicy(POLICIES_OF_RIGHTS["SELECT"], "SELECT", self._admitted(read), None),
            RowPolicy(POLICIES_OF_RIGHTS["INSERT"], "INSERT", None, self._admitted(rules.create.sql)),
            RowPolicy(POLICIES_OF_RIGHTS["UPDATE"], "UPDATE", self._admitted(changed), self._admitted(stored)),
            RowPolicy(POLICIES_OF_RIGHTS["DELETE"], "DELETE", self._admitted(_all(read, delete)), None),
        ]

    def _admitted(self, condition: str) -> str:
        """A condition that also needs an actor, unless the session works across tenants."""
        if condition != "false":
            present = f"{actor_sql(signed=self._signed)} IS NOT NULL"
            condition = present if condition == "true" else f"{present} AND {_grouped(condition)}"
        return f"({condition}) OR {across_tenants(signed=self._signed)}" if self._all_tenants else condition

    def create_statements(self) -> list[str]:
        """The DDL that creates the policies. It can be run repeatedly."""
        return [statement for each in self.policies for statement in each.create(quoted(self.table))]

    def drop_statements(self) -> list[str]:
        """The DDL that drops the policies."""
        return drop_row_policies(quoted(self.table))

    def unenforced(self) -> Iterator[tuple[str, str]]:
        """What the policies can't carry: ``hidden`` or ``read_only``, and the columns in words."""
        for kind in ("hidden", "read_only"):
            trace = Trace(f"{self.traits.name}: {kind}")
            columns = getattr(self.policy, kind)
            try:
                names = called(lambda columns=columns, trace=trace: columns(ActorValue(trace)), trace)  # type: ignore[misc]  # mypy can't infer the lambda's defaults
            except PolicyNotExpressibleError:
                yield kind, "columns that depend on the actor"
                continue
            if names:
                yield kind, ", ".join(sorted(names))


def drop_row_policies(table: str) -> list[str]:
    """The DDL that drops the policies of rights on the table with this quoted name."""
    return [f"DROP POLICY IF EXISTS {name} ON {table}" for name in POLICIES_OF_RIGHTS.values()]


def ruled_tables(policies: Iterable[Policy[Any]], *, all_tenants: bool, signed: bool) -> dict[Table, RuledTable]:
    """The ruled tables. Raises `MisuseError` for two policies of one model: combine them by ``&`` or ``|``."""
    ruled: dict[Table, RuledTable] = {}
    for policy in policies:
        if not isinstance(policy, Policy):
            raise MisuseError(f"A Policy was expected, not {type(policy).__name__}.", field="policies")
        each = RuledTable(policy, all_tenants=all_tenants, signed=signed)
        if each.table in ruled:
            raise MisuseError(
                f"There are two policies of {each.traits.name}: combine them by & or |.", field="policies"
            )
        ruled[each.table] = each
    return ruled


def _all(*conditions: str) -> str:
    different = [each for each in dict.fromkeys(conditions) if each != "true"]
    if "false" in different:
        return "false"
    return different[0] if len(different) == 1 else " AND ".join(map(_grouped, different)) or "true"


def _grouped(condition: str) -> str:
    return condition if condition in ("true", "false") else f"({condition})"
