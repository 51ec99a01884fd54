from types import SimpleNamespace

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import async_sessionmaker

import dotmac_database.tenancy.alembic
from dotmac_database import RowLevelSecurity, bind_tenant, guard_tenants
from tests.confined import ROLE


class Ledger(db.TenantMixin, Base):
    __tablename__ = "ledgers"

    id: Mapped[int] = mapped_column(primary_key=True)


engine = database.async_engine
owner_connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
Base.metadata.create_all(owner_connection)
for each in (
    f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD 'dotmac'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ledgers TO {ROLE}",
    f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}",
    "CREATE TABLE users (id integer, tenant_id text)",
    "CREATE TABLE seats (id integer, org integer)",
):
    owner_connection.exec_driver_sql(each)
app = create_database(database.url.set(username=ROLE, password="dotmac"))
app_connection = app.engine.connect()
op = Operations(MigrationContext.configure(owner_connection))
settings = SimpleNamespace(rls_secret="more than sixteen bytes")
