"""Sync work on either face, such as the creation of a test's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.orm import Session

from .conftest import Face


def sync(face: Face, work: Callable[[Session], Any], session: Any = None) -> Any:
    """The result of sync work on a face's session; by default on one of its own."""
    if session is None:
        with face.session() as session:
            return sync(face, work, session)
    return face(session.run_sync, work) if face.is_async else work(session)


def create_anew(face: Face, metadata: MetaData) -> Face:
    """Drop the tables, create them, and return the face."""

    def create(session: Session) -> None:
        metadata.drop_all(session.connection())
        metadata.create_all(session.connection())
        session.commit()

    sync(face, create)
    return face
