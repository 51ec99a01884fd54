"""The values of every column type come back from the history as an entity has them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dotmac_database import HistoryMixin, acting_as
from tests.conftest import DRIVERS, Face, Faces
from tests.integration.test_driver_types import Group, groups_on
from tests.sync_work import create_anew, sync

pytestmark = pytest.mark.filterwarnings("ignore:Type object .* does not refer to an OperatorClass")


@cache
def recorded_groups(dialect: str) -> tuple[Group, ...]:
    """The groups of `test_driver_types`, as classes with a history."""
    base: Any = type("Base", (DeclarativeBase,), {"__module__": __name__})  # its types exist on one database only
    return tuple(
        Group(_model_of(base, f"history_{group.model.__tablename__}", group), group.kinds)
        for group in groups_on(dialect)
    )


def _model_of(base: Any, name: str, group: Group) -> Any:
    columns = {kind.name: mapped_column(kind.type(), nullable=True) for kind in group.kinds}
    fixed = {
        "__tablename__": name,
        "__module__": __name__,
        "__annotations__": {"id": Mapped[int], **dict.fromkeys(columns, Mapped[Any])},
        "id": mapped_column(primary_key=True, autoincrement=False),
    }
    return type(name, (HistoryMixin, base), {**fixed, **columns})


def _create(face: Face, model: Any) -> None:
    if face.engine.dialect.name == "postgresql":
        extension = text("CREATE EXTENSION IF NOT EXISTS hstore")
        sync(face, lambda session: (session.execute(extension), session.commit()))
    create_anew(face, model.metadata)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("actor", [None, "alice"])
def test_each_type_is_given_back_as_an_entity_has_it(faces: Faces, driver: str, actor: str | None) -> None:
    face = faces[driver]
    dialect = face.engine.dialect.name
    _create(face, recorded_groups(dialect)[0].model)
    for group in recorded_groups(dialect):
        names = [kind.name for kind in group.kinds]
        with face.session(expire_on_commit=False) as session, acting_as(actor):
            repository = face.repository(session, group.model)
            states: list[dict[str, Any]] = []
            for number, row in enumerate(group.rows):
                if number:
                    face(repository.update, 1, row)
                else:
                    face(repository.create, {"id": 1, **row})
                face(session.rollback)
                sync(face, lambda session: session.expunge_all(), session)
                entity = face(repository.get_by_id, 1)
                states.append({name: getattr(entity, name) for name in names})
            face(repository.delete, 1)
            entries = face(repository.history, 1)
        first, *changes, last = entries
        assert states[0] == {name: first.after[name] for name in names}
        assert states[-1] == {name: last.before[name] for name in names}
        state = dict(states[0])
        for entry in changes:
            assert entry.before.keys() == entry.after.keys()
            assert {name: state[name] for name in entry.before} == entry.before
            assert [type(state[name]) for name in entry.before] == [type(value) for value in entry.before.values()]
            state.update(entry.after)
        assert state == states[-1]
