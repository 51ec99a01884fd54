"""After a flush that fails, what a repository gave earlier is still readable without a statement."""

from __future__ import annotations

from uuid import UUID

import pytest

from dotmac_database import DatabaseTransaction, DuplicateEntityError
from tests.conftest import Face, counted
from tests.models import User


@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
def test_earlier_objects_stay_readable(face: Face, within: bool) -> None:
    with face.session() as session:
        users = face.repository(session, User, "a")
        begin = DatabaseTransaction.async_transaction if face.is_async else DatabaseTransaction.sync_transaction
        made = face(users.create, {"id": UUID(int=1), "name": "Ann", "email": "ann@example.org"})

        def fail() -> None:
            with pytest.raises(DuplicateEntityError):
                face(users.create, {"name": "Ann again", "email": "ann@example.org"})

        if within:
            with face.entered(begin(session)):
                fail()
                face(users.create, {"name": "Bob"})
        else:
            fail()
        with counted(face.engine) as sent:
            assert (made.id, made.name, made.version, made.tenant_id) == (UUID(int=1), "Ann", 1, "a")
        assert sent == []
        assert face(users.count) == 1 + within


@pytest.mark.parametrize("expires", [False, True])
def test_an_async_session_never_loses_what_it_has_shown(face: Face, expires: bool) -> None:
    if not face.is_async:
        pytest.skip("a sync session reads an expired attribute again")
    with face.session(expire_on_commit=expires) as session:
        users = face.repository(session, User, "a")
        first = face(users.create, {"name": "Ann", "email": "ann@example.org"})
        second = face(users.create, {"name": "Bob"})

        def undone() -> None:
            with face.entered(DatabaseTransaction.async_transaction(session)):
                face(users.update, second.id, {"name": "Changed"})
                raise KeyError("the user's own")

        with pytest.raises(KeyError):
            undone()
        with face.entered(DatabaseTransaction.async_transaction(session)):
            third = face(users.create, {"name": "Cid"})
        face(users.delete, third.id)
        assert (first.name, second.name, third.name) == ("Ann", "Bob", "Cid")
        with face.session() as other:
            face(face.repository(other, User, "a").update, first.id, {"name": "Anna"})
        assert face(users.get_by_id, first.id).name == "Anna"
        assert (first.name, second.version) == ("Anna", 1)
