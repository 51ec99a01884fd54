"""Typed, tenant-confined data access for SQLAlchemy and SQLModel, the same in sync and async."""
