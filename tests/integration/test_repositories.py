"""Every method of a repository, on both databases and both faces."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dotmac_database import EntityNotFoundError
from tests.conftest import Face
from tests.models import User


def test_a_created_row_is_found_again(face: Face) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        user = face(users.create, {"name": "Ann"})
        assert face(users.get_by_id, user.id).name == "Ann"
        with pytest.raises(EntityNotFoundError):
            face(users.get_by_id_or_raise, uuid4())
