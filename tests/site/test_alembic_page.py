"""The files of `docs/alembic.md` make a migration that runs, on both databases, and after which nothing is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from dotmac_database import create_database
from tests.pages import DOCS, ROOT, blocks_of


def test_the_migration_of_the_page(tmp_path: Path, database_url: str) -> None:
    environment_file, models = blocks_of(DOCS / "alembic.md")
    assert "```mako\nimport sqlmodel\n```" in (DOCS / "alembic.md").read_text()
    folder, settings = tmp_path / "migrations", tmp_path / "alembic.ini"
    command.init(Config(str(settings), stdout=StringIO()), str(folder))
    settings.write_text(
        "\n".join(line for line in settings.read_text().splitlines() if not line.startswith("sqlalchemy.url"))
    )
    template = folder / "script.py.mako"
    template.write_text(
        template.read_text().replace("import sqlalchemy as sa\n", "import sqlalchemy as sa\nimport sqlmodel\n")
    )
    (folder / "env.py").write_text(environment_file)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "models.py").write_text(models)

    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "DATABASE_URL": database_url}
    for arguments in (["revision", "--autogenerate", "-m", "first"], ["upgrade", "head"], ["check"]):
        started = [sys.executable, "-m", "alembic", *arguments]
        done = subprocess.run(started, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    [written] = [path.read_text().replace('"', "'") for path in (folder / "versions").glob("*.py")]
    assert "sqlmodel.sql.sqltypes.AutoString(" in written  # else the template needs its line no more
    assert "op.enable_history('customer'" in written
    assert ("op.enable_tenant_rls('customer'" in written) == ("postgresql" in database_url)
    database = create_database(database_url)
    with database.engine.connect() as connection:
        assert {"customer", "customer_history"} <= set(inspect(connection).get_table_names())
        if connection.dialect.name == "postgresql":
            policies = connection.scalars(text("SELECT tablename FROM pg_policies")).all()
            assert {"customer", "customer_history"} <= set(policies)
    database.dispose()
