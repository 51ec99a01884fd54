"""Holes in row-level security, each as the SQL that plants it, and as statements that use it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

APP, OWNER, GROUP, REPORT = (f"verify_{name}_{os.getpid()}" for name in ("app", "owner", "group", "report"))
SCHEMA = "Other 100% : x"


@dataclass(frozen=True)
class Plant:
    """A hole: the SQL that makes it, a part of the object's name and of the risk, and statements that use it.

    ``leak`` runs as the application's role with tenant a named; its last statement gives b's text, or touches its row.
    ``runs``: every remedy is SQL that can be run.
    """

    sql: str
    object: str
    risk: str
    leak: Sequence[str] = ()
    runs: bool = True


READ = ("SELECT title FROM notes",)
EXACT = "tenant_id = NULLIF(current_setting('dotmac.tenant_id', true), '')"
SECRETS = "LANGUAGE sql AS $$ SELECT string_agg(title, '') FROM public.notes $$"
PEEK = f"CREATE FUNCTION peek() RETURNS text SECURITY DEFINER {SECRETS}"
COPY = "CREATE TABLE copies (what text); GRANT SELECT, INSERT ON copies TO PUBLIC;"
COPIES = f"{COPY} CREATE FUNCTION copy() RETURNS trigger LANGUAGE plpgsql"
CLOSED = "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; ALTER TABLE {0} FORCE ROW LEVEL SECURITY;"


def _beside(condition: str, rest: str = "") -> str:
    return f"CREATE POLICY beside ON notes {rest} USING ({condition})"


def instead(condition: str, table: str = "notes") -> str:
    drop = f"DROP POLICY dotmac_tenant ON {table}; CREATE POLICY dotmac_tenant ON {table}"
    return f"{drop} USING ({condition}) WITH CHECK ({condition})"


def _trigger(table: str = "notes") -> str:
    return f"CREATE TRIGGER copies AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION copy();"


def _as(role: str) -> tuple[str, ...]:
    return (f"SET LOCAL ROLE {role}", *READ)


ROLES = {
    "superuser": Plant(f"ALTER ROLE {APP} SUPERUSER", f"role {APP}", "a superuser passes", READ, runs=False),
    "BYPASSRLS": Plant(f"ALTER ROLE {APP} BYPASSRLS", f"role {APP}", "BYPASSRLS", READ),
    "CREATEROLE": Plant(f"ALTER ROLE {APP} CREATEROLE", f"role {APP}", "CREATEROLE"),
    "REPLICATION": Plant(f"ALTER ROLE {APP} REPLICATION", f"role {APP}", "REPLICATION"),
    "member of a superuser": Plant(
        f"ALTER ROLE {GROUP} SUPERUSER; GRANT {GROUP} TO {APP}", f"role {APP}", f"may become {GROUP}", _as(GROUP)
    ),
    "member of a BYPASSRLS role": Plant(
        f"ALTER ROLE {GROUP} BYPASSRLS; GRANT SELECT ON notes TO {GROUP}; GRANT {GROUP} TO {APP}",
        f"role {APP}",
        "has BYPASSRLS",
        _as(GROUP),
    ),
    "member by SET alone": Plant(
        f"ALTER ROLE {GROUP} BYPASSRLS; GRANT SELECT ON notes TO {GROUP}; GRANT {GROUP} TO {APP} WITH INHERIT FALSE",
        f"role {APP}",
        "has BYPASSRLS",
        _as(GROUP),
    ),
    "member by ADMIN alone": Plant(
        f"ALTER ROLE {GROUP} BYPASSRLS; GRANT SELECT ON notes TO {GROUP};"
        f"GRANT {GROUP} TO {APP} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
        f"role {APP}",
        "has BYPASSRLS",
        (f"GRANT {GROUP} TO {APP} WITH SET TRUE", *_as(GROUP)),
    ),
    "member of a member": Plant(
        f"CREATE ROLE middle; GRANT {GROUP} TO middle; GRANT middle TO {APP}; ALTER ROLE {GROUP} BYPASSRLS;"
        f"GRANT SELECT ON notes TO {GROUP}",
        "role middle",
        f"may become {GROUP}",
        _as(GROUP),
    ),
    "member of a CREATEROLE role": Plant(
        f"ALTER ROLE {GROUP} CREATEROLE; GRANT {GROUP} TO {APP}", f"role {APP}", "has CREATEROLE"
    ),
    "member of a REPLICATION role": Plant(
        f"ALTER ROLE {GROUP} REPLICATION; GRANT {GROUP} TO {APP}", f"role {APP}", "has REPLICATION"
    ),
    "pg_read_all_data": Plant(
        f"GRANT pg_read_all_data TO {APP}", f"role {APP}", "pg_read_all_data", ("SELECT title FROM nobodys_copy",)
    ),
    "pg_write_all_data": Plant(
        f"GRANT pg_write_all_data TO {APP}",
        f"role {APP}",
        "writes to every",
        ("INSERT INTO nobodys_copy VALUES (3, 'b', 'b')",),
    ),
    "pg_read_server_files": Plant(f"GRANT pg_read_server_files TO {APP}", f"role {APP}", "reads the server's files"),
    "pg_write_server_files": Plant(f"GRANT pg_write_server_files TO {APP}", f"role {APP}", "becomes a superuser"),
    "pg_execute_server_program": Plant(
        f"GRANT {GROUP} TO {APP}; GRANT pg_execute_server_program TO {GROUP}",
        f"role {GROUP}",
        "runs programs",
        ("CREATE TEMPORARY TABLE said (what text)", "COPY said FROM PROGRAM 'echo b secret'", "SELECT what FROM said"),
    ),
    "owner": Plant(
        f"ALTER TABLE notes OWNER TO {APP}",
        f"role {APP}",
        "it is the owner of public.notes",
        ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", *READ),
        runs=False,
    ),
    "member of the owner": Plant(
        f"GRANT {OWNER} TO {APP}",
        f"role {APP}",
        f"it is a member of {OWNER}, the owner of",
        ("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", *READ),
    ),
    "owner of a partition": Plant(f"ALTER TABLE events_1 OWNER TO {APP}", f"role {APP}", "events_1", runs=False),
    "owner of the schema": Plant(
        f"ALTER SCHEMA public OWNER TO {APP}", f"role {APP}", "owns the schema public", runs=False
    ),
    "owner of the database": Plant(
        f"ALTER DATABASE {{database}} OWNER TO {APP}", f"role {APP}", "owns the database", runs=False
    ),
}
SETTINGS = {
    "ALTER ROLE … SET all_tenants": Plant(
        f"ALTER ROLE {APP} SET dotmac.all_tenants = 'on'", f"role {APP}", "dotmac.all_tenants"
    ),
    "ALTER ROLE … SET tenant_id": Plant(
        f"ALTER ROLE {APP} SET dotmac.tenant_id = 'b'", f"role {APP}", "dotmac.tenant_id"
    ),
    "ALTER DATABASE … SET": Plant("ALTER DATABASE {database} SET dotmac.all_tenants = 'on'", "database", "all_tenants"),
    "ALTER ROLE … IN DATABASE … SET": Plant(
        f"ALTER ROLE {APP} IN DATABASE {{database}} SET dotmac.all_tenants = 'on'", "in database", "all_tenants"
    ),
    "ALTER ROLE ALL SET": Plant("ALTER ROLE ALL SET dotmac.all_tenants = 'on'", "all roles", "all_tenants"),
    "row_security": Plant(f"ALTER ROLE {APP} SET row_security = off", f"role {APP}", "row_security"),
}
TABLES = {
    "off": Plant("ALTER TABLE notes DISABLE ROW LEVEL SECURITY", "public.notes", "security is off", READ),
    "no FORCE": Plant("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY", "public.notes", "FORCE"),
    "no policy": Plant("DROP POLICY dotmac_tenant ON notes", "public.notes", "no policy"),
    "no policy on a joined child": Plant("DROP POLICY dotmac_tenant ON dogs", "public.dogs", "no policy"),
    "off between many and many": Plant(
        "ALTER TABLE note_labels DISABLE ROW LEVEL SECURITY",
        "public.note_labels",
        "off",
        ("SELECT 'b secret' FROM note_labels WHERE note_id = 2",),
    ),
    "off on a name with quotes": Plant(
        f"""ALTER TABLE "{SCHEMA}"."The ""Odd"" 50% :t" DISABLE ROW LEVEL SECURITY""", '""Odd""', "security is off"
    ),
    "missing": Plant("DROP TABLE note_labels", "note_labels", "does not exist", runs=False),
    "a view instead": Plant(
        f"ALTER TABLE notes RENAME TO old; CREATE VIEW notes AS SELECT * FROM old; GRANT SELECT ON notes TO {APP}",
        "public.notes",
        "it is a view",
        READ,
        runs=False,
    ),
    "another table earlier in the path": Plant(
        "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.notes AS SELECT * FROM notes;"
        "GRANT SELECT ON evil.notes TO PUBLIC; SET LOCAL search_path = evil, public",
        "evil.notes",
        "security is off",
        READ,
    ),
    "a table that the metadata lacks": Plant(
        f"GRANT SELECT ON nobodys_copy TO {APP}",
        "public.nobodys_copy",
        "the metadata lacks it",
        ("SELECT title FROM nobodys_copy",),
    ),
    "such a one by a column": Plant(
        f"GRANT SELECT (title) ON nobodys_copy TO {APP}",
        "public.nobodys_copy",
        "the metadata lacks it",
        ("SELECT title FROM nobodys_copy",),
    ),
    "such a one with an open policy": Plant(
        "INSERT INTO unlisted VALUES (2, 'b'); CREATE POLICY open ON unlisted USING (true)",
        "public.unlisted, policy open",
        "USING",
        ("SELECT tenant_id FROM unlisted",),
    ),
    "such a one with another name": Plant(
        'CREATE TABLE seats AS SELECT 2 AS "Org"; GRANT SELECT ON seats TO PUBLIC',
        "public.seats",
        "the metadata lacks it",
        ("SELECT 'b secret' FROM seats",),
    ),
    "such a foreign table": Plant(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE FOREIGN TABLE far (tenant_id text) SERVER s; GRANT SELECT ON far TO PUBLIC",
        "public.far",
        "foreign table",
    ),
}
POLICIES = {
    "open policy": Plant(_beside("true", ""), "public.notes, policy beside", "USING", READ),
    "any tenant at all": Plant(
        _beside("current_setting('dotmac.tenant_id', true) <> ''", "FOR SELECT"), "policy beside", "USING", READ
    ),
    "no tenant, or the right one": Plant(
        _beside(f"NULLIF(current_setting('dotmac.tenant_id', true), '') IS NULL OR {EXACT}"),
        "policy beside",
        "USING",
        ("RESET dotmac.tenant_id", *READ),
    ),
    "one more tenant": Plant(instead(f"{EXACT} OR tenant_id = 'b'"), "policy dotmac_tenant", "USING", READ),
    "all words are there": Plant(
        instead(f"({EXACT}) OR current_setting('dotmac.all_tenants', true) = 'on' OR true"),
        "policy dotmac_tenant",
        "USING",
        READ,
    ),
    "another comparison": Plant(instead(EXACT.replace("=", ">=")), "policy dotmac_tenant", "USING", READ),
    "LIKE": Plant(
        instead("tenant_id LIKE current_setting('dotmac.tenant_id', true)"),
        "policy dotmac_tenant",
        "USING",
        ("SET LOCAL dotmac.tenant_id = '%'", *READ),
    ),
    "cast that cuts names": Plant(
        instead("tenant_id = current_setting('dotmac.tenant_id', true)::varchar(1)"),
        "policy dotmac_tenant",
        "USING",
        ("SET LOCAL dotmac.tenant_id = 'bc'", *READ),
    ),
    "another function of the name": Plant(
        "CREATE FUNCTION current_setting(text, bool) RETURNS text LANGUAGE sql AS $$ SELECT 'b' $$;"
        + instead("tenant_id = NULLIF(public.current_setting('dotmac.tenant_id', true), '')"),
        "policy dotmac_tenant",
        "USING",
        READ,
    ),
    "another operator of the name": Plant(
        "CREATE FUNCTION unequal(varchar, text) RETURNS bool LANGUAGE sql AS $$ SELECT true $$;"
        "CREATE OPERATOR = (FUNCTION = unequal, LEFTARG = varchar, RIGHTARG = text);"
        + instead(EXACT.replace("tenant_id =", "tenant_id OPERATOR(public.=)")),
        "policy dotmac_tenant",
        "USING",
        READ,
    ),
    "open for UPDATE": Plant(
        "CREATE POLICY beside ON notes FOR UPDATE USING (true) WITH CHECK (true); DELETE FROM note_labels",
        "policy beside",
        "WITH CHECK",
        (
            "UPDATE notes SET title = 'gone'",
            "SET LOCAL dotmac.tenant_id = 'b'",
            "DELETE FROM notes WHERE title = 'gone'",
        ),
    ),
    "open for UPDATE without WITH CHECK": Plant(
        _beside("true", "FOR UPDATE"), "policy beside", "WITH CHECK", ("UPDATE notes SET title = 'gone'",)
    ),
    "open for DELETE": Plant(
        _beside("true", "FOR DELETE") + "; DELETE FROM note_labels",
        "policy beside",
        "USING is not",
        ("DELETE FROM notes",),
    ),
    "open for INSERT": Plant(
        "CREATE POLICY beside ON notes FOR INSERT WITH CHECK (true)",
        "policy beside",
        "WITH CHECK is not",
        ("INSERT INTO notes (id, title, tenant_id) VALUES (7, 'forged', 'b')",),
    ),
    "open to the role": Plant(_beside("true", f"TO {APP}"), "policy beside", "USING", READ),
    "open to a group": Plant(
        f"GRANT {GROUP} TO {APP};" + _beside("true", f"TO {GROUP}"), "policy beside", "USING", READ
    ),
    "open to a group by SET": Plant(
        f"GRANT {REPORT} TO {APP} WITH INHERIT FALSE; GRANT SELECT ON notes TO {REPORT}",
        "public.notes, policy reports",
        "USING",
        _as(REPORT),
    ),
    "restrictive alone": Plant(
        f"DROP POLICY dotmac_tenant ON notes; CREATE POLICY dotmac_tenant ON notes AS RESTRICTIVE USING ({EXACT})",
        "public.notes",
        "no policy",
    ),
    "joined child that asks another table": Plant(
        "CREATE TABLE pets AS SELECT id FROM animals; GRANT SELECT ON pets TO PUBLIC;"
        + instead("EXISTS (SELECT 1 FROM pets WHERE pets.id = dogs.id)", "dogs"),
        "public.dogs, policy dotmac_tenant",
        "USING",
        ("SELECT tricks FROM dogs",),
    ),
    "joined child open": Plant(
        "CREATE POLICY beside ON dogs USING (true)", "public.dogs, policy beside", "USING", ("SELECT tricks FROM dogs",)
    ),
    "open between many and many": Plant(
        "CREATE POLICY beside ON note_labels FOR SELECT USING (true)",
        "public.note_labels, policy beside",
        "USING",
        ("SELECT 'b secret' FROM note_labels WHERE note_id = 2",),
    ),
    "one end of two between many and many": Plant(
        instead(f"EXISTS (SELECT 1 FROM notes WHERE notes.id = note_labels.note_id AND notes.{EXACT})", "note_labels"),
        "public.note_labels, policy dotmac_tenant",
        "USING",
        ("INSERT INTO note_labels VALUES (1, 2)",),
    ),
    "open on a name with quotes": Plant(
        f"""CREATE POLICY "Be%side :x" ON "{SCHEMA}"."odd""Child" USING (true)""", 'policy "Be%side :x"', "USING"
    ),
}
INHERITANCE = {
    "partition without": Plant(
        f"GRANT SELECT ON events_1 TO {APP}; UPDATE events SET what = 'b secret'",
        "public.events_1",
        "by its own name",
        ("SELECT what FROM events_1",),
    ),
    "partition without, to all": Plant(
        "GRANT SELECT ON events_2, events_3 TO PUBLIC", "public.events_3", "by its own name"
    ),
    "partition with an open policy": Plant(
        "CREATE POLICY mine_too ON events_2 USING (true)",
        "public.events_2, policy mine_too",
        "USING",
        ("SELECT what FROM events_2",),
    ),
    "partition without FORCE": Plant(
        "ALTER TABLE events_2 NO FORCE ROW LEVEL SECURITY", "public.events_2", "by its own name"
    ),
    "partition of a partition": Plant(
        f"GRANT UPDATE (what) ON events_3 TO {APP}; INSERT INTO events VALUES (9, 'b secret', 'b')",
        "public.events_3",
        "by its own name",
        ("UPDATE events_3 SET what = 'gone'",),
    ),
    "child by inheritance": Plant(
        f"CREATE TABLE heirs () INHERITS (notes); INSERT INTO heirs SELECT * FROM notes;GRANT SELECT ON heirs TO {APP}",
        "public.heirs",
        "by its own name",
        ("SELECT title FROM heirs",),
    ),
    "foreign child": Plant(
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE FOREIGN TABLE notes_far () INHERITS (notes) SERVER s; GRANT SELECT ON notes_far TO PUBLIC",
        "public.notes_far",
        "no policy can be put",
    ),
    "parent by inheritance": Plant(
        "CREATE TABLE texts (title varchar NOT NULL); ALTER TABLE notes INHERIT texts; GRANT SELECT ON texts TO PUBLIC",
        "public.texts",
        "also reads the rows of public.notes",
        ("SELECT title FROM texts",),
    ),
    "parent with an open policy": Plant(
        "CREATE TABLE texts (title varchar NOT NULL); ALTER TABLE notes INHERIT texts; GRANT SELECT ON texts TO PUBLIC;"
        + CLOSED.format("texts")
        + "CREATE POLICY open ON texts USING (true)",
        "public.texts",
        "also reads the rows of public.notes",
        ("SELECT title FROM texts",),
    ),
    "parent with the tenant's column": Plant(
        "CREATE TABLE texts (LIKE notes); ALTER TABLE notes INHERIT texts;"
        f"GRANT SELECT ON texts TO PUBLIC; {CLOSED.format('texts')} CREATE POLICY open ON texts USING (true)",
        "public.texts, policy open",
        "USING",
        ("SELECT title FROM texts",),
    ),
}
VIEWS = {
    "view": Plant(
        f"GRANT SELECT ON nobodys TO {APP}", "view public.nobodys", "owner's rights", ("SELECT title FROM nobodys",)
    ),
    "view by a column": Plant(
        f"GRANT SELECT (title) ON nobodys TO {APP}",
        "view public.nobodys",
        "owner's rights",
        ("SELECT title FROM nobodys",),
    ),
    "view to write through": Plant(
        f"GRANT DELETE ON nobodys TO {APP}; DELETE FROM note_labels",
        "view public.nobodys",
        "owner's rights",
        ("DELETE FROM nobodys",),
    ),
    "view of a view of a view": Plant(
        "CREATE VIEW v1 AS SELECT * FROM notes; CREATE VIEW v2 AS SELECT * FROM v1;"
        f"CREATE VIEW v3 AS SELECT * FROM v2; GRANT SELECT ON v3 TO {APP}",
        "view public.v1",
        "owner's rights",
        ("SELECT title FROM v3",),
    ),
    "view of a view that is sound": Plant(
        f"CREATE VIEW v AS SELECT * FROM sound_view; GRANT SELECT ON v TO {APP}", "view public.v", "owner's rights"
    ),
    "view of a materialized view": Plant(
        f"CREATE VIEW v AS SELECT * FROM nobodys_rows; GRANT SELECT ON v TO {APP}",
        "view public.v",
        "owner's rights",
        ("SELECT title FROM v",),
    ),
    "view of a partition": Plant(
        "CREATE VIEW some_events AS SELECT * FROM events_2; GRANT SELECT ON some_events TO PUBLIC",
        "view public.some_events",
        "owner's rights",
        ("SELECT what FROM some_events",),
    ),
    "materialized view": Plant(
        f"GRANT SELECT ON nobodys_rows TO {APP}",
        "materialized view public.nobodys_rows",
        "no policy covers",
        ("SELECT title FROM nobodys_rows",),
    ),
    "invoker's view of a materialized view": Plant(
        "CREATE VIEW v WITH (security_invoker = true) AS SELECT * FROM nobodys_rows;"
        f"GRANT SELECT ON nobodys_rows, v TO {APP}",
        "materialized view public.nobodys_rows",
        "no policy covers",
        ("SELECT title FROM v",),
    ),
    "materialized view of a view": Plant(
        'CREATE MATERIALIZED VIEW "Rows % :x" AS SELECT * FROM sound_view; GRANT SELECT ON "Rows % :x" TO PUBLIC',
        'materialized view public."Rows % :x"',
        "no policy covers",
        ('SELECT title FROM "Rows % :x"',),
    ),
}
FUNCTIONS = {
    "SECURITY DEFINER": Plant(PEEK, "FUNCTION public.peek()", "runs as postgres", ("SELECT peek()",)),
    "SECURITY DEFINER behind an invoker's view": Plant(
        f"{PEEK}; CREATE VIEW peeking WITH (security_invoker = true) AS SELECT peek() AS title;"
        "GRANT SELECT ON peeking TO PUBLIC",
        "FUNCTION public.peek()",
        "runs as postgres",
        ("SELECT title FROM peeking",),
    ),
    "SECURITY DEFINER of a BYPASSRLS role": Plant(
        f"ALTER ROLE {GROUP} BYPASSRLS; GRANT SELECT ON notes TO {GROUP}; {PEEK}; ALTER FUNCTION peek OWNER TO {GROUP}",
        "FUNCTION public.peek()",
        f"runs as {GROUP}",
        ("SELECT peek()",),
    ),
    "SECURITY DEFINER of the owner without FORCE": Plant(
        f"ALTER TABLE notes NO FORCE ROW LEVEL SECURITY; {PEEK}; ALTER FUNCTION peek OWNER TO {OWNER}",
        "FUNCTION public.peek()",
        f"runs as {OWNER}",
        ("SELECT peek()",),
    ),
    "SECURITY DEFINER of a role with a policy of its own": Plant(
        f"GRANT SELECT ON notes TO {REPORT}; {PEEK}; ALTER FUNCTION peek OWNER TO {REPORT}",
        "FUNCTION public.peek()",
        f"runs as {REPORT}",
        ("SELECT peek()",),
    ),
    "SECURITY DEFINER that reads a materialized view": Plant(
        f"{PEEK.replace('public.notes', 'public.nobodys_rows')}; ALTER FUNCTION peek OWNER TO {OWNER}",
        "FUNCTION public.peek()",
        "names nobodys_rows",
        ("SELECT peek()",),
    ),
    "SECURITY DEFINER that reads a partition": Plant(
        "CREATE FUNCTION peek() RETURNS text SECURITY DEFINER BEGIN ATOMIC"
        " SELECT string_agg('b' || what, '') FROM public.events_1; END;"
        f"ALTER FUNCTION peek OWNER TO {OWNER}; UPDATE events SET tenant_id = 'b'",
        "FUNCTION public.peek()",
        "names events_1",
        ("SELECT peek()",),
    ),
    "SECURITY DEFINER that calls another": Plant(
        f"GRANT EXECUTE ON FUNCTION private_secret TO {GROUP};"
        "CREATE FUNCTION peek() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT public.private_secret()';"
        f"ALTER FUNCTION peek OWNER TO {GROUP}",
        "FUNCTION public.peek()",
        "names private_secret",
        ("SELECT peek()",),
    ),
    "SECURITY DEFINER to a group": Plant(
        f"GRANT EXECUTE ON FUNCTION private_secret TO {GROUP}; GRANT {GROUP} TO {APP}",
        "FUNCTION public.private_secret()",
        "runs as postgres",
        ("SELECT private_secret()",),
    ),
    "SECURITY DEFINER procedure": Plant(
        "CREATE PROCEDURE peek(INOUT x text) SECURITY DEFINER " + SECRETS,
        "PROCEDURE public.peek",
        "runs as postgres",
        ("CALL peek(NULL)",),
    ),
    "SECURITY DEFINER with arguments": Plant(
        'CREATE FUNCTION "Pe%ek :x"(a int, VARIADIC b text[]) RETURNS text SECURITY DEFINER ' + SECRETS,
        'FUNCTION public."Pe%ek :x"(a integer, VARIADIC b text[])',
        "runs as postgres",
        ("""SELECT "Pe%ek :x"(1, 'x')""",),
    ),
    "that sets all_tenants": Plant(
        f"CREATE FUNCTION peek() RETURNS text SET dotmac.all_tenants = 'on' {SECRETS}",
        "FUNCTION public.peek()",
        "sets dotmac.all_tenants",
        ("SELECT peek()",),
    ),
    "that steers in its text": Plant(
        "CREATE FUNCTION peek() RETURNS SETOF text LANGUAGE sql AS $$"
        " SELECT set_config('dotmac.tenant_id', 'b', true); SELECT title FROM notes $$",
        "FUNCTION public.peek()",
        "what the policies read",
        ("SELECT peek()",),
    ),
    "LEAKPROOF": Plant(
        "CREATE FUNCTION peek(text) RETURNS bool LEAKPROOF COST 0.0000001 LANGUAGE plpgsql AS $$ BEGIN"
        "  PERFORM set_config('seen.it', current_setting('seen.it', true) || $1, true); RETURN true; END $$",
        "FUNCTION public.peek(text)",
        "LEAKPROOF",
        (
            "SET LOCAL seen.it = ''",
            "SELECT count(*) FROM notes WHERE peek(title)",
            "SELECT current_setting('seen.it')",
        ),
    ),
    "that reads files": Plant(
        f"GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {APP}", "pg_read_file(", "server's files"
    ),
}
TRIGGERS = {
    "trigger that copies": Plant(
        f"{COPIES} AS $$ BEGIN INSERT INTO copies VALUES (NEW.title); RETURN NULL; END $$; {_trigger()}"
        "UPDATE notes SET title = title",
        "trigger copies on public.notes",
        "writes to copies",
        ("SELECT what FROM copies",),
    ),
    "trigger with its owner's rights": Plant(
        f"{COPIES} SECURITY DEFINER AS $$ BEGIN UPDATE public.notes SET title = 'gone' WHERE id <> NEW.id; RETURN NULL;"
        f" END $$; {_trigger('labels')} DELETE FROM note_labels",
        "trigger copies on public.labels",
        "writes to public.notes",
        (
            "UPDATE labels SET id = id WHERE id = 1",
            "SET LOCAL dotmac.tenant_id = 'b'",
            "DELETE FROM notes WHERE title = 'gone'",
        ),
    ),
    "trigger that executes text": Plant(
        f"{COPIES} AS $$ BEGIN EXECUTE 'INSERT INTO copies VALUES ($1)' USING NEW.title; RETURN NULL; END $$;"
        f"{_trigger()} UPDATE notes SET title = title",
        "trigger copies on public.notes",
        "uses EXECUTE",
        ("SELECT what FROM copies",),
    ),
    "trigger that notifies": Plant(
        f"{COPIES} AS $$ BEGIN PERFORM pg_notify('all', NEW.title); RETURN NULL; END $$; {_trigger()}",
        "trigger copies on public.notes",
        "uses pg_notify",
    ),
    "trigger that calls what copies": Plant(
        f"{COPIES} AS $$ BEGIN PERFORM inner_copy(NEW.title); RETURN NULL; END $$; {_trigger()}"
        "CREATE FUNCTION inner_copy(text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.copies VALUES ($1)';"
        "UPDATE notes SET title = title",
        "trigger copies on public.notes",
        "calls public.inner_copy(text), which writes to public.copies",
        ("SELECT what FROM copies",),
    ),
    "trigger on a partition": Plant(
        f"{COPIES} AS $$ BEGIN INSERT INTO copies VALUES (NEW.what); RETURN NULL; END $$;"
        f"{_trigger('events_2')} UPDATE events SET what = what",
        "trigger copies on public.events_2",
        "writes to copies",
        ("SELECT what FROM copies",),
    ),
    "CHECK that copies": Plant(
        f"{COPY} CREATE FUNCTION copied(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN"
        "  INSERT INTO copies VALUES ($1); RETURN true; END $$;"
        "ALTER TABLE notes ADD CONSTRAINT copying CHECK (copied(title))",
        "constraint copying on public.notes",
        "writes to copies",
        ("SELECT what FROM copies",),
    ),
    "restrictive policy that copies": Plant(
        f"{COPY} CREATE FUNCTION copied(text) RETURNS bool COST 0.00001 LANGUAGE plpgsql AS $$ BEGIN"
        "  INSERT INTO copies VALUES ($1); RETURN true; END $$;"
        "CREATE POLICY copying ON notes AS RESTRICTIVE USING (copied(title))",
        "policy copying on public.notes",
        "writes to copies",
        ("SELECT count(*) FROM notes", "SELECT what FROM copies"),
    ),
    "rule that copies": Plant(
        f"{COPY} CREATE RULE copying AS ON UPDATE TO notes DO ALSO INSERT INTO copies VALUES (NEW.title);"
        "UPDATE notes SET title = title",
        "rule copying on public.notes",
        "copy rows",
        ("SELECT what FROM copies",),
    ),
}
GRANTS = {
    "TRUNCATE": Plant(
        f"GRANT TRUNCATE ON notes, note_labels TO {APP}",
        "public.notes",
        "TRUNCATE",
        (
            "TRUNCATE notes, note_labels",
            "RESET SESSION AUTHORIZATION",
            "SELECT 'b secret' WHERE NOT EXISTS (SELECT FROM notes)",
        ),
    ),
    "TRUNCATE to all": Plant("GRANT TRUNCATE ON dogs TO PUBLIC", "public.dogs", "TRUNCATE"),
    "TRUNCATE to a group": Plant(
        f"GRANT TRUNCATE ON dogs TO {GROUP}; GRANT {GROUP} TO {APP}", "public.dogs", "TRUNCATE"
    ),
    "TRUNCATE of a partition": Plant(f"GRANT TRUNCATE ON events_2 TO {APP}", "public.events_2", "TRUNCATE"),
    "TRIGGER": Plant(f"GRANT TRIGGER ON notes TO {APP}", "public.notes", "TRIGGER"),
    "REFERENCES": Plant(
        f"GRANT REFERENCES ON notes TO {APP}; GRANT CREATE ON SCHEMA public TO {APP}",
        "public.notes",
        "REFERENCES",
        (
            "CREATE TABLE probes (id int REFERENCES notes)",
            "INSERT INTO probes VALUES (2)",
            "SELECT 'b secret' FROM probes",
        ),
    ),
}
PLANTS = {**ROLES, **SETTINGS, **TABLES, **POLICIES, **INHERITANCE, **VIEWS, **FUNCTIONS, **TRIGGERS, **GRANTS}
