"""``dotmac-db tenants`` and the library behind it: which tenants there are, and exactly what they have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, MetaData, func, insert, inspect, select, text
from sqlalchemy.orm import Session

from dotmac_database import Database, PermissionDeniedError, RowLevelSecurity, create_database, idempotency_metadata
from dotmac_database.usage import TableKind, Usage, find_tenants, measure
from dotmac_database.usage import presence as presence_module
from tests.cli import extended
from tests.cli.shop import Base, User, closed, rls, ruled, signed
from tests.conftest import counted
from tests.tenancy import models as shapes
from tests.tenancy.conftest import fill as fill_shapes

from .conftest import APP, NOW, Run, fill

ROWS = {
    "a": {"shop_tags": 1, "shop_users": 1, "shop_orders": 1, "shop_order_tags": 1, "shop_users_history": 1},
    "b": {"shop_tags": 1, "shop_users": 2, "shop_orders": 1, "shop_order_tags": 1, "shop_users_history": 2},
}
MESSAGES = {None: 1, "a": 1, "b": 2}


def rows_of(usage: Usage) -> dict[str | None, dict[str, int]]:
    return {each.tenant: {table.table: table.rows for table in each.tables} for each in usage.tenants}


EXPECTED = {tenant: ROWS.get(tenant or "", {}) | {"dotmac_outbox": number} for tenant, number in MESSAGES.items()}


@pytest.fixture
def database(shop_url: str) -> Iterator[Database]:
    result = create_database(shop_url)
    yield result
    result.dispose()


def test_each_tenant_has_its_rows(database: Database, dialect: str) -> None:
    with database.engine.connect() as connection:
        usage = measure(connection, [Base.metadata])
        assert rows_of(usage) == EXPECTED
        assert (usage.absent, usage.unattributed) == ((), ())
        for tenant in "ab":
            one = measure(connection, [Base.metadata], tenant=tenant)
            assert rows_of(one) == {tenant: EXPECTED[tenant]}
        assert rows_of(measure(connection, [Base.metadata], tenant="A")) == {"A": {}}
    a, b = usage.tenants[1:]
    assert (a.rows(), a.rows(TableKind.HISTORY), a.rows(TableKind.OUTBOX)) == (4, 1, 1)
    assert (b.rows(), b.rows(TableKind.HISTORY), b.rows(TableKind.OUTBOX)) == (5, 2, 2)
    assert a.oldest is not None
    assert a.oldest == a.newest
    assert a.oldest.tzinfo is UTC or a.oldest.utcoffset() is not None
    assert {each.kind for each in a.tables} == {TableKind.ROWS, TableKind.HISTORY, TableKind.OUTBOX}
    outbox = next(each for each in b.tables if each.kind is TableKind.OUTBOX)
    assert (outbox.oldest, outbox.newest) == (NOW, NOW)
    if dialect == "postgresql":
        assert a.bytes is not None
        assert b.bytes is not None
        assert 0 < a.bytes < b.bytes


def test_the_shares_of_all_tenants_are_the_whole_table(database: Database, dialect: str) -> None:
    if dialect == "sqlite":
        pytest.skip("not every SQLite knows the sizes of its tables")
    with database.engine.connect() as connection:
        usage = measure(connection, [Base.metadata])
        size = connection.scalar(text("SELECT pg_total_relation_size('shop_users')"))
        for tenant in usage.tenants[1:]:
            one = measure(connection, [Base.metadata], tenant=tenant.tenant).tenants[0]
            assert {each.table: each.bytes for each in one.tables} == {each.table: each.bytes for each in tenant.tables}
    shares = [each.bytes or 0 for tenant in usage.tenants for each in tenant.tables if each.table == "shop_users"]
    assert abs(sum(shares) - size) <= len(shares)


def test_the_commands_show_the_same_numbers(shop_url: str, run: Run) -> None:
    app = ("--app", f"{APP}:Base", "--url", shop_url)
    listed = run("tenants", "list", *app, "--json").document
    assert {each["tenant"]: set(each["tables"]) for each in listed["tenants"]} == {
        tenant: set(tables) - {"shop_order_tags"} for tenant, tables in EXPECTED.items()
    }
    document = run("tenants", "stats", *app, "--json").document
    assert {
        each["tenant"]: {table["table"]: table["rows"] for table in each["tables"]} for each in document["tenants"]
    } == EXPECTED
    assert [(each["rows"], each["history_rows"], each["outbox_rows"]) for each in document["tenants"]] == [
        (0, 0, 1), (4, 1, 1), (5, 2, 2),
    ]  # fmt: skip
    one = run("tenants", "stats", "b", *app, "--json").document["tenants"]
    assert one == document["tenants"][2:]
    assert "A has no rows in any table" in run("tenants", "stats", "A", *app).err
    assert "b has 9 rows." in run("tenants", "stats", "b", *app).out


def test_tables_that_the_database_lacks_are_named(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('partial')}/partial.db"
    database = create_database(url)
    Base.metadata.create_all(database.engine, tables=[User.__table__])  # type: ignore[list-item]
    idempotency_metadata.create_all(database.engine)
    with Session(database.engine) as session:
        session.add(User(tenant_id="a", name="ada"))
        session.execute(
            insert(idempotency_metadata.tables["dotmac_idempotency_keys"]),
            [{"tenant_id": tenant, "key": "k", "created_at": NOW} for tenant in ("", "a")],
        )
        session.commit()
    database.dispose()
    app = ("--app", f"{APP}:Base", "--url", url)
    for words in (("tenants", "list"), ("tenants", "stats"), ("tenants", "stats", "a")):
        ended = run(*words, *app, "--json")
        assert ended.code == 0
        assert set(ended.document["absent_tables"]) == {
            "dotmac_outbox", "shop_orders", "shop_order_tags", "shop_tags", "shop_users_history",
        }  # fmt: skip
        assert "The database does not have these tables of the models:" in ended.err
        assert [each["tenant"] for each in ended.document["tenants"]][-1] == "a"
    stats = run("tenants", "stats", *app, "--json").document["tenants"]
    assert [(each["tenant"], each["idempotency_rows"]) for each in stats] == [(None, 1), ("a", 1)]


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[Database]:
    database = create_database(postgres_url)
    Base.metadata.drop_all(database.engine)
    yield database
    Base.metadata.drop_all(database.engine)
    database.dispose()


def test_an_index_that_begins_with_the_tenant_is_skipped_through(empty_database: Database) -> None:
    """Some look-ups in the index for each tenant, however many rows it has; the other tables are read completely."""
    database = empty_database
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO shop_tags (tenant_id, name) SELECT 'many' || n %% 3, 'x' FROM generate_series(1, 30000) n"
        )
        connection.exec_driver_sql("ANALYZE shop_tags")
    with database.engine.connect() as connection, counted(database.engine) as sent:
        tenants = find_tenants(connection, [Base.metadata]).tenants
        read = connection.execute(
            text("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'shop_tags'")
        ).one()
    assert {"many0", "many1", "many2"} <= set(tenants)
    assert read.seq_tup_read == 0
    assert sum("RECURSIVE" in each for each in sent) == 2


ROLE, OWNER, BYPASS = "dotmac_usage_app", "dotmac_usage_owner", "dotmac_usage_admin"


@pytest.fixture(scope="module")
def server(postgres_server: str) -> Iterator[Database]:
    """A database whose tables belong to a role that their policies bind, as a superuser sees it."""
    name = f"usage_of_roles_{os.getpid()}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        for role, rights in ((ROLE, "NOBYPASSRLS"), (OWNER, "NOBYPASSRLS"), (BYPASS, "BYPASSRLS")):
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'dotmac' NOSUPERUSER {rights}".encode())
        connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}".encode())
    superuser = create_database(f"{postgres_server.rpartition('/')[0]}/{name}")
    owner = as_role(superuser, OWNER)
    with owner.engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS dotmac")
        Base.metadata.create_all(connection)
        connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}, {BYPASS}")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA dotmac TO {ROLE}, {BYPASS}")
    with Session(owner.engine) as session:
        fill(session)
        session.commit()
    owner.dispose()
    yield superuser
    superuser.dispose()
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def as_role(database: Database, role: str) -> Database:
    return create_database(database.url.set(username=role, password="dotmac"))


def policies_of(connection: Connection, policies: str) -> None:
    """Put the database's policies into this state."""
    for each in (ruled.rls, rls, signed):
        for statement in each.drop_statements():
            connection.exec_driver_sql(statement.replace("%", "%%"))
    for name in ("by_hand", "other_hand"):
        connection.exec_driver_sql(f"DROP POLICY IF EXISTS {name} ON shop_users")
    connection.exec_driver_sql(f"GRANT SELECT ON shop_users TO {ROLE}, {BYPASS}")
    match policies:
        case (
            "open"
            | "a rule by hand that ends alike"
            | "a policy by hand"
            | "a rule by hand"
            | "another role's rule"
            | "no grant"
        ):
            rls.apply(connection)
        case "ruled":
            ruled.rls.apply(connection)
        case "closed":
            closed.apply(connection)
        case "signed" | "signed by others":
            signed.apply(connection)
    match policies:
        case "a policy by hand":
            connection.exec_driver_sql("CREATE POLICY by_hand ON shop_users USING (name = 'nobody')")
        case "a rule by hand":
            connection.exec_driver_sql("CREATE POLICY by_hand ON shop_users AS RESTRICTIVE USING (name = 'ada')")
        case "a rule by hand that ends alike":
            across = "current_setting('dotmac.all_tenants', true) = 'on'"
            connection.exec_driver_sql(
                f"CREATE POLICY by_hand ON shop_users AS RESTRICTIVE USING (name = 'ada' AND (id = 0 OR {across}))"
            )
        case "another role's rule":
            connection.exec_driver_sql(
                f"CREATE POLICY by_hand ON shop_users AS RESTRICTIVE TO {BYPASS} USING (name = 'ada')"
            )
        case "no policy":
            connection.exec_driver_sql("ALTER TABLE shop_users ENABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql("ALTER TABLE shop_users FORCE ROW LEVEL SECURITY")
        case "no grant":
            connection.exec_driver_sql(f"REVOKE SELECT ON shop_users FROM {ROLE}, {BYPASS}")


HIDDEN = "hides rows of"
CELLS: dict[str, dict[str, str]] = {
    # policies: by role, what `tenants list` and `stats`, and what `stats a` say
    "none": {ROLE: "ok ok", OWNER: "ok ok", BYPASS: "ok ok"},
    "open": {ROLE: "ok ok", OWNER: "ok ok", BYPASS: "ok ok"},
    "ruled": {ROLE: "ok ok", OWNER: "ok ok", BYPASS: "ok ok"},
    "a rule by hand that ends alike": {ROLE: "hidden hidden", OWNER: "hidden hidden", BYPASS: "ok ok"},
    "closed": {ROLE: "hidden ok", OWNER: "hidden ok", BYPASS: "ok ok"},
    "signed": {ROLE: "ok ok", OWNER: "ok ok", BYPASS: "ok ok"},
    "signed by others": {ROLE: "hidden hidden", OWNER: "hidden hidden", BYPASS: "ok ok"},
    "a policy by hand": {ROLE: "ok ok", OWNER: "ok ok", BYPASS: "ok ok"},
    "a rule by hand": {ROLE: "hidden hidden", OWNER: "hidden hidden", BYPASS: "ok ok"},
    "another role's rule": {ROLE: "ok ok", OWNER: "ok ok", BYPASS: "ok ok"},
    "no policy": {ROLE: "hidden hidden", OWNER: "hidden hidden", BYPASS: "ok ok"},
    "no grant": {ROLE: "denied denied", OWNER: "ok ok", BYPASS: "denied denied"},
}
MESSAGES_OF = {"hidden": HIDDEN, "denied": "may not read shop_users"}


@pytest.mark.parametrize("policies", CELLS)
def test_rows_that_are_hidden_are_never_counted_as_none(policies: str, server: Database, run: Run) -> None:
    with server.engine.begin() as connection:
        policies_of(connection, policies)
    security: RowLevelSecurity = signed if policies == "signed" else rls
    signer, metadata = security.signer, [Base.metadata]
    for role, outcomes in CELLS[policies].items():
        of_all, of_one = outcomes.split()
        database = as_role(server, role)
        calls: dict[str, tuple[str, Callable[[Connection], object], object]] = {
            "list": (of_all, lambda c: set(find_tenants(c, metadata, signer=signer).tenants), {None, "a", "b"}),
            "stats": (of_all, lambda c: rows_of(measure(c, metadata, signer=signer)), EXPECTED),
            "one": (of_one, lambda c: rows_of(measure(c, metadata, tenant="b", signer=signer)), {"b": EXPECTED["b"]}),
        }
        for name, (outcome, call, expected) in calls.items():
            with database.engine.connect() as connection:
                if outcome == "ok":
                    assert call(connection) == expected, (role, name)
                    continue
                with pytest.raises(PermissionDeniedError, match=MESSAGES_OF[outcome]) as refused:
                    call(connection)
                assert role in str(refused.value)
        url = database.url.render_as_string(hide_password=False)
        database.dispose()
        if role == ROLE:
            app = f"{APP}:{'signed' if policies == 'signed' else 'Base'}"
            ended = run("tenants", "stats", "--app", app, "--url", url)
            assert ended.code == (0 if of_all == "ok" else 4)
            assert (ended.out == "") is (of_all != "ok")
            assert MESSAGES_OF.get(of_all, "") in ended.err


@pytest.fixture(scope="module")
def shapes_database(dialect: str, postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Models of every shape, with rows of each tenant."""
    name = f"usage_of_shapes_{os.getpid()}"
    if dialect == "sqlite":
        database = create_database(f"sqlite:///{tmp_path_factory.mktemp('shapes')}/shapes.db")
    else:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        database = create_database(f"{postgres_server.rpartition('/')[0]}/{name}")
    shapes.Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        fill_shapes(connection)
    yield database
    database.dispose()
    if dialect == "postgresql":
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_models_of_every_shape(shapes_database: Database) -> None:
    metadata: MetaData = shapes.Base.metadata
    with shapes_database.engine.connect() as connection:
        usage = measure(connection, [metadata])
        totals: dict[str, int] = {}
        for tenant in usage.tenants:
            for each in tenant.tables:
                totals[each.table] = totals.get(each.table, 0) + each.rows
        for name, number in totals.items():
            assert number == connection.scalar(select(func.count()).select_from(metadata.tables[name])), name
        names = set(inspect(connection).get_table_names())
        assert names - totals.keys() <= {"catalogues"}
        assert {"dogs", "note_labels", "org_seats", "devices"} <= totals.keys()
        by_tenant = rows_of(usage)
        assert by_tenant["a"]["dogs"] == by_tenant["b"]["dogs"] == 1
        assert by_tenant["1"]["org_seats"] >= 1
        assert by_tenant[str(UUID(int=10))] == {"devices": 1}
        for tenant in usage.tenants:
            one = measure(connection, [metadata], tenant=tenant.tenant)
            assert rows_of(one)[tenant.tenant] == by_tenant[tenant.tenant], tenant.tenant
        listed = find_tenants(connection, [metadata]).tenants
        assert set(listed) == set(by_tenant)


def test_both_ways_to_find_tenants_agree(shapes_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with shapes_database.engine.connect() as connection:
        expected = find_tenants(connection, [shapes.Base.metadata]).tenants
        for leads in (True, False):
            monkeypatch.setattr(presence_module, "_leads_an_index", lambda *_, leads=leads: leads)
            assert find_tenants(connection, [shapes.Base.metadata]).tenants == expected


def test_shared_parents_null_tenants_and_partial_indexes(database: Database) -> None:
    metadata = extended.Base.metadata
    metadata.drop_all(database.engine)
    metadata.create_all(database.engine)
    with Session(database.engine) as session:
        session.add(extended.Item())
        for tenant in ("a", "b", "b"):
            session.add(extended.OwnItem(tenant_id=tenant))
            session.add(extended.Draft(tenant_id=tenant))
        session.add_all(extended.Note(tenant_id=tenant) for tenant in ("a", None, None))
        session.commit()
    with counted(database.engine) as sent, database.engine.connect() as connection:
        listed = find_tenants(connection, [metadata]).tenants
        usage = rows_of(measure(connection, [metadata]))
    assert usage == {
        None: {"extended_notes": 2},
        "a": {"extended_items": 1, "extended_own_items": 1, "extended_drafts": 1, "extended_notes": 1},
        "b": {"extended_items": 2, "extended_own_items": 2, "extended_drafts": 2},
    }
    assert {tenant: set(tables) for tenant, tables in listed.items()} == {
        tenant: set(tables) - {"extended_items"} for tenant, tables in usage.items()
    }
    assert {name for name in usage["a"] if any("RECURSIVE" in each and name in each for each in sent)} == {
        "extended_own_items", "extended_notes",
    }  # fmt: skip
    metadata.drop_all(database.engine)


def test_progress_is_reported_table_by_table(database: Database) -> None:
    reports: list[tuple[str, int, int | None]] = []
    with database.engine.connect() as connection:
        measure(connection, [Base.metadata], report=lambda *each: reports.append(each))
    assert [each[1] for each in reports] == list(range(6))
    assert {each[2] for each in reports} == {6}


def test_a_similar_tenant_is_found_by_one_connection(run: Run, shop_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dotmac_database.cli.target.create_database",
        lambda url, **options: create_database(url, pool_size=1, max_overflow=0, pool_timeout=0, **options),
    )
    for words in (("stats", "A"), ("delete", "A", "--yes")):
        ended = run("tenants", *words, "--app", f"{APP}:Base", "--url", shop_url)
        assert "A has no rows" in ended.err
        assert ended.code == (1 if words[0] == "stats" else 0)
