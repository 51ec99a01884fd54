"""Which error a policy of the database raises: a right within the tenant, or another tenant's row.

Each way of writing, for a row that the actor may not write, for another tenant's row that he could write if it were of
his tenant, and for another tenant's row that he could not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, insert, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import (
    DatabaseError,
    PermissionDeniedError,
    RowLevelSecurity,
    TenantIsolationError,
    bind_policies,
    bind_tenant,
    create_repository,
)
from dotmac_database.dialects import translate
from dotmac_database.dialects.policy_refusals import refused_right
from dotmac_database.engines import Database, create_database
from dotmac_database_fastapi import DatabasePlugin, get_session, register_exception_handlers, tenant_from_header
from tests.conftest import DRIVERS, Face
from tests.fastapi.conftest import Api
from tests.tenancy.conftest import Guarded

from .conftest import APP
from .row_models import ACTORS, POLICY, Base, Note

SECRET = "a secret of the tests"


@pytest.fixture(scope="module", params=["plain", "signed"])
def rls(request: pytest.FixtureRequest, owner_engine: Engine) -> RowLevelSecurity:
    made = RowLevelSecurity(Base.metadata, policies=[POLICY], secret=SECRET if request.param == "signed" else None)
    with owner_engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS dotmac CASCADE")  # the functions of signed settings
        made.apply(connection)
    return made


@pytest.fixture(scope="module", params=["asyncpg", "psycopg", "psycopg-async"])
def guarded(request: pytest.FixtureRequest, rls: RowLevelSecurity, postgres_url: str) -> Iterator[Guarded]:
    name, scheme = DRIVERS[request.param]
    url = make_url(postgres_url).set(drivername=scheme, username=APP, password="dotmac")
    face = Face(name, create_database(url, pool_size=2, max_overflow=0))
    made = Guarded(face, rls=rls)
    yield made
    made.close()
    face.runner.run(face.database.dispose_async())
    face.runner.close()


COLUMNS = "(id, tenant_id, owner_id, title, level, is_deleted)"
VALUES = "(:id, '{tenant}', :owner, 'n', 'LOW', false)"
INSERT = f"INSERT INTO notes {COLUMNS} VALUES {VALUES}"
Way = Callable[[Session, str, int], object]
"""A way of writing a row of this tenant and of this owner."""


def _sql(sql: str, **parameters: object) -> Way:
    def run(session: Session, tenant: str, owner: int) -> object:
        statement = sql.format(tenant=tenant)
        given = {"id": 50, "owner": owner, **parameters}
        return session.execute(text(statement), {name: each for name, each in given.items() if f":{name}" in statement})

    return run


def _many(session: Session, tenant: str, owner: int) -> object:
    rows = [{"id": number, "owner": 1 if number < 52 else owner} for number in range(50, 54)]
    return session.execute(text(INSERT.format(tenant=tenant if owner else "a")), rows)


def _flushed(session: Session, _tenant: str, owner: int) -> object:
    session.add(Note(id=50, owner_id=owner, title="n"))
    return session.flush()


def _core(session: Session, _tenant: str, owner: int) -> object:
    return session.execute(insert(Note), [{"id": number, "owner_id": owner, "title": "n"} for number in (50, 51)])


def _given_away(session: Session, _tenant: str, owner: int) -> object:
    return session.execute(update(Note).where(Note.id == 1).values(owner_id=owner))


def _repository(session: Session) -> Any:
    return create_repository(session, Note, tenant_id="a", auto_commit=False)


def _row(owner: int, number: int = 50) -> dict[str, object]:
    return {"id": number, "owner_id": owner, "title": "n"}


def _bulk(many: int, *, returning: bool) -> Way:
    """From 500 rows on COPY, if the database can; under its policies it can't."""
    rows = range(1000, 1000 + many)
    return lambda session, _, owner: _repository(session).bulk_create(
        [_row(owner if number == rows[-1] else 1, number) for number in rows], returning=returning
    )


BY_HAND: dict[str, Way] = {
    "insert": _sql(INSERT),
    "insert returning": _sql(f"{INSERT} RETURNING id"),
    "many inserts": _many,
    "insert from select": _sql(
        f"INSERT INTO notes {COLUMNS} SELECT n, '{{tenant}}', :owner, 'n', 'LOW', false FROM generate_series(50, 52) n"
    ),
    "upsert of a new row": _sql(f"{INSERT} ON CONFLICT (id) DO UPDATE SET title = 'u'"),
    "upsert that changes the row": _sql(
        f"INSERT INTO notes {COLUMNS} VALUES (1, 'a', 1, 'n', 'LOW', false) "
        "ON CONFLICT (id) DO UPDATE SET owner_id = :owner, tenant_id = '{tenant}'"
    ),
    "update": _sql("UPDATE notes SET owner_id = :owner, tenant_id = '{tenant}' WHERE id = 1"),
    "update without reading": _sql("UPDATE notes SET owner_id = :owner, tenant_id = '{tenant}'"),
}
"""Ways that can name another tenant: raw SQL."""

