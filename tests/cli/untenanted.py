from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of one class."""


class Setting(Base):
    """It belongs to no tenant."""

    __tablename__ = "untenanted_settings"

    id: Mapped[int] = mapped_column(primary_key=True)
