"""A worker of Celery: ``python -m tests.jobs.celery_worker FOLDER URL-OF-SQLITE URL-OF-RLS``.

For each job it writes a file into the folder ``outcomes``: its end, and the statements that it has sent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from celery.signals import task_postrun, task_prerun, worker_ready
from sqlalchemy import event

from tests.jobs.celery_jobs import celery_of
from tests.jobs.conftest import KINDS, plugin_of


def main(folder: Path, *urls: str) -> None:
    plugins = {kind: plugin_of(url, kind) for kind, url in zip(KINDS, urls, strict=True)}
    sent: list[str] = []

    def record(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    for plugin in plugins.values():
        event.listen(plugin.database.engine, "before_cursor_execute", record)
        event.listen(plugin.database.engine, "do_connect", lambda *_: sent.append("connect"))

    def begin(**_: Any) -> None:
        sent.clear()

    def end(*, task_id: str, state: str, retval: Any, **_: Any) -> None:
        if state == "RETRY":
            return
        fault = getattr(retval, "fault", None)
        error = [type(retval).__name__, fault and fault.value] if isinstance(retval, Exception) else None
        outcome = {"result": retval if error is None else None, "error": error, "sent": sent}
        new = folder / f"{task_id}.new"
        new.write_text(json.dumps(outcome))
        new.rename(folder / "outcomes" / task_id)

    def watch(**_: Any) -> None:
        threading.Thread(target=end_with_the_tests, daemon=True).start()

    worker_ready.connect(watch, weak=False)  # after the fork of the pool, which may have no other thread
    task_prerun.connect(begin, weak=False)
    task_postrun.connect(end, weak=False)
    arguments = ("--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle", "--without-heartbeat")
    celery_of(folder, plugins).worker_main(["worker", "--loglevel=INFO", *arguments])


def end_with_the_tests() -> None:
    """End this process and its pool when the process of the tests has ended, even if it was killed."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
