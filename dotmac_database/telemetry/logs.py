"""The fields of log records by which the records of a request, and of a repository's method, are found."""

from __future__ import annotations

import logging

from .context import REQUEST
from .origin import origin


class DatabaseLogFilter(logging.Filter):
    """Adds ``request_id``, ``route``, ``model``, ``operation`` and ``tenant`` to each record, and drops none.

    Each of them is None if it is unknown, or if there is none; a value that the record has already stays. ``model`` and
    ``operation`` are those of the repository's method that is running. ``tenant`` is None unless the filter was made
    with ``tenant=True``, since a tenant's name may be personal data.

    Add it to a handler, ``handler.addFilter(…)``: a logger's filter does not see the records of the loggers below it.
    """

    def __init__(self, *, tenant: bool = False) -> None:
        super().__init__()
        self._tenant = tenant

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        request = REQUEST.get()
        operation, repository = origin() or (None, None)
        tenant = None
        if self._tenant:
            named = None if repository is None else repository.tenant_id
            if repository is None and request is not None:
                named = request.tenant
            tenant = None if named is None else str(named)
        fields: dict[str, str | None] = {
            "request_id": None if request is None else request.request_id,
            "route": None if request is None else request.route,
            "model": None if repository is None else repository.model_class.__name__,
            "operation": operation,
            "tenant": tenant,
        }
        for name, value in fields.items():
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        return True


def add_to_toolkit(log_filter: DatabaseLogFilter) -> list[logging.Logger]:
    """Add the filter to the loggers of the toolkit, and return them."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0].startswith("dotmac_database")]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(log_filter)
    return loggers
