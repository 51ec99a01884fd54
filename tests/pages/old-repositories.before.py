from sqlmodel import Field, SQLModel

from dotmac_database import create_database
from dotmac_database.sqlmodel import TenantMixin


class User(TenantMixin, SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str
    email: str
    status: str = "active"
    is_active: bool = True


database = create_database("sqlite:///old.db")
SQLModel.metadata.create_all(database.engine)
tenant_id, db, async_db = "acme", database.sessions(), database.async_sessions()
db.add(User(name="Ann", email="ann@example.com", tenant_id="acme"))
db.commit()