OWN: dict[str, Way] = {
    "flush": _flushed,
    "insert of the ORM": _core,
    "update of the ORM": _given_away,
    "create": lambda session, _, owner: _repository(session).create(_row(owner)),
    "update of a repository": lambda session, _, owner: _repository(session).update(1, {"owner_id": owner}),
    "bulk_create": _bulk(3, returning=True),
    "bulk_create without rows": _bulk(3, returning=False),
    "bulk_create of many": _bulk(600, returning=False),
    "bulk_upsert": lambda session, _, owner: _repository(session).bulk_upsert([_row(owner)], conflict_fields=["id"]),
}
"""Ways whose tenant is always that of the session."""

CASES = {
    "allowed": ("a", 1, None),
    "not allowed": ("a", 9, PermissionDeniedError),
    "of another tenant": ("b", 1, TenantIsolationError),
    "of another tenant and not allowed": ("b", 9, TenantIsolationError),
}


def _error_of(session: Session, run: Callable[[], object]) -> DatabaseError | None:
    """The error of the toolkit, which a repository raises, or to which the plugin translates it."""
    try:
        run()
    except (DatabaseError, DBAPIError) as error:
        return translate(error)
    finally:
        session.rollback()
    return None


def _session(guarded: Guarded) -> Any:
    session = guarded.session()
    bind_tenant(session, "a")
    bind_policies(session, [], actor=ACTORS["owner"])
    return session


@pytest.mark.parametrize("case", CASES)
def test_the_error_of_each_way_of_writing(guarded: Guarded, case: str) -> None:
    tenant, owner, expected = CASES[case]
    ways = BY_HAND if tenant == "b" else {**BY_HAND, **OWN}

    def attempts(session: Session) -> dict[str, DatabaseError | None]:
        return {name: _error_of(session, lambda way=way: way(session, tenant, owner)) for name, way in ways.items()}  # type: ignore[misc]  # mypy can't infer the lambda's default

    errors = guarded.run(_session(guarded), attempts)
    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(ways, expected or type(None))
    for error in errors.values():
        assert error is None or not any(each in str(error).replace("42501", "") for each in "0123456789'")


def _upsert(number: int, tenant: str = "a", owner: int = 1) -> Way:
    row = f"INSERT INTO notes {COLUMNS} VALUES ({number}, '{tenant}', {owner}, 'n', 'LOW', false)"
    return _sql(f"{row} ON CONFLICT (id) DO UPDATE SET title = 'u'")


OTHERS: dict[str, tuple[Way, type[DatabaseError]]] = {
    "an upsert meets a row that the actor may not update": (_upsert(2), PermissionDeniedError),
    "an upsert meets another tenant's row": (_upsert(101), TenantIsolationError),
    "an upsert meets another tenant's row of another owner": (_upsert(102), TenantIsolationError),
    "an upsert of a row that the actor may not create": (_upsert(2, owner=9), PermissionDeniedError),
    "an upsert of another tenant's row meets one of the tenant": (_upsert(2, tenant="b"), TenantIsolationError),
    "a missing privilege on a table with a policy's name": (
        _sql('SELECT * FROM "dotmac_create"'),
        TenantIsolationError,
    ),
}


def test_the_errors_of_upserts_and_of_missing_privileges(guarded: Guarded, owner_engine: Engine) -> None:
    def attempts(session: Session) -> dict[str, type]:
        return {
            name: type(_error_of(session, lambda way=way: way(session, "a", 1)))  # type: ignore[misc]  # as above
            for name, (way, _) in OTHERS.items()
        }

    with owner_engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE dotmac_create (id integer)")
    try:
        assert guarded.run(_session(guarded), attempts) == {name: error for name, (_, error) in OTHERS.items()}
    finally:
        with owner_engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE dotmac_create")


