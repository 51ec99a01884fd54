"""Mapped classes of every shape, for `test_shapes`.

Each class has ``tenant_id`` and, if possible, ``name`` (a text) and ``size`` (a number), so that the same methods test
all classes. A family is the tables of one inheritance tree, or of one class with its related classes.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    MetaData,
    String,
    Table,
    case,
    func,
    join,
    select,
)
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    configure_mappers,
    deferred,
    mapped_column,
    relationship,
    synonym,
)
from sqlmodel import Field, SQLModel

from dotmac_database import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin

METADATA = MetaData()
VIEWS = MetaData()
"""The metadata of views, which ``create_all`` must not create."""


class Base(DeclarativeBase):
    metadata = METADATA


class Row:
    """The columns of nearly every class."""

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


def _mapped(on: str | None = None, identity: Any = None, **more: Any) -> dict[str, Any]:
    given = {"polymorphic_on": on, "polymorphic_identity": identity, **more}
    return {key: value for key, value in given.items() if value is not None}


class Plain(Row, Base):
    __tablename__ = "plain"


class Marked(TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin, Base):
    __tablename__ = "marked"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int]


# Joined inheritance.


class Asset(Base):
    __tablename__ = "asset"
    __mapper_args__ = _mapped("kind", "asset")
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]
    site_id: Mapped[int | None] = mapped_column(ForeignKey("site.id"))
    site: Mapped[Site | None] = relationship()
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("asset.id", ondelete="SET NULL"))
    parent: Mapped[Asset | None] = relationship(remote_side=id)


class Site(Row, Base):
    __tablename__ = "site"


class Router(Asset):
    __tablename__ = "router"
    id: Mapped[int] = mapped_column(ForeignKey("asset.id"), primary_key=True)
    size: Mapped[int]
    __mapper_args__ = _mapped(None, "router", inherit_condition=id == Asset.id)


class Edge(Router):
    __tablename__ = "edge"
    __mapper_args__ = _mapped(None, "edge")
    edge_id: Mapped[int] = mapped_column(ForeignKey("router.id"), primary_key=True)
    place: Mapped[str]


class Switch(Asset):
    __tablename__ = "switch"
    __mapper_args__ = _mapped(None, "switch")
    id: Mapped[int] = mapped_column(ForeignKey("asset.id"), primary_key=True)
    size: Mapped[int]


class Token(Base):
    """A UUID key, which only the repository generates."""

    __tablename__ = "token"
    __mapper_args__ = _mapped("kind", "token")
    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str] = mapped_column("kind_code")
    name: Mapped[str]


class ApiToken(Token):
    __tablename__ = "api_token"
    __mapper_args__ = _mapped(None, "api")
    id: Mapped[UUID] = mapped_column(ForeignKey("token.id"), primary_key=True)
    size: Mapped[int]
    site_id: Mapped[int | None] = mapped_column(ForeignKey("site.id"))
    site: Mapped[Site | None] = relationship()


class Page(Base):
    """Joined inheritance without a discriminator. The parent has the version and soft-deletion columns."""

    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    deleted_at: Mapped[datetime | None]


class Article(Page):
    """A child with a relationship that cascades, also if the row is deleted by a repository of `Page`."""

    __tablename__ = "article"
    id: Mapped[int] = mapped_column(ForeignKey("page.id"), primary_key=True)
    size: Mapped[int]
    remarks: Mapped[list[Remark]] = relationship(cascade="all, delete-orphan")


class Remark(Base):
    __tablename__ = "remark"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    article_id: Mapped[int] = mapped_column(ForeignKey("article.id", ondelete="CASCADE"))


class Branch(Base):
    """Joined inheritance with a composite key."""

    __tablename__ = "branch"
    __mapper_args__ = _mapped("kind", "branch")
    region: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str]


class Depot(Branch):
    __tablename__ = "depot"
    __mapper_args__ = _mapped(None, "depot")
    __table_args__ = (ForeignKeyConstraint(["region", "number"], ["branch.region", "branch.number"]),)
    region: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]


# Single-table inheritance. The discriminator is a column, a renamed column, an enum, an expression, or a function.


class Vehicle(Row, Base):
    __tablename__ = "vehicle"
    __mapper_args__ = _mapped("kind", "vehicle")
    kind: Mapped[str]


class Car(Vehicle):
    __mapper_args__ = _mapped(None, "car")


class Truck(Vehicle):
    __mapper_args__ = _mapped(None, "truck")


class SportsCar(Car):
    __mapper_args__ = _mapped(None, "sports")


class Animal(Row, Base):
    __tablename__ = "animal"
    __mapper_args__ = _mapped("kind", "animal")
    kind: Mapped[str | None] = mapped_column("animal_kind")


class Cat(Animal):
    __mapper_args__ = _mapped(None, "cat")


class Dog(Animal):
    __mapper_args__ = _mapped(None, "dog")


class Kind(enum.Enum):
    CASH = "cash"
    CARD = "card"


class Payment(Row, Base):
    """The root class has no identity, so every row is of a subclass."""

    __tablename__ = "payment"
    __mapper_args__ = _mapped("kind", polymorphic_abstract=True)
    kind: Mapped[Kind]


class Cash(Payment):
    __mapper_args__ = _mapped(None, Kind.CASH)


class Card(Payment):
    __mapper_args__ = _mapped(None, Kind.CARD)


class Person(Row, Base):
    """A mapped SQL expression of another column is the discriminator."""

    __tablename__ = "person"
    grade: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = column_property(case((grade > 5, "senior"), else_="person"))  # type: ignore[operator]
    __mapper_args__ = _mapped("kind", "person")


class Senior(Person):
    __mapper_args__ = _mapped(None, "senior")


class Signal(Row, Base):
    """A function of a column is the discriminator."""

    __tablename__ = "signal"
    code: Mapped[str] = mapped_column(default="PLAIN")
    __mapper_args__ = {"polymorphic_on": func.lower(code), "polymorphic_identity": "plain"}  # noqa: RUF012


class Alarm(Signal):
    __mapper_args__ = _mapped(None, "alarm")


# Concrete inheritance and abstract classes.


class Paper(Row, Base):
    __tablename__ = "paper"


class Memo(Paper):
    __tablename__ = "memo"
    __mapper_args__ = {"concrete": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


class Abstract(Row, Base):
    __abstract__ = True


class Derived(Abstract):
    __tablename__ = "derived"


class Document(AbstractConcreteBase, Base):
    strict_attrs = True
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


class Letter(Document):
    __tablename__ = "letter"
    __mapper_args__ = _mapped(None, "letter", concrete=True)


class Invoice(Document):
    __tablename__ = "invoice"
    __mapper_args__ = _mapped(None, "invoice", concrete=True)


# Classes that are mapped to a select, a join, or a view.


class Ticket(Row, Base):
    __tablename__ = "ticket"


_ticket: Any = Ticket.__table__


class OpenTicket(Base):
    __table__ = select(*_ticket.c).where(_ticket.c.size > 1).subquery("open_ticket")


class SeenTicket(DeclarativeBase):
    metadata = VIEWS


class ViewedTicket(SeenTicket):
    __table__ = Table(
        "viewed_ticket",
        VIEWS,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String),
        Column("name", String),
        Column("size", Integer),
    )


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]


account_sizes = Table(
    "account_size",
    METADATA,
    Column("account_id", ForeignKey("account.id", ondelete="CASCADE"), primary_key=True),
    Column("size", Integer),
)
_account: Any = Account.__table__


class SizedAccount(Base):
    __table__ = join(_account, account_sizes)
    id = column_property(_account.c.id, account_sizes.c.account_id)


# Kinds of keys.


class Seat(Base):
    __tablename__ = "seat"
    region: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


class Locker(Base):
    """A primary key that contains the tenant."""

    __tablename__ = "locker"
    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    size: Mapped[int]


class Numbered(Base):
    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


class Device(Base):
    __tablename__ = "device"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]


# Relationships.


class Node(Row, Base):
    __tablename__ = "node"
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    parent: Mapped[Node | None] = relationship(remote_side="Node.id", back_populates="children")
    children: Mapped[list[Node]] = relationship(back_populates="parent")


post_labels = Table(
    "post_label",
    METADATA,
    Column("post_id", ForeignKey("post.id", ondelete="CASCADE"), primary_key=True),
    Column("label_id", ForeignKey("label.id", ondelete="CASCADE"), primary_key=True),
)


class Label(Row, Base):
    __tablename__ = "label"


class Post(Row, Base):
    __tablename__ = "post"
    labels: Mapped[list[Label]] = relationship(secondary=post_labels)


class Club(Row, Base):
    __tablename__ = "club"


class Membership(Base):
    """An association table with additional columns."""

    __tablename__ = "membership"
    site_id: Mapped[int] = mapped_column(primary_key=True)
    club_id: Mapped[int] = mapped_column(ForeignKey("club.id"), primary_key=True)
    tenant_id: Mapped[str]
    name: Mapped[str]
    size: Mapped[int]
    club: Mapped[Club] = relationship()


class Profile(Row, Base):
    """A one-to-one relationship."""

    __tablename__ = "profile"
    club_id: Mapped[int | None] = mapped_column(ForeignKey("club.id"), unique=True)
    club: Mapped[Club | None] = relationship()


# Unusual names and columns.


class Quoted(Base):
    __tablename__ = "Order by"
    id: Mapped[int] = mapped_column("Select", primary_key=True)
    tenant_id: Mapped[str] = mapped_column("Tenant Id")
    name: Mapped[str] = mapped_column("na%me")
    size: Mapped[int] = mapped_column("size (cm)")


class Renamed(Base):
    """Each attribute except the key is stored in the column with the name of another attribute."""

    __tablename__ = "renamed"
    id: Mapped[int] = mapped_column("number", primary_key=True)
    tenant_id: Mapped[str] = mapped_column("org")
    name: Mapped[str] = mapped_column("size")
    size: Mapped[int] = mapped_column("name")


class Apart(Row, Base):
    __tablename__ = "apart"
    __table_args__ = {"schema": "aside"}  # noqa: RUF012


class Expressed(Row, Base):
    """A hybrid, a computed column, a synonym and two column properties."""

    __tablename__ = "expressed"
    doubled: Mapped[int] = mapped_column(Computed("size * 2"))
    title: Mapped[str] = synonym("name")

    @hybrid_property
    def tripled(self) -> int:
        return self.size * 3


_expressed: Any = Expressed.__table__
Expressed.quadrupled = column_property(_expressed.c.size * 4)
Expressed.clubs = column_property(
    select(func.count(Club.id)).where(Club.name == _expressed.c.name).correlate(_expressed).scalar_subquery()
)


class Deferred(Row, Base):
    __tablename__ = "deferred"
    note: Mapped[str | None] = deferred(Column("note", String))  # type: ignore[assignment]  # as SQLAlchemy has it


class Dataclass(MappedAsDataclass, Base):
    __tablename__ = "dataclass"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    tenant_id: Mapped[str] = mapped_column(default=None)
    name: Mapped[str] = mapped_column(default="")
    size: Mapped[int] = mapped_column(default=0)


class Modelled(SQLModel, table=True):
    metadata = METADATA
    __tablename__ = "modelled"
    id: int | None = Field(default=None, primary_key=True)
    tenant_id: str | None = Field(default=None, nullable=False)
    name: str
    size: int


configure_mappers()
