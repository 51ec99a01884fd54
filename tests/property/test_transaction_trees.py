"""Any nesting of blocks that succeed and fail commits just what no failed block encloses, and tells just that."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dotmac_database.execution.state import state_of
from dotmac_database.repositories import BaseRepository
from dotmac_database.transactions import DatabaseTransaction, on_commit, on_rollback


class Base(DeclarativeBase):
    """One table."""


class Entry(Base):
    __tablename__ = "tree_entries"

    number: Mapped[int] = mapped_column(primary_key=True)


class ToldError(Exception):
    """A block's own failure."""


@dataclass(frozen=True)
class Write:
    """A row, by the session or by a repository, and callbacks for both ends."""

    by_repository: bool


@dataclass(frozen=True)
class Duplicate:
    """A write that the database refuses, in a savepoint of the repository's."""


@dataclass(frozen=True)
class Block:
    steps: list[Any]
    fails: bool
    lazy: bool = False


steps = st.recursive(
    st.builds(Write, by_repository=st.booleans()) | st.builds(Duplicate),
    lambda children: st.builds(Block, steps=st.lists(children, max_size=4), fails=st.booleans(), lazy=st.booleans()),
    max_leaves=12,
)


class Run:
    """Runs a tree on a session, and keeps the model of what must come of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._repository = BaseRepository(session, Entry)
        self._numbers = itertools.count(1)
        self.told_commits: list[int] = []
        self.told_rollbacks: list[int] = []

    def block(self, block: Block) -> tuple[list[int], list[int]]:
        """The rows that survive this block's own end, and those that do not."""
        kept: list[int] = []
        lost: list[int] = []
        try:
            with DatabaseTransaction.sync_transaction(self._session, lazy=block.lazy):
                for step in block.steps:
                    self._step(step, kept, lost)
                if block.fails:
                    raise ToldError
        except ToldError:
            return [], kept + lost
        return kept, lost

    def _step(self, step: Any, kept: list[int], lost: list[int]) -> None:
        if isinstance(step, Block):
            inner_kept, inner_lost = self.block(step)
            kept += inner_kept
            lost += inner_lost
        elif isinstance(step, Duplicate):
            if kept:
                with pytest.raises(Exception, match="exists already"):
                    self._repository.create({"number": kept[-1]})
        else:
            number = next(self._numbers)
            if step.by_repository:
                self._repository.create({"number": number})
            else:
                self._session.add(Entry(number=number))
                self._session.flush()
            on_commit(self._session, lambda: self.told_commits.append(number))
            on_rollback(self._session, lambda: self.told_rollbacks.append(number))
            kept.append(number)


@pytest.fixture(scope="module")
def engine(dialect: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if dialect == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('trees')}/trees.db"
    else:
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("expire_on_commit", [True, False])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    trees=st.lists(
        st.builds(Block, steps=st.lists(steps, max_size=5), fails=st.booleans(), lazy=st.booleans()), max_size=3
    )
)
def test_what_survives_is_committed_and_told(engine: Any, expire_on_commit: bool, trees: list[Block]) -> None:
    with engine.begin() as connection:
        connection.execute(Entry.__table__.delete())
    kept: list[int] = []
    lost: list[int] = []
    with Session(engine, expire_on_commit=expire_on_commit) as session:
        run = Run(session)
        for tree in trees:
            tree_kept, tree_lost = run.block(tree)
            kept += tree_kept
            lost += tree_lost
            assert not session.in_transaction()
            assert state_of(session).open_blocks == 0
    with Session(engine) as other:
        assert list(other.scalars(select(Entry.number).order_by(Entry.number))) == sorted(kept)
    assert sorted(run.told_commits) == sorted(kept)
    assert sorted(run.told_rollbacks) == sorted(lost)
