"""A migration that Alembic writes from the toolkit's mixins and tables runs as it is, up and down, and nothing drifts.

The environment is Alembic's own: ``alembic init``, with the metadata named in ``env.py`` and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from types import new_class
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import ARRAY, MetaData, create_engine, inspect, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry
from sqlmodel import Field, SQLModel

from dotmac_database import AuditMixin, FullText, LivingUnique, SoftDeleteMixin, TenantMixin, UTCDateTime, VersionMixin
from dotmac_database import sqlmodel as twins
from dotmac_database.engines import make_engine, sync_url
from dotmac_database.transactions import idempotency_metadata

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
MIXINS: dict[str, tuple[str, ...]] = {
    "audit": ("AuditMixin",),
    "soft delete": ("SoftDeleteMixin",),
    "tenant": ("TenantMixin",),
    "version": ("VersionMixin",),
    "all": ("TenantMixin", "AuditMixin", "SoftDeleteMixin", "VersionMixin"),
}
DECLARATIVE = {each.__name__: each for each in (TenantMixin, AuditMixin, SoftDeleteMixin, VersionMixin)}


def declarative(names: dict[str, str] | None) -> MetaData:
    """A table for each mixin, and one for all."""

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=names)

    for table, mixins in MIXINS.items():
        type(
            table.title().replace(" ", ""),
            (*(DECLARATIVE[each] for each in mixins), Base),
            {
                "__tablename__": table.replace(" ", "_"),
                "__annotations__": {"id": Mapped[int], "at": Mapped[datetime | None]},
                "id": mapped_column(primary_key=True),
                "at": mapped_column(UTCDateTime(), index=True),
            },
        )
    return Base.metadata


def sqlmodel(names: dict[str, str] | None) -> MetaData:
    """As `declarative`, of SQLModel's."""

    class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=names))):
        pass

    for table, mixins in MIXINS.items():
        members: dict[str, Any] = {
            "__tablename__": table.replace(" ", "_"),
            "__module__": __name__,
            "__annotations__": {"id": int, "at": datetime | None},
            "id": Field(primary_key=True),
            "at": Field(default=None, sa_type=UTCDateTime),
        }
        bases = (*(getattr(twins, each) for each in mixins), Base)
        new_class(table.title().replace(" ", ""), bases, {"table": True}, lambda body, own=members: body.update(own))
    return Base.metadata


def indexed(names: dict[str, str] | None) -> MetaData:
    """What the toolkit puts into a table's arguments."""

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=names)

    class Person(TenantMixin, SoftDeleteMixin, Base):
        __tablename__ = "people"
        __table_args__ = (LivingUnique("email"),)
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str]

    return Base.metadata


def words(names: dict[str, str] | None) -> MetaData:
    """An index of words."""

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=names)

    class Text(AuditMixin, Base):
        __tablename__ = "texts"
        __table_args__ = (FullText("body"),)
        id: Mapped[int] = mapped_column(primary_key=True)
        body: Mapped[str]

    return Base.metadata


def own(_names: dict[str, str] | None) -> MetaData:
    """The toolkit's own tables."""
    return idempotency_metadata


KINDS: dict[str, Callable[[dict[str, str] | None], MetaData]] = {
    "declarative": declarative,
    "sqlmodel": sqlmodel,
    "own": own,
    "indexed": indexed,
    "words": words,
}


class Project:
    """What ``alembic init`` gives, for a database and its metadata."""

    def __init__(self, folder: Path, url: str, metadata: MetaData) -> None:
        self.config = Config(str(folder / "alembic.ini"), stdout=StringIO())
        command.init(self.config, str(folder / "migrations"))
        self.config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        self.config.attributes["metadata"] = metadata
        self.versions = folder / "migrations" / "versions"
        env = folder / "migrations" / "env.py"
        source = env.read_text()
        assert "target_metadata = None" in source
        # The metadata is handed over, since it is made by the test; logging is pytest's.
        source = source.replace("target_metadata = None", 'target_metadata = config.attributes["metadata"]')
        env.write_text(source.replace("fileConfig(config.config_file_name)", "pass"))

    def run(self, name: str, *args: Any, **options: Any) -> None:
        getattr(command, name)(self.config, *args, **options)

    def written(self) -> str:
        return "".join(each.read_text() for each in self.versions.glob("*.py"))


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    url = sync_url(database_url)
    engine = create_engine(url)
    if url.get_backend_name() == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield url.render_as_string(hide_password=False)
    if url.get_backend_name() == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()


@pytest.mark.parametrize("names", [None, NAMES], ids=["unnamed", "named"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_up_check_and_down(tmp_path: Path, url: str, kind: str, names: dict[str, str] | None) -> None:
    if kind == "words" and url.startswith("sqlite"):
        pytest.skip("Alembic leaves indexes on expressions out on SQLite: docs/search.md says what to do")
    metadata = KINDS[kind](names)
    project = Project(tmp_path, url, metadata)
    project.run("revision", "first", autogenerate=True)
    assert "dotmac_database" not in project.written(), project.written()
    project.run("upgrade", "head")
    engine = make_engine(make_url(url))
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            assert connection.execute(select(table)).all() == []
    project.run("check")
    project.run("downgrade", "base")
    engine.dispose()
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_a_column_that_is_added_later(tmp_path: Path, url: str) -> None:
    """A table that is there gets the mixin's nullable columns."""

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)

    project = Project(tmp_path, url, Base.metadata)
    project.run("revision", "first", autogenerate=True)
    project.run("upgrade", "head")
    Note.deleted_at = mapped_column(UTCDateTime)
    project.run("revision", "second", autogenerate=True)
    project.run("upgrade", "head")
    project.run("check")
    project.run("downgrade", "base")


def test_the_type_is_the_same_after_a_copy_and_an_old_migration_still_runs() -> None:
    assert repr(UTCDateTime()) == repr(pickle.loads(pickle.dumps(UTCDateTime()))) == "DateTime(timezone=True)"
    assert repr(UTCDateTime().copy()) == "DateTime(timezone=True)"
    assert isinstance(UTCDateTime(timezone=True), UTCDateTime)
    assert "DateTime(timezone=True)" in repr(ARRAY(UTCDateTime()))
    assert UTCDateTime.__module__ == "dotmac_database.types"
