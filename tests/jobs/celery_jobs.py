"""Celery's tasks, which are the same in the app, in a worker, and without a worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery

from dotmac_database import bound_tenant, create_repository
from dotmac_database_fastapi import DatabasePlugin, carry, current_request_id, session_actor
from tests.fastapi.job_models import Order

INVOICE = 1000
"""What is added to the number of an order for that of its invoice."""


def celery_of(folder: Path, plugins: Mapping[str, DatabasePlugin], **options: Any) -> Celery:
    """The tasks, on a broker that keeps its messages as files.

    Messages are sent into the folder ``sent`` and received from ``queue``. A test moves them: kombu's reader could
    otherwise read a file before its content is written.
    """
    for name in ("sent", "queue", "processed", "control", "outcomes"):
        (folder / name).mkdir(exist_ok=True)
    app = Celery("jobs", set_as_current=False)
    app.conf.update(
        broker_url="filesystem://",
        broker_transport_options={
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "sent"),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.02,
        },
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        task_ignore_result=True,
        **options,
    )

    @app.task(bind=True, name="invoice", shared=False)
    def invoice(task: Any, kind: str, number: int, then: str | None = None) -> Any:
        with plugins[kind].sync_resume(task.request.headers, max_age=3600) as session:
            orders = create_repository(session, Order, bound_tenant(session))
            order = orders.get_by_id_or_raise(number)
            orders.create({"id": number + INVOICE, "status": "invoice"})
            if then == "retry" and task.request.retries == 0:
                raise task.retry(countdown=0)  # rolled back, as by each exception
            if then == "another":
                invoice.apply_async((kind, number + INVOICE), headers=carry(session), task_id=f"{kind}-{number}")
            return [order.created_by, session_actor(session), current_request_id(), task.request.retries]

    return app
