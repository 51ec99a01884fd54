"""Alembic's scripts in a folder of a test, and its commands on an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

_ENV = """
from alembic import context
{imports}

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    process_revision_directives={process},
)
with context.begin_transaction():
    context.run_migrations()
"""
_TEMPLATE = '''"""${message}"""
import sqlalchemy as sa
import dotmac_database.types
import sqlmodel
from sqlalchemy.dialects import postgresql
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''


def env_of(process: str, *imports: str) -> str:
    """An ``env.py`` with these imports, one of which is ``Base``; ``process`` is an expression."""
    return _ENV.format(process=process, imports="\n".join(imports))


def write_scripts(folder: Path, env: str) -> Path:
    """Make a folder that `run` takes, without revisions, and return it."""
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(env)
    (folder / "script.py.mako").write_text(_TEMPLATE)
    return folder


def run(engine: Engine, folder: Path, name: str, *args: Any, **options: Any) -> Any:
    """The result of one of Alembic's commands, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(folder))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        return getattr(command, name)(config, *args, **options)
