"""A message of the outbox, and the check of its payload."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from ..errors import ValidationError
from .table import LONGEST

_DEEPEST = 200


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message, as the user's ``deliver`` gets it.

    ``id`` is the same in each attempt, so a consumer knows a message by it that comes twice. ``key`` None: the message
    is in no order. ``payload`` is the JSON value that was published. ``tenant_id`` is the tenant of the publishing
    session as text; None: it had none. ``created_at`` is the time of `publish` (UTC). ``attempt`` counts from 1, and
    counts the attempts of relays that were killed, too. If it is 1, no other attempt had begun before this one.
    """

    id: UUID
    topic: str
    key: str | None
    payload: Any
    tenant_id: str | None
    created_at: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up after ``failures`` attempts; see `OutboxRelay.dead_letters`.

    ``error`` is the name of the class of the last failure.
    """

    message: OutboxMessage
    failures: int
    error: str | None


def lane_of(tenant_id: str | None, topic: str, key: str | None) -> int | None:
    """A number for the messages that are delivered in order; None: they are in no order.

    It is a hash of 64 bits. Two keys with the same number share their order, which is harmless.
    """
    if key is None:
        return None
    name = json.dumps([tenant_id, topic, key]).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest(), signed=True)


def json_text(payload: object) -> str:
    """The payload as JSON. Raises `ValidationError`, which names the path but no value, if it is no JSON value."""
    _check(payload, "payload", 0)
    return json.dumps(payload, allow_nan=False, separators=(",", ":"), default=dict)


def _check(value: object, path: str, depth: int) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if depth > _DEEPEST:
        raise ValidationError(f"The payload is nested more than {_DEEPEST} levels deep.", field="payload")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValidationError(f"{path} is not a finite number, which JSON can't express.", field="payload")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise ValidationError(f"{path} has a key of type {type(key).__name__}, not str.", field="payload")
            _check(each, f"{path}.{key}", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            _check(each, f"{path}[{index}]", depth + 1)
    else:
        raise ValidationError(f"{path} is of type {type(value).__name__}, which is no JSON value.", field="payload")


def valid_name(name: object, field: str) -> str:
    """A topic or a key. Raises `ValidationError` unless it is a text of 1 to 255 characters that can be stored."""
    valid = isinstance(name, str) and 0 < len(name) <= LONGEST and "\x00" not in name
    if not valid or not isinstance(name, str) or name.encode(errors="replace").decode() != name:
        raise ValidationError(f"The {field} of a message is a text of 1 to {LONGEST} characters.", field=field)
    return name