def test_policies_and_tables_of_the_user_with_names_of_ours(guarded: Guarded, owner_engine: Engine) -> None:
    """A restrictive policy of the user is not one of rights, a table is no policy, and a RAISE is no refusal."""
    changes = """
        CREATE POLICY a_rule ON remarks AS RESTRICTIVE FOR INSERT WITH CHECK (id <> 7);
        CREATE TABLE dotmac_update (id integer, tenant_id text);
        ALTER TABLE dotmac_update ENABLE ROW LEVEL SECURITY;
        CREATE POLICY plain ON dotmac_update USING (false);
        CREATE TABLE dotmac_read (id integer);
        ALTER TABLE dotmac_read ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON dotmac_read USING (true);
        CREATE POLICY dotmac_create ON dotmac_read AS RESTRICTIVE USING (false);
        CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE 'new row violates row-level security policy "dotmac_create" for table "notes"'
            USING ERRCODE = '42501'; END $$;
        CREATE TABLE raising (id integer);
        CREATE TRIGGER raising BEFORE INSERT ON raising FOR EACH ROW EXECUTE FUNCTION raises();
    """
    grants = f"GRANT ALL ON dotmac_update, dotmac_read, raising TO {APP}"
    with owner_engine.begin() as connection:
        connection.exec_driver_sql(changes)
        connection.exec_driver_sql(grants)
    ways = [
        "INSERT INTO remarks (id, tenant_id, note_id) VALUES (7, 'a', 1)",
        "INSERT INTO dotmac_update VALUES (1, 'b')",
        "INSERT INTO dotmac_read VALUES (1)",
        "INSERT INTO raising VALUES (1)",
    ]
    try:

        def attempts(session: Session) -> dict[str, type]:
            return {sql: type(_error_of(session, lambda sql=sql: session.execute(text(sql)))) for sql in ways}  # type: ignore[misc]  # as above

        assert guarded.run(_session(guarded), attempts) == dict.fromkeys(ways, TenantIsolationError)
    finally:
        with owner_engine.begin() as connection:
            connection.exec_driver_sql(
                "DROP POLICY a_rule ON remarks; DROP TABLE dotmac_update, dotmac_read, raising; DROP FUNCTION raises()"
            )


def test_the_message_names_the_model_and_the_right(guarded: Guarded) -> None:
    def attempt(session: Session) -> tuple[DatabaseError | None, DatabaseError | None]:
        creation = _error_of(session, lambda: _repository(session).create(_row(9)))
        return creation, _error_of(session, lambda: _repository(session).update(1, {"owner_id": 9}))

    created, updated = guarded.run(_session(guarded), attempt)
    of_policy = "Note: a policy in the database does not allow to {} this row (SQLSTATE 42501)."
    assert [str(created), str(updated)] == [of_policy.format("create"), of_policy.format("update")]
    assert "dotmac_create" in str(created.__cause__ if created is not None else None)


def test_the_plugin_answers_with_the_code_of_the_error(rls: RowLevelSecurity, app: Database) -> None:
    def actor() -> object:
        return ACTORS["owner"]

    plugin = DatabasePlugin(app.url, tenant=tenant_from_header(), actor=actor, policies=[POLICY], rls=rls)
    served = FastAPI(lifespan=plugin.lifespan)
    register_exception_handlers(served)

    @served.post("/{tenant}/{owner}")
    async def write(tenant: str, owner: int, session: Annotated[AsyncSession, Depends(get_session)]) -> None:
        await session.execute(text(INSERT.format(tenant=tenant)), {"id": 50, "owner": owner})

    with asyncio.Runner() as runner:
        api = Api(served, runner)
        answers = [api.post(path, tenant="a") for path in ("/a/9", "/b/1", "/b/9")]
        runner.run(plugin.database.dispose_async())
    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (403, "permission_denied"),
        (403, "tenant_isolation"),
        (403, "tenant_isolation"),
    ]


LANGUAGES = {
    "en": ('new row violates row-level security policy {} for table "{}"', '"{}"'),
    "en, conflict": ('new row violates row-level security policy {} (USING expression) for table "{}"', '"{}"'),
    "en, merge": ('target row violates row-level security policy {} (USING expression) for table "{}"', '"{}"'),
    "de": ("neue Zeile verletzt Policy für Sicherheit auf Zeilenebene {} für Tabelle »{}«", "»{}«"),
    "fr": ("la nouvelle ligne viole la politique de sécurité au niveau ligne {} pour la table « {} »", "« {} »"),
    "es": ("el nuevo registro viola la política de seguridad de registros {} para la tabla «{}»", "«{}»"),
    "ja": ('新しい行はテーブル"{1}"行レベルセキュリティポリシ{0}に違反しています', '"{}"'),
    "ko": ('새 자료가 {} 로우 단위 보안 정책을 위반했습니다, 해당 테이블: "{}"', '"{}"'),
    "zh": ('新行违背了表"{1}"的行级安全性策略{0}', '"{}"'),
}


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_policy_is_read_in_each_language(language: str, driver: str) -> None:
    sentence, quotes = LANGUAGES[language]

    def read(policy: str, table: str = "notes", function: str | None = "ExecWithCheckOptions") -> str | None:
        message = sentence.format(quotes.format(policy) if policy else "", table)
        if driver == "asyncpg":
            return refused_right(SimpleNamespace(message=message, server_source_function=function))
        return refused_right(SimpleNamespace(diag=SimpleNamespace(message_primary=message, source_function=function)))

    assert read("dotmac_create") == "to create this row"
    assert read("dotmac_read", "Order items") == "to write a row that the actor may not read"
    assert read("dotmac_delete", "new row") == "to delete this row"
    for unsure in (
        read(""),
        read("", "dotmac_create"),
        read("a_policy"),
        read("dotmac_tenant"),
        read("dotmac_create", function="exec_stmt_raise"),
        read("dotmac_create", function=None),
        read("dotmac_create", "dotmac_update"),
    ):
        assert unsure is None
