assert users.get_active_users() == listed == page and total == 1
assert user.name == (await AsyncUserRepository(async_db, tenant_id=tenant_id).get_by_email("ann@example.com")).name
await async_db.close()
db.close()
await database.dispose_async()
database.dispose()
