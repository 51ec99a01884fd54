from sqlalchemy.orm import sessionmaker

assert "ENABLE ROW LEVEL SECURITY" in "".join(rls.create_statements())
test_no_tenant_sees_another(guard_tenants(sessionmaker(database.engine)))
for each in (app_connection, owner_connection):
    each.close()
app.dispose()
await database.dispose_async()
