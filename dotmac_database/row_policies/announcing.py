"""How the actor gets into a transaction: the values that the policies read, in one setting, as a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session

from ..errors import MisuseError
from ..execution.state import SettingsProvider
from ..policies.rights import Right
from ..policies.rules import Rules, rules_of
from ..policies.symbols import Step, path_text
from ..tenancy.rls.signature import ACTOR_SETTING, Signer
from .compiling import Reading
from .ruled import RIGHT

_RIGHT = "dotmac_database.right"
"""The key in a session's ``info`` of the right that its statements exercise now."""


class _State(NamedTuple):
    """What the setting depends on. The rules are compared by identity: they belong to one actor."""

    rules: Rules
    tenant: str | None
    right: Right | None


def actor_settings(
    session: Session,
    tenant: Callable[[], object],
    readings: Mapping[str, Reading],
    signer: Signer | None,
    *,
    with_rights: bool,
) -> SettingsProvider:
    """The setting with the values of the session's actor, who acts for ``tenant()``. Without an actor there is none.

    The values are read once for each actor, when they are first announced. ``with_rights``: the setting also says when
    an UPDATE deletes or restores rows.
    """
    known: WeakKeyDictionary[Rules, dict[str, str]] = WeakKeyDictionary()

    def current() -> _State | None:
        rules = rules_of(session)
        if rules is None:
            return None
        served = tenant()
        return _State(rules, None if served is None else str(served), session.info.get(_RIGHT) if with_rights else None)

    def values(state: object) -> Mapping[str, str]:
        if not isinstance(state, _State):
            return {ACTOR_SETTING: ""}
        if state.rules not in known:
            known[state.rules] = actor_values(state.rules.actor, readings)
        right = {} if state.right is None else {RIGHT: state.right.value}
        text = json.dumps({"tenant": state.tenant, **right, **known[state.rules]})
        return {ACTOR_SETTING: text if signer is None else signer.sign(ACTOR_SETTING, text)}

    return SettingsProvider(current, values, is_secret=signer is not None)


@contextmanager
def exercising(session: Session, right: Right) -> Iterator[None]:
    """Let the session's statements in this block exercise a right that their commands don't show. No I/O."""
    before = session.info.get(_RIGHT)
    session.info[_RIGHT] = right
    try:
        yield
    finally:
        session.info[_RIGHT] = before


def actor_values(actor: object, readings: Mapping[str, Reading]) -> dict[str, str]:
    """The texts of the actor's values. A value that is missing or None, or that is of another kind, is left out."""
    texts: dict[str, str] = {}
    for key, reading in readings.items():
        value = _value(actor, reading.path)
        if reading.exactly is not None and value is not None:
            value = reading.exactly.form(value)
        text = None if value is None else reading.form.text(value)
        if text is not None:
            texts[key] = text
    return texts


def _value(actor: Any, path: tuple[Step, ...]) -> Any:
    value = actor
    for place, (name, is_item) in enumerate(path):
        if value is None:
            return None
        if is_item:
            value = value.get(name) if isinstance(value, Mapping) else None
            continue
        state = inspect(value, raiseerr=False)
        if isinstance(state, InstanceState) and name in state.unloaded:
            raise MisuseError(
                f"The policies read {path_text(path[: place + 1])}, which is not loaded; load it before the session's "
                "first statement.",
                field="actor",
            )
        value = getattr(value, name, None)
    return value
