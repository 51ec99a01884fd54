"""Signed headers: a tenant, an actor and a request id as texts that a job queue stores.

The signature is an HMAC-SHA256 (RFC 2104) of all headers, of the time of signing and of the plugin's name. Values are
ASCII, because queues and HTTP may change other characters. The headers are signed, and not encrypted.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

from dotmac_database import DatabaseError, ValidationError

JobKey: TypeAlias = bytes | str | Sequence[bytes | str]
"""One key, or several for rotation: the first signs, all verify."""

MIN_KEY = 16
"""The minimum length of a key, in bytes."""

CLOCK_SKEW = 60
"""How far the clock of the machine that signs may be ahead of the worker's, in seconds."""

_PREFIX = "dotmac-job-"
TENANT, ACTOR, REQUEST_ID, SIGNED_AT, SIGNATURE = (
    f"{_PREFIX}{name}" for name in ("tenant", "actor", "request-id", "signed-at", "signature")
)
_REQUIRED = frozenset({REQUEST_ID, SIGNED_AT, SIGNATURE})
_KNOWN = _REQUIRED | {TENANT, ACTOR}
_PURPOSE = b"dotmac-database job headers 1"


class JobFault(Enum):
    """Why a job is refused."""

    MISSING = "missing"
    """It has no headers of `carry`, or not all of them."""
    ALTERED = "altered"
    """A header was changed, added or repeated; or the headers were signed by another key or for another plugin."""
    EXPIRED = "expired"
    """The headers were signed more than ``max_age`` seconds ago."""
    FUTURE = "future"
    """The headers were signed in the future, by more than `CLOCK_SKEW` seconds."""
    ACTOR = "actor"
    """The actor does not exist any more: ``load_actor`` has returned None."""


class JobHeadersError(DatabaseError):
    """The headers of a job are not those that `carry` has signed for this plugin. Nothing was read or written.

    ``fault`` says why, for programs.
    """

    def __init__(self, message: str | None = None, *, fault: JobFault = JobFault.ALTERED) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class JobCaller:
    """For whom a job works. ``actor`` is the actor's key. None: the request had no tenant, or no actor."""

    tenant: str | int | UUID | None
    actor: str | None
    request_id: str


class JobSigner:
    """Signs the headers of jobs for the plugin called ``name``, and verifies them.

    Raises `ValidationError` for a key that is of another type, or shorter than `MIN_KEY` bytes. ``clock`` gives the
    time in seconds since 1970.
    """

    def __init__(self, key: JobKey, name: str, clock: Callable[[], float] = time.time) -> None:
        # The keys are derived, so that a key that also signs something else can't make headers of jobs.
        self._keys = [hmac.digest(each, _PURPOSE, "sha256") for each in _keys_of(key)]
        self._name = name.encode()
        self._clock = clock

    def sign(self, tenant: object, actor: str | None, request_id: str) -> dict[str, str]:
        """The headers. Raises `ValidationError` for a tenant that is no text, integer or UUID."""
        headers = {REQUEST_ID: request_id, SIGNED_AT: str(int(self._clock()))}
        if tenant is not None:
            headers[TENANT] = _packed(tenant)
        if actor is not None:
            headers[ACTOR] = _quoted(actor, "actor")
        return {**headers, SIGNATURE: self._signature(self._keys[0], headers)}

    def read(self, headers: Mapping[str, object] | None, max_age: float | None) -> JobCaller:
        """For whom the job with these headers works; other headers than those of `sign` are ignored.

        Names are compared without regard to case, since HTTP changes it. Raises `JobHeadersError`.
        """
        if max_age is not None and not max_age > 0:
            raise ValidationError("max_age is a number of seconds above 0, or None for no limit.", field="max_age")
        ours = _ours(headers)
        signature = ours.pop(SIGNATURE)
        # Every key is tried, so that the time does not reveal which one matched.
        fits = [hmac.compare_digest(signature, self._signature(key, ours)) for key in self._keys]
        if True not in fits:
            _refuse(JobFault.ALTERED, "The job's headers were altered, or signed by another key or for another plugin.")
        age = self._clock() - int(ours[SIGNED_AT])
        if age < -CLOCK_SKEW:
            _refuse(JobFault.FUTURE, f"The job's headers were signed {-age:.0f} seconds in the future.")
        if max_age is not None and age > max_age:
            _refuse(JobFault.EXPIRED, f"The job's headers were signed {age:.0f} seconds ago; max_age is {max_age}.")
        tenant, actor = ours.get(TENANT), ours.get(ACTOR)
        return JobCaller(
            None if tenant is None else _unpacked(tenant), None if actor is None else unquote(actor), ours[REQUEST_ID]
        )

    def _signature(self, key: bytes, headers: Mapping[str, str]) -> str:
        parts = [self._name, *(text.encode() for pair in sorted(headers.items()) for text in pair)]
        # Each part is preceded by its length, so that different parts never give the same bytes.
        signed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hmac.digest(key, signed, "sha256").hex()


def _ours(headers: Mapping[str, object] | None) -> dict[str, str]:
    """The headers of `JobSigner.sign` among those of a message, by their names in lower case."""
    ours: dict[str, str] = {}
    for name, value in (headers or {}).items():
        lower = name.lower() if isinstance(name, str) else ""
        if not lower.startswith(_PREFIX):
            continue
        if lower not in _KNOWN:
            _refuse(JobFault.ALTERED, "The job has a header of a name that carry() does not sign.")
        if lower in ours:
            _refuse(JobFault.ALTERED, f"The job has the header {lower} more than once.")
        if not isinstance(value, str) or not value.isascii():
            _refuse(JobFault.ALTERED, f"The job's header {lower} is no ASCII text.")
        ours[lower] = value
    missing = sorted(_REQUIRED - ours.keys())
    if missing:
        _refuse(
            JobFault.MISSING,
            f"The job has no header {', '.join(missing)}: send it with carry(session), the headers of its session.",
        )
    return ours


def _packed(tenant: object) -> str:
    if isinstance(tenant, str):
        return f"text:{_quoted(tenant, 'tenant')}"
    if isinstance(tenant, UUID):
        return f"uuid:{tenant.hex}"
    if isinstance(tenant, int):
        return f"int:{int(tenant)}"
    raise ValidationError(f"Jobs carry tenants that are texts, integers or UUIDs, not a {type(tenant).__name__}.")


def _unpacked(packed: str) -> str | int | UUID:
    kind, _, value = packed.partition(":")
    return UUID(value) if kind == "uuid" else int(value) if kind == "int" else unquote(value)


def _quoted(text: str, what: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise ValidationError(f"The {what} of a job can't have lone surrogates.", field=what) from None


def _keys_of(key: object) -> list[bytes]:
    keys = [key] if isinstance(key, (bytes, str)) else key
    if not isinstance(keys, (list, tuple)) or not keys or not all(isinstance(each, (bytes, str)) for each in keys):
        raise ValidationError("A job key is bytes or a text, or a list of them that is not empty.", field="job_key")
    encoded = [each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each for each in keys]
    if any(len(each) < MIN_KEY for each in encoded):
        raise ValidationError(f"A job key has at least {MIN_KEY} bytes.", field="job_key")
    return encoded


def _refuse(fault: JobFault, message: str) -> NoReturn:
    raise JobHeadersError(message, fault=fault)
