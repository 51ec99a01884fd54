"""Which raw SQL is known to leave the settings alone."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dotmac_database.tenancy.functions import FUNCTIONS
from dotmac_database.tenancy.rls.raw_sql import refusal

HARMLESS = [
    "SELECT 1",
    "select id, name from accounts where id in (%(id_1)s, %(id_2)s) and (name = 'x' or exists (select 1))",
    "SELECT count(*) FILTER (WHERE name LIKE '%%a%%'), max ( id ) FROM accounts GROUP BY (name);",
    "  -- a comment; SET x\n /* nested /* set_config( */ */ SELECT 1 ; -- end",
    "SELECT 'set_config(''dotmac.tenant_id'', ''b'', true)'",
    "SELECT $$; SET ROLE x$$, $a$ $$ $a$, E'it\\'s; SET', U&'\\0041', B'01', N'x'",
    "SELECT '\\d+' ~ 'a\\\\', \"quoted \"\" name\" FROM notes",
    'SELECT "id" FROM "public"."accounts" AS "a"',
    (
        "WITH RECURSIVE x (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x), y(m) AS NOT MATERIALIZED (SELECT 1) "
        "SELECT * FROM x, y ORDER BY n LIMIT (2)"
    ),
    "INSERT INTO accounts (id, tenant_id) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET (name, email) = (SELECT 1, 2)",
    'INSERT INTO public."accounts" (id) SELECT (1) RETURNING (id)',
    "UPDATE accounts SET name = coalesce(name, 'x')::varchar(20), id = CAST(%s AS numeric(10, 2)) WHERE id = $1",
    "DELETE FROM notes USING accounts WHERE accounts.id = notes.account_id",
    "MERGE INTO notes AS n USING (VALUES (1)) AS v (id) ON n.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
    "EXPLAIN SELECT 1",
    "EXPLAIN (ANALYZE, FORMAT JSON) SELECT 1",
    "EXPLAIN ANALYZE VERBOSE (SELECT 1)",
    "(SELECT 1) UNION (SELECT 2)",
    "TABLE accounts",
    "VALUES (1), (2)",
    "SHOW dotmac.tenant_id",
    (
        "SELECT pg_catalog.lower(name), row_number() OVER (PARTITION BY id ORDER BY (name)), sum(id) OVER w FROM x "
        "WINDOW w AS (ORDER BY id)"
    ),
    "SELECT * FROM generate_series(1, 3) AS g (n) JOIN ROWS FROM (unnest(x), unnest(ARRAY[2])) AS u (a, b) ON true",
    "SELECT * FROM accounts AS a CROSS JOIN LATERAL (SELECT 1) AS x JOIN notes USING (id) WHERE (1, 2) OVERLAPS (3, 4)",
    "SELECT extract(YEAR FROM now()), now() AT TIME ZONE 'UTC', interval '1' day, x[1:2], 7 %% 2, timestamp(3) '2020'",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id), array(SELECT 1), any(x), current_setting('x', true)",
    "SELECT id FROM accounts TABLESAMPLE bernoulli (10) REPEATABLE (1) FOR UPDATE SKIP LOCKED",
    "SELECT data->'a' #>> '{b}', data @> '{}', name ~* 'x', a || b, 1 - -1, 2*/* */3 FROM accounts",
    "SELECT pg_sleep(0), pg_backend_pid(), txid_current(), pg_typeof(1), gen_random_uuid()",
    "SELECT größe FROM straße",
    "SELECT name FROM accounts WHERE note LIKE '%term%'",
]

FORGERIES = [
    "SET dotmac.tenant_id = 'b'",
    "/* x */ SET dotmac.all_tenants = 'on'",
    "--x\nSET dotmac.tenant_id TO 'b'",
    "/* /* */ */ RESET ALL",
    "/* /* */ SELECT 1 */ SET dotmac.tenant_id = 'b'",
    "SELECT set_config('dotmac.tenant_id', 'b', false)",
    "SELECT set_config/**/('dotmac.tenant_id', 'b', false)",
    "SELECT set_config -- x\n ('dotmac.tenant_id', 'b', false)",
    "SELECT \"set_config\"('dotmac.tenant_id', 'b', false)",
    "SELECT Set_Config('dotmac.' || 'tenant_id', 'b', false)",
    "SELECT pg_catalog.set_config('dotmac.tenant_id', 'b', false)",
    "SELECT \"pg_catalog\" . /* */ \"set_config\" ( 'dotmac.tenant_id', 'b', false)",
    "SELECT U&\"\\0073et_config\"('dotmac.tenant_id', 'b', false)",
    "SELECT u&\"!0073et_config\" UESCAPE '!' ('dotmac.tenant_id', 'b', false)",
    "DO $$ BEGIN PERFORM set_config('dotmac.tenant_id', 'b', false); END $$",
    "CALL x()",
    "PREPARE x AS SELECT set_config('dotmac.tenant_id', 'b', false)",
    "EXECUTE x",
    "COPY accounts TO STDOUT",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "SELECT 1; SET dotmac.tenant_id = 'b'",
    "SELECT 1;; SET dotmac.tenant_id = 'b'",
    "COMMIT",
    "SELECT query_to_xml('select set_config(''dotmac.tenant_id'', ''b'', false)', true, true, '')",
    "SELECT * FROM ts_stat('select set_config(''dotmac.tenant_id'', ''b'', false)::tsvector')",
    "SELECT ts_rewrite('a'::tsquery, 'select set_config(''dotmac.tenant_id'', ''b'', false)::tsquery, ''b''::tsquery')",
    "SELECT * FROM set_config('dotmac.tenant_id', 'b', false)",
    "SELECT * FROM accounts, LATERAL set_config('dotmac.tenant_id', 'b', false)",
    "SELECT * FROM ROWS FROM (set_config('dotmac.tenant_id', 'b', false)) AS x",
    "WITH x AS (SELECT set_config('dotmac.tenant_id', 'b', false)) SELECT * FROM x",
    "WITH x (a) AS (SELECT 1), y AS (SELECT set_config('dotmac.tenant_id', 'b', false)) TABLE y",
    "SELECT * FROM set_config('dotmac.tenant_id', 'b', false) AS (x text)",
    "SELECT * FROM unnest(ARRAY[1]) WITH ORDINALITY AS (a int), set_config('dotmac.tenant_id', 'b', false) AS (x text)",
    "SELECT DISTINCT ON (id) set_config('dotmac.tenant_id', 'b', false) FROM accounts",
    "UPDATE pg_settings SET setting = 'on' WHERE name = 'dotmac.all_tenants'",
    "UPDATE pg_catalog . \"pg_settings\" SET setting = 'x' WHERE name = 'search_path'",
    "SELECT * INTO TEMP accounts FROM accounts",
    "CREATE TEMP TABLE accounts AS SELECT 1",
    "EXPLAIN ANALYZE EXECUTE x",
    "EXPLAIN (ANALYZE) CREATE TABLE x AS SELECT 1",
    "SELECT 'a\\', set_config('dotmac.tenant_id', 'b', false) -- '",
    "SELECT 'a\\\\\\' , set_config('dotmac.tenant_id', 'b', false), ' '",
    "SELECT E'a\\\\', set_config('dotmac.tenant_id', 'b', false)",
    "SELECT E'a'\n'\\', set_config(''dotmac.tenant_id'', ''b'', false) --'",
    "SELECT $1set_config('dotmac.tenant_id', 'b', false)",
    "SELECT 1set_config('dotmac.tenant_id', 'b', false)",
    "SELECT %set_config('dotmac.tenant_id', 'b', false)",
    "SELECT 1 %%set_config('dotmac.tenant_id', 'b', false)",
    "SELECT %(a'b)s, set_config('dotmac.tenant_id', 'b', false) -- '",
    "SELECT '%(a', ')s' || set_config('dotmac.tenant_id', 'b', false)",
    "SELECT $$ $%s, set_config('dotmac.tenant_id', 'b', false) -- $$",
    "SELECT $a$ $a$, set_config('dotmac.tenant_id', 'b', false)",
    "SELECT $a$ $A$, set_config('dotmac.tenant_id', 'b', false)",
    "SELECT a$$, set_config('dotmac.tenant_id', 'b', false), b$$",
    "SELECT\u00a0set_config('dotmac.tenant_id', 'b', false)",
    "SELECT set_config\u2003('dotmac.tenant_id', 'b', false)",
    "\u00a0SELECT 1",
    "SELECT \u017fet_config('dotmac.tenant_id', 'b', false)",
    "SELECT @--x\n set_config('dotmac.tenant_id', 'b', false)",
    "SELECT 2*/*x*/set_config('dotmac.tenant_id', 'b', false)",
    "SELECT (dblink('', 'SET dotmac.tenant_id'))",
    "SELECT app.total(1)",
    "SELECT lower.set_config('x', 'y', false)",
    "SELECT public.lower('x')",
    "SELECT pg_catalog.values(1)",
    "SELECT pg_advisory_lock(1)",
    "SELECT 'open",
    'SELECT "open',
    "SELECT /* open",
    "SELECT $x$ open",
    "SELECT 1\\",
    "SELECT 1\x00",
    "LISTEN x",
    "",
]

VOLATILE = frozenset(
    [
        *["array_sample", "array_shuffle", "bernoulli", "clock_timestamp", "current_query", "currval"],
        *["gen_random_uuid", "lastval", "nextval", "pg_is_in_recovery", "pg_sleep", "pg_sleep_for", "pg_sleep_until"],
        *["random", "random_normal", "system", "timeofday", "txid_status", "uuidv4", "uuidv7"],
    ]
)


@pytest.mark.parametrize("sql", HARMLESS)
def test_ordinary_sql_is_known(sql: str) -> None:
    assert refusal(sql) is None


@pytest.mark.parametrize("sql", FORGERIES)
def test_what_could_change_a_setting_is_refused(sql: str) -> None:
    assert refusal(sql) is not None


def test_a_refusal_names_no_value() -> None:
    for sql in ("SELECT set_config('dotmac.tenant_id', 'secret', true)", "SELECT 'secret\\', x", "SELECT f('secret')"):
        assert "secret" not in (refusal(sql) or "secret")


def test_functions_can_be_declared_harmless() -> None:
    sql = 'SELECT st_distance(a, b), app.total(1), "app"."total"(2)'
    assert refusal(sql) == "the function st_distance (before the columns of an alias write AS)"
    assert refusal(sql, frozenset(("st_distance",))) == "the function app.total"
    assert refusal(sql, frozenset(("st_distance", "app.total"))) is None


@pytest.fixture(scope="module")
def connection(postgres_url: str) -> Iterator[psycopg.Connection[tuple[str]]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE accounts (id integer PRIMARY KEY, name text, tenant_id text)")
        yield connection


def test_no_known_function_runs_sql_or_changes_anything(connection: psycopg.Connection[tuple[str]]) -> None:
    """Whatever PostgreSQL itself calls volatile is looked at by hand; the rest can't change a setting."""
    volatile = {
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'"
        )
    }
    assert volatile & FUNCTIONS == VOLATILE
    texts = "query_to_xml table_to_xml cursor_to_xml schema_to_xml database_to_xml ts_stat ts_rewrite set_config"
    assert FUNCTIONS.isdisjoint(texts.split())


