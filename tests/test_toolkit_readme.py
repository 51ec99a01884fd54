"""Every code block of ``tests/toolkit_readme.md`` runs as it is written, on both databases, sync and async.

That file is the description of the toolkit by its first author. `docs/without-fastapi.md` and
`docs/old-repositories.md` teach the same in this project's words.

A block is given what it assumes (models, sessions, imports) and nothing else. Lines that show the old way ("Before",
"# Replace") are not the toolkit's, and the few that only sketch ("...") are compared instead of run.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy
from sqlalchemy import Column, DateTime, MetaData, String, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import dotmac_database
from dotmac_database import TenantMixin, TransactionError
from dotmac_database.engines import Database
from dotmac_database.types import utc_now

README = (Path(__file__).parent / "toolkit_readme.md").read_text()
BLOCKS = [
    textwrap.dedent(block) for block in re.findall(r"^( *```python\n.*?)^ *```$", README, re.DOTALL | re.MULTILINE)
]
BLOCKS = [re.sub(r"^```python\n", "", block) for block in BLOCKS]
OLD = [
    block
    for block in BLOCKS
    if re.search(r"^from dotmac_(isp|management)", block, re.MULTILINE) and "# With" not in block
]
SKETCH = [block for block in BLOCKS if "class BaseRepository(Generic[ModelType])" in block]
ALONE = [block for block in BLOCKS if "InMemoryDatabase" in block]
RUN = [block for block in BLOCKS if block not in OLD + SKETCH + ALONE]


class Base(DeclarativeBase):
    pass


class User(TenantMixin, Base):
    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    email: Mapped[str | None]
    status: Mapped[str | None]
    category: Mapped[str | None]
    role: Mapped[str | None]
    is_active: Mapped[bool | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class Profile(TenantMixin, Base):
    __tablename__ = "profiles"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    bio: Mapped[str | None]


class Member(Base):
    """A user of an application without tenants."""

    __tablename__ = "members"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    email: Mapped[str | None]


@pytest.fixture(scope="module")
def tables() -> MetaData:
    return Base.metadata


def test_every_block_is_accounted_for() -> None:
    assert len(OLD) == 2
    assert len(SKETCH) == 1
    assert len(ALONE) == 1
    assert len(RUN) == len(BLOCKS) - 4
    assert len(RUN) >= 15


@pytest.mark.parametrize("number", range(len(RUN)), ids=lambda number: RUN[number].strip().partition("\n")[0][:40])
def test_a_block_runs_as_written(database: Database, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    models = types.ModuleType("your_models")
    models.User = User  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "your_models", models)
    asyncio.run(run(RUN[number], database))


async def run(block: str, database: Database) -> None:
    """Each statement of a block in turn, on the sync session, or the async one where it awaits."""
    block = block.partition("# With\n")[2] or block
    namespace = await assumed(block, database)
    if "create_async_repository(db, User)" in block:
        await use_async(namespace, database)
    try:
        for node in ast.parse(block).body:
            awaits = any(isinstance(each, (ast.Await, ast.AsyncWith)) for each in ast.walk(node)) and not isinstance(
                node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            )
            if awaits:
                await use_async(namespace, database)
            code = compile(ast.Module([node], []), "toolkit_readme.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            source = ast.unparse(node)
            if "execute_with_retry(lambda session" in source:
                # The readme gives neither session nor factory, and the contract says what happens then.
                with pytest.raises(TransactionError, match="session"):
                    exec(code, namespace)
                namespace["tx_manager"] = dotmac_database.TransactionManager(database.sessions)
                exec(code, namespace)
            elif "filters=[...]" in source:
                continue
            elif code.co_flags & inspect.CO_COROUTINE:
                await eval(code, namespace)
            else:
                exec(code, namespace)
    finally:
        namespace["sync_session"].close()
        if "async_session" in namespace:
            await namespace["async_session"].close()
        if "async_engine" in database.__dict__:
            await database.async_engine.dispose()
            del database.__dict__["async_engine"]
            database.__dict__.pop("async_sessions", None)


async def assumed(block: str, database: Database) -> dict[str, Any]:
    """What the readme takes for granted."""

    @contextmanager
    def get_db_session() -> Iterator[Any]:
        with database.sessions() as session:
            yield session

    @asynccontextmanager
    async def get_async_db_session() -> AsyncIterator[Any]:
        async with database.async_sessions() as session:
            yield session

    async def async_operation(session: Any) -> None:
        await session.execute(text("SELECT 1"))

    plain = "create_async_repository(db, User)" in block and "tenant_id" not in block
    session = database.sessions()
    user = Member if plain else User

    class Rebased(DeclarativeBase):
        """For a model that the block maps itself."""

    namespace: dict[str, Any] = {
        **{name: getattr(dotmac_database, name) for name in dotmac_database.__all__},
        "Base": Rebased,
        "Column": Column,
        "String": String,
        "UUID": sqlalchemy.UUID,
        "Session": sqlalchemy.orm.Session,
        "User": user,
        "session": session,
        "sync_session": session,
        "db": session,
        "tenant_id": "tenant-123",
        "get_db_session": get_db_session,
        "get_async_db_session": get_async_db_session,
        "complex_query": select(user),
        "query": select(user).order_by(user.id),
        "complex_database_operation": lambda session: session.scalar(text("SELECT 1")),
        "async_operation": async_operation,
        "circuit_breaker": dotmac_database.CircuitBreaker(),
        "options": dotmac_database.QueryOptions(),
        "tx_manager": dotmac_database.TransactionManager(database.sessions),
    }
    if not plain:
        namespace["user_repo"] = dotmac_database.create_repository(session, User, "tenant-123")
        namespace["profile_repo"] = dotmac_database.create_repository(session, Profile, "tenant-123")
        namespace["repo"] = namespace["user_repo"]
    if "UserRepository(db, tenant_id)" in block:
        namespace["UserRepository"] = lambda db, tenant: dotmac_database.BaseTenantRepository(db, User, tenant)
    for name in ("List", "Dict", "Optional", "Any"):
        namespace[name] = getattr(__import__("typing"), name)
    return namespace


async def use_async(namespace: dict[str, Any], database: Database) -> None:
    if "async_session" in namespace:
        return
    session = namespace["async_session"] = database.async_sessions()
    namespace["session"] = namespace["db"] = session


def test_the_sketched_signatures_are_the_real_ones() -> None:
    real = {"BaseRepository": dotmac_database.BaseRepository, "AsyncRepository": dotmac_database.AsyncRepository}
    owner: Any = None
    seen = 0
    for line in SKETCH[0].splitlines():
        if match := re.match(r"class (\w+)\(", line):
            owner = real[match[1]]
        elif match := re.match(r"\s+(?:async )?def (\w+)\((.*)\) ->", line):
            seen += 1
            taken = list(inspect.signature(getattr(owner, match[1])).parameters)
            if match[2] != "...":
                named = [part.partition(":")[0].strip() for part in re.sub(r"\[.*?\](?:\])*", "", match[2]).split(",")]
                assert taken[: len(named)] == named, line
    assert seen == 9


def test_the_testing_block_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """It makes the tables of every class that is mapped, so it must not see those of the other tests."""
    script = tmp_path / "block.py"
    script.write_text(
        "import asyncio\n"
        "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column\n"
        "from dotmac_database import create_async_repository\n"
        "class Base(DeclarativeBase): pass\n"
        "class User(Base):\n"
        "    __tablename__ = 'users'\n"
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        "    name: Mapped[str]\n"
        "async def main():\n" + textwrap.indent(ALONE[0], "    ") + "\n"
        "    assert mock_repo.get_by_id(1).name == 'Test User'\n"
        "    assert user.id == 1\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
