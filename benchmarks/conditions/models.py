"""The mapped classes of the conditions. Some map the main table once more, others have tables of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, ForeignKey, Integer, String, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates
from sqlalchemy.types import TypeEngine

from dotmac_database.types import UTCDateTime

from ..schema import UserColumns, user_indexes


class RelatedBase(DeclarativeBase):
    """The base class of the models with relationships."""


class Organisation(RelatedBase):
    """What users belong to."""

    __tablename__ = "related_organisations"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))


class Related(UserColumns, RelatedBase):
    """A user with an organisation and posts, which no operation loads."""

    __tablename__ = "related_users"
    __table_args__ = user_indexes("related")

    organisation_id: Mapped[int | None] = mapped_column(ForeignKey("related_organisations.id"))
    organisation: Mapped[Organisation | None] = relationship()
    posts: Mapped[list[Post]] = relationship(back_populates="author")


class Post(RelatedBase):
    """What a user has written."""

    __tablename__ = "related_posts"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(80))
    author_id: Mapped[Any] = mapped_column(ForeignKey("related_users.id"), index=True)
    author: Mapped[Related] = relationship(back_populates="posts")


FILL_RELATED = (
    "INSERT INTO related_organisations SELECT n, 'Organisation ' || n FROM generate_series(1, 50) n",
    "UPDATE related_users SET organisation_id = score % 50 + 1",
    "INSERT INTO related_posts (title, author_id) SELECT 'A post by ' || name, id FROM related_users",
)
"""The statements that fill the other tables after `Related`."""


class ValidatedBase(DeclarativeBase):
    """The base class of `Validated`."""


class Validated(UserColumns, ValidatedBase):
    """The main table, with a validator."""

    __tablename__ = "bench_users"

    @validates("email")
    def checked(self, _key: str, email: str) -> str:
        """Refuse what is no address."""
        if "@" not in email:
            raise ValueError(f"{email!r} is not an e-mail address")
        return email


class LoadedBase(DeclarativeBase):
    """The base class of `Loaded`."""


class Loaded(UserColumns, LoadedBase):
    """The main table, with a listener to loads."""

    __tablename__ = "bench_users"

    is_known = False


@event.listens_for(Loaded, "load")
def _mark(user: Loaded, _context: object) -> None:
    user.is_known = True


class WideBase(DeclarativeBase):
    """The base class of `Wide`."""


# The type of a further column, the SQL that fills it, and its value in a new row.
_TEXT = (String(40), "'Text about ' || name", "some text")
_NUMBER = (Integer(), "score * 3", 12)
_FLAG = (Boolean(), "score % 2 = 0", True)
_MOMENT = (UTCDateTime(), "created_at", datetime(2024, 1, 1, tzinfo=UTC))

_FURTHER: dict[str, tuple[TypeEngine[Any], str, object]] = {
    f"{group}_{n}": kind
    for group, kind, count in (("text", _TEXT, 11), ("number", _NUMBER, 10), ("flag", _FLAG, 4), ("moment", _MOMENT, 5))
    for n in range(count)
}
"""The columns by which `Wide` exceeds the ten columns of a user."""

Wide: Any = type(
    "Wide",
    (UserColumns, WideBase),
    {
        "__tablename__": "wide_users",
        "__table_args__": user_indexes("wide"),
        **{name: mapped_column(sql_type, nullable=True) for name, (sql_type, _, _) in _FURTHER.items()},
    },
)
"""A user with 40 columns."""

FILL_WIDE = ("UPDATE wide_users SET " + ", ".join(f"{name} = {sql}" for name, (_, sql, _) in _FURTHER.items()),)
"""The statement that fills the further columns of `Wide`."""

WIDE_VALUES = {name: value for name, (_, _, value) in _FURTHER.items()}
"""The values of the further columns in a new row."""