PIECES = st.sampled_from(
    [
        *["SELECT", "set_config", "SET", '"set_config"', "pg_catalog", ".", "(", ")", ",", ";", "'", "''", '"', "\\"],
        *["'dotmac.tenant_id'", "'b'", "false", "'dotmac.tenant_id', 'b', false)", "set_config('dotmac.tenant_id',"],
        *["/*", "*/", "--", "\n", " ", "$$", "$a$", "$1", "E'", "U&'", 'U&"', "1", "x", "AS", "FROM", "WITH", "::"],
        *["e", "n'", "*", "-", "/", "$", "\u00a0", "lower", "DO", "UNION", "TABLE", "INTO", "VALUES", "%", "\t"],
    ]
)


@given(st.lists(PIECES, max_size=14), st.sampled_from(["", " "]))
@settings(max_examples=3000, deadline=None)
def test_no_text_that_is_known_changes_the_setting(
    connection: psycopg.Connection[tuple[str]], pieces: list[str], between: str
) -> None:
    sql = "SELECT 1 " + between.join(pieces)
    if refusal(sql) is not None:
        return
    try:
        connection.execute(sql)
    except psycopg.Error:
        connection.rollback()
    found = connection.execute("SELECT current_setting('dotmac.tenant_id', true)").fetchone()
    assert found is not None
    assert not found[0]
