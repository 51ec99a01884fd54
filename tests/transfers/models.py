"""Models whose tables are of each kind that a tenant's rows can be in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Column,
    Computed,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from dotmac_database import HistoryMixin, SoftDeleteMixin, TenantMixin, idempotency_metadata, outbox_table


class Base(DeclarativeBase):
    pass


class Country(Base):
    """Belongs to no tenant."""

    __tablename__ = "countries"

    code: Mapped[str] = mapped_column(String(2), primary_key=True)


class Account(Base):
    """The tenants themselves."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    title: Mapped[str] = mapped_column(String(50), default="An account")


class Owned(TenantMixin):
    tenant_id: Mapped[str] = mapped_column(String(20), ForeignKey("accounts.id"), index=True)


tags = Table(
    "customer_tags",
    Base.metadata,
    Column("customer_id", ForeignKey("customers.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Tag(Owned, Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str]


class Customer(HistoryMixin, SoftDeleteMixin, Owned, Base):
    """An identity that the database makes always, a computed column, soft deletion and a history."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column("the %name", String(50))
    country: Mapped[str | None] = mapped_column(ForeignKey("countries.code"))
    credit: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=Decimal("1.50"))
    twice: Mapped[Decimal] = mapped_column(Numeric(12, 2), Computed("credit * 2", persisted=True))
    tags: Mapped[list[Tag]] = relationship(secondary=tags)


class Order(Owned, Base):
    """A composite key with the tenant in it."""

    __tablename__ = "orders"

    tenant_id: Mapped[str] = mapped_column(String(20), ForeignKey("accounts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))


class Line(HistoryMixin, Base):
    """No tenant column: the row can't exist without its order. Its history has none either."""

    __tablename__ = "lines"
    __table_args__ = (ForeignKeyConstraint(["account", "order_number"], ["orders.tenant_id", "orders.number"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str] = mapped_column(String(20))
    order_number: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Note(Base):
    """Found through two tables, and deleted by the foreign key itself."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    line_id: Mapped[int | None] = mapped_column(ForeignKey("lines.id", ondelete="CASCADE"))
    words: Mapped[str]


class Category(Owned, Base):
    """References itself."""

    __tablename__ = "categories"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("categories.id"))


class Link(Owned, Base):
    """References itself, and the reference can't be NULL."""

    __tablename__ = "links"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    next_id: Mapped[int] = mapped_column(ForeignKey("links.id"))


class Team(Owned, Base):
    """A cycle with `Person`, of which one reference can be NULL."""

    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    leader_id: Mapped[int | None] = mapped_column(ForeignKey("people.id", name="fk_leader", use_alter=True))


class Person(HistoryMixin, Owned, Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))


class Husband(Owned, Base):
    """A cycle of references that can't be NULL, but are checked at the commit."""

    __tablename__ = "husbands"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    wife_id: Mapped[int] = mapped_column(
        ForeignKey("wives.id", name="fk_wife", use_alter=True, deferrable=True, initially="DEFERRED")
    )


class Wife(Owned, Base):
    __tablename__ = "wives"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    husband_id: Mapped[int] = mapped_column(ForeignKey("husbands.id", deferrable=True, initially="DEFERRED"))


class Item(Owned, Base):
    __tablename__ = "items"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Book(Item):
    """The tenant is in the parent's table."""

    __tablename__ = "books"
    __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    pages: Mapped[int]


class Party(Base):
    """The tenant is in the child's table; a party without a member is nobody's."""

    __tablename__ = "parties"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "party"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Member(Owned, Party):
    __tablename__ = "members"
    __mapper_args__ = {"polymorphic_identity": "member"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("parties.id"), primary_key=True)
    number: Mapped[int]


class Fee(Owned, Base):
    """References a parent's row whose tenant is in the child's table."""

    __tablename__ = "a_fees"

    id: Mapped[int] = mapped_column(primary_key=True)
    party_id: Mapped[int | None] = mapped_column(ForeignKey("parties.id"))


class Email(Owned, Base):
    """Unique over all tenants."""

    __tablename__ = "emails"
    __table_args__ = (UniqueConstraint("address"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    address: Mapped[str]


class Pointer(Base):
    """Shared rows that can point to a tenant's row."""

    __tablename__ = "pointers"

    id: Mapped[int] = mapped_column(primary_key=True)
    tag_id: Mapped[int | None] = mapped_column(ForeignKey("tags.id"))
    email_id: Mapped[str | None] = mapped_column(ForeignKey("emails.id", ondelete="SET NULL"))


visits = Table(
    "visits",
    Base.metadata,
    Column("tenant_id", String(20)),
    Column("page", String(20)),
    Column("referrer", String(20)),
)
"""No class, no primary key, and equal rows."""

outbox = outbox_table(Base.metadata)

METADATA: tuple[MetaData, ...] = (Base.metadata,)
TABLES: list[Any] = [*Base.metadata.tables.values(), *idempotency_metadata.tables.values()]


def create(connection: Connection) -> None:
    """Create the tables."""
    Base.metadata.create_all(connection)
    idempotency_metadata.create_all(connection)
    connection.execute(Country.__table__.insert(), [{"code": "DE"}, {"code": "CM"}])


def fill(connection: Connection, tenant: str, base: int, many: int = 3) -> None:
    """Rows of a tenant in every table. ``base`` is the first number of its keys."""
    numbers = range(base, base + many)
    identity = "OVERRIDING SYSTEM VALUE " if connection.dialect.name == "postgresql" else ""

    def put(table: Any, *rows: dict[str, Any]) -> None:
        connection.execute(table.insert(), [*rows])

    account: Any = Account.__table__
    put(account, {"id": tenant, "title": "Ünïcode \u2028 'quoted' \\ {}"})
    put(Tag.__table__, *({"id": n, "tenant_id": tenant, "word": f"tag {n}"} for n in numbers))
    for n in numbers:
        connection.execute(
            text(
                f'INSERT INTO customers (id, tenant_id, "the %name", country, credit, is_deleted) {identity}'
                "VALUES (:id, :tenant, :name, 'DE', 2.25, :deleted)"
            ),
            {"id": n, "tenant": tenant, "name": f"Name % {n}", "deleted": n % 2 == 0},
        )
    connection.execute(text("UPDATE customers SET credit = 3.5 WHERE id = :id"), {"id": base})
    put(tags, *({"customer_id": n, "tag_id": n} for n in numbers))
    put(Order.__table__, *({"tenant_id": tenant, "number": n % 7, "customer_id": n} for n in numbers))
    put(
        Line.__table__,
        *({"id": n, "account": tenant, "order_number": n % 7, "data": bytes([0, n % 256, 255])} for n in numbers),
    )
    put(Note.__table__, *({"id": n, "line_id": n, "words": "\t\n"} for n in numbers))
    put(Category.__table__, {"id": base + many, "tenant_id": tenant, "parent_id": None})
    put(Category.__table__, *({"id": n, "tenant_id": tenant, "parent_id": base + many} for n in numbers))
    put(Link.__table__, *({"id": n, "tenant_id": tenant, "next_id": n} for n in numbers))
    connection.execute(
        text("UPDATE links SET next_id = :last WHERE tenant_id = :t"), {"last": numbers[-1], "t": tenant}
    )
    put(Team.__table__, *({"id": n, "tenant_id": tenant, "leader_id": None} for n in numbers))
    put(Person.__table__, *({"id": n, "tenant_id": tenant, "team_id": n} for n in numbers))
    connection.execute(text("UPDATE teams SET leader_id = id WHERE tenant_id = :tenant"), {"tenant": tenant})
    put(Husband.__table__, *({"id": n, "tenant_id": tenant, "wife_id": n} for n in numbers))
    put(Wife.__table__, *({"id": n, "tenant_id": tenant, "husband_id": n} for n in numbers))
    put(Item.__table__, *({"id": n, "tenant_id": tenant, "kind": "book"} for n in numbers))
    put(Book.__table__, *({"id": n, "pages": n} for n in numbers))
    put(Party.__table__, *({"id": n, "kind": "member"} for n in numbers))
    put(Member.__table__, *({"id": n, "tenant_id": tenant, "number": 1} for n in numbers))
    put(Fee.__table__, *({"id": n, "tenant_id": tenant, "party_id": n} for n in numbers))
    put(Email.__table__, *({"id": f"e{n}", "tenant_id": tenant, "address": f"{n}@example.com"} for n in numbers))
    put(visits, *({"tenant_id": tenant, "page": "same", "referrer": None} for n in numbers))
    connection.execute(
        text(
            "INSERT INTO dotmac_outbox (position, id, tenant_id, topic, payload, created_at) "
            "VALUES (:n, :id, :tenant, 'topic', :payload, '2026-01-02 03:04:05.678901')"
        ),
        [{"n": n, "id": f"{n:032x}", "tenant": tenant, "payload": '{"a":  1, "a": null}'} for n in numbers],
    )
    connection.execute(
        text(
            "INSERT INTO dotmac_idempotency_keys (tenant_id, key, result, created_at) "
            "VALUES (:tenant, :key, 'null', '2026-01-02 03:04:05')"
        ),
        [{"tenant": tenant, "key": f"key {n}"} for n in numbers],
    )


def every_row(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, in the form in which the driver reads them as texts or raw values."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for table in TABLES:
        name = connection.dialect.identifier_preparer.format_table(table)
        if connection.dialect.name == "postgresql":
            query = f"SELECT CAST(t AS text) FROM {name} AS t"
        else:
            query = f"SELECT * FROM {name}"
        rows[table.name] = sorted((tuple(row) for row in connection.exec_driver_sql(query)), key=repr)
    return rows


def count(connection: Connection, table: Any) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()
