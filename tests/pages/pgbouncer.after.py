from dotmac_database import ValidationError, create_database

assert plugin.database.options.transaction_pooler
try:
    create_database("postgresql://localhost/shop", transaction_pooler=True, statement_timeout=3)
except ValidationError as error:
    assert "ALTER ROLE" in str(error)
else:
    raise AssertionError("the page says that it is refused")
