"""The rules that lead through relationships: PostgreSQL applies the policies of the related tables there too.

So a related row counts only if the actor may read it, while in a repository's statements it counts anyway. The
database is then stricter, which is allowed, unless the rule needs that a related row does not exist: then a row that is
hidden would admit more. And two tables whose policies read each other can't be read at all: PostgreSQL raises "infinite
recursion detected in policy".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Table

from ..errors import PolicyNotExpressibleError
from ..tenancy.rls.policies import parents_of, protected_tables
from .ruled import RuledTable


def check_related(ruled: Mapping[Table, RuledTable]) -> None:
    """Raise `PolicyNotExpressibleError` for a rule that would admit more rows in the database, and for a recursion."""
    checks = _Related(ruled)
    for table in ruled:
        checks.check_absence(ruled[table])
    for table in checks.protected:
        checks.check_recursion(table)


class _Related:
    def __init__(self, ruled: Mapping[Table, RuledTable]) -> None:
        self._ruled = ruled
        metadatas = {table.metadata: None for table in ruled}
        self.protected = {table: column for each in metadatas for table, column in protected_tables(each).items()}

    def check_absence(self, ruled: RuledTable) -> None:
        for right, tables in ruled.reads().items():
            for table, only_refuses in tables.items():
                if not only_refuses and self._restricts(table):
                    raise PolicyNotExpressibleError(
                        f"{ruled.traits.name}: {right} can't be a policy of the database: it depends on which rows of "
                        f"{table.name} do not exist, and there the actor can't see those that he may not read.",
                        field="policies",
                    )

    def _restricts(self, table: Table) -> bool:
        """Whether some actors can't read some rows of the table: by its own rule, or since it hangs on such a table."""
        if table in self._ruled:
            return self._ruled[table].restricts_reads
        return any(map(self._restricts, self._parents(table)))

    def _parents(self, table: Table) -> list[Table]:
        return parents_of(table, self.protected) if self.protected.get(table, table) is None else []

    def _read_by(self, table: Table, *, only_select: bool) -> Iterator[Table]:
        yield from self._parents(table)
        if table in self._ruled:
            for tables in self._ruled[table].reads(only_select=only_select).values():
                yield from tables

    def check_recursion(self, table: Table) -> None:
        """Follow what the policies of a table read, and what the policies of those tables read."""
        ways: list[tuple[Table, tuple[Table, ...]]] = [
            (each, (table,)) for each in self._read_by(table, only_select=False)
        ]
        visited = set[Table]()
        while ways:
            last, way = ways.pop()
            if last is table:
                names = " → ".join(each.name for each in (*way, table))
                raise PolicyNotExpressibleError(
                    f"The policies of {table.name} can't be policies of the database: they read {names}, and "
                    'PostgreSQL would raise "infinite recursion detected in policy".',
                    field="policies",
                )
            if last not in visited:
                visited.add(last)
                ways += [(each, (*way, last)) for each in self._read_by(last, only_select=True)]
