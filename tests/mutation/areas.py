"""The areas of the mutation tests: which modules are mutated, and which tests must notice."""

from __future__ import annotations

from typing import NamedTuple


class Area(NamedTuple):
    """``modules`` are files below ``dotmac_database``, separated by spaces; ``tests`` are arguments of pytest.

    The tests decide how long a run takes: each mutant that survives costs all that reach its function.
    """

    modules: str
    tests: str


AREAS = {
    "cursors": Area(
        "paging/cursors.py",
        "tests/property/test_cursors.py -k 'not forged_place and not ten_thousand and not the_helper'",
    ),
    "keyset": Area("statements/keyset.py", "tests/integration/test_keyset.py"),
    "filters": Area("statements/filters.py", "tests/unit/test_filters.py tests/unit/test_statements.py"),
    "transactions": Area(
        " ".join(
            f"transactions/{each}.py"
            for each in ("block", "sync_block", "hooks", "idempotency", "locks", "manager", "options")
        ),
        "tests/integration/transactions tests/faults/test_lost_commits.py tests/faults/test_cancellation.py "
        "tests/outbox/test_publishing.py tests/tenancy/test_left_behind.py tests/integration/test_single_writes.py",
    ),
    "tenancy": Area(
        " ".join(
            f"tenancy/guard/{each}.py" for each in ("compiler", "inserts", "orm_statements", "unit_of_work", "verdicts")
        ),
        " ".join(
            f"tests/tenancy/test_{each}.py"
            for each in (
                "verdicts",
                "bindings",
                "compiler",
                "reads",
                "writes",
                "left_behind",
                "raw_sql",
                "related_tenants",
            )
        )
        + " -k 'not async and not postgresql and not no_text_that_is_known and not no_known_function'",
    ),
}
