"""Cursors: a position in an order, as an opaque, URL-safe text whose alteration is detected.

The format is ``base64url(version, mode, digest, payload)``. The payload is JSON, with tags for types that JSON does not
have. Without a key the digest is a checksum (BLAKE2b). With a key it is an HMAC-SHA256 (RFC 2104), truncated to 128
bits, which also covers the query's filters and tenant. Nothing in a cursor is ever executed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias
from uuid import UUID

from ..errors import InvalidCursorError, ValidationError

CursorKey: TypeAlias = bytes | str | Sequence[bytes | str] | None
"""One key, or several for rotation: the first key signs cursors, and all keys verify them. None: only a checksum."""

MAX_LENGTH = 4096
MIN_KEY = 16
"""The minimum length of a key, in bytes. It is the length of the signature; a shorter key would be easier to guess."""

_VERSION = 1
_MODES = ("after", "before", "from", "until")
_CHECKSUM = 8
_SIGNATURE = 16


class EnumName(str):
    """The name of an enum's member, as it is encoded in a cursor."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CursorCodec:
    """Encodes and decodes cursors. ``key``: see `CursorKey`.

    Raises `ValidationError` for a key that is of another type, or that is shorter than `MIN_KEY` bytes.
    """

    key: CursorKey = field(default=None, repr=False)
    _keys: tuple[bytes, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.key is not None:
            object.__setattr__(self, "_keys", _keys_of(self.key))

    @property
    def signs(self) -> bool:
        """Whether cursors are signed, so that they are also bound to the filters and the tenant."""
        return self.key is not None

    def encode(self, values: Sequence[object], *, mode: str, binding: bytes, scope: bytes = b"") -> str:
        """A cursor for the position that these ``values`` have in the order that ``binding`` identifies.

        ``mode``: ``"after"`` and ``"before"`` exclude the position itself, ``"from"`` and ``"until"`` include it.
        ``scope`` identifies the filters and the tenant; only signed cursors use it. Raises `ValidationError` for a
        value that has no position in an order, such as NaN, and for a cursor longer than `MAX_LENGTH`.
        """
        payload = _ENCODER.encode([_packed(value) for value in values])
        try:
            body = bytes((_VERSION, _MODES.index(mode))) + payload.encode()
        except UnicodeEncodeError:
            raise ValidationError("A cursor can't carry text with lone surrogates.") from None
        keys = self._keys
        digest = _digest(keys[0] if keys else None, body, binding, scope)
        cursor = urlsafe_b64encode(digest + body).rstrip(b"=").decode()
        if len(cursor) > MAX_LENGTH:
            raise ValidationError("The sorted values are too long for a cursor; sort by shorter values.")
        return cursor

    def decode(self, cursor: str, *, binding: bytes, scope: bytes = b"") -> tuple[str, tuple[object, ...]]:
        """The mode and the values of a cursor. Any other argument raises `InvalidCursorError`, and nothing else.

        A cursor that was encoded with another key, ``binding`` or ``scope`` raises it too.
        """
        keys = self._keys
        if not isinstance(cursor, str) or not 0 < len(cursor) <= MAX_LENGTH or not cursor.isascii():
            raise InvalidCursorError
        try:
            packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            if urlsafe_b64encode(packed).rstrip(b"=").decode() != cursor:
                raise InvalidCursorError
            return _opened(packed, keys or (None,), binding, scope)
        except InvalidCursorError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, RecursionError):
            raise InvalidCursorError from None


@lru_cache(maxsize=64)
def _key_bytes(key: bytes | str) -> bytes:
    try:
        signing_key = key.encode() if isinstance(key, str) else bytes(key)
    except UnicodeEncodeError:
        raise ValidationError("A cursor key can't have lone surrogates.", field="cursor_key") from None
    if len(signing_key) < MIN_KEY:
        raise ValidationError(
            f"A cursor key can't be empty or short: it has at least {MIN_KEY} bytes.", field="cursor_key"
        )
    return signing_key


def _keys_of(key: object) -> tuple[bytes, ...]:
    """The keys as bytes."""
    if isinstance(key, (bytes, str)):
        return (_key_bytes(key),)
    if not isinstance(key, (list, tuple)) or not key or not all(isinstance(each, (bytes, str)) for each in key):
        raise ValidationError(
            "A cursor key is bytes or a text, or a list of them that is not empty.", field="cursor_key"
        )
    return tuple(_key_bytes(each) for each in key)


def _opened(
    packed: bytes, keys: Sequence[bytes | None], binding: bytes, scope: bytes
) -> tuple[str, tuple[object, ...]]:
    size = _CHECKSUM if keys[0] is None else _SIGNATURE
    digest, body = packed[:size], packed[size:]
    # Every key is tried, so that the time does not reveal which one matched.
    fits = [hmac.compare_digest(digest, _digest(key, body, binding, scope)) for key in keys]
    if True not in fits:
        raise InvalidCursorError
    if body[0] != _VERSION:
        raise InvalidCursorError
    values = _DECODER.decode(body[2:].decode())
    if not isinstance(values, list):
        raise InvalidCursorError
    return _MODES[body[1]], tuple(_unpacked(value) for value in values)


def _refuse(_: str) -> NoReturn:
    raise InvalidCursorError


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _digest(key: bytes | None, body: bytes, binding: bytes, scope: bytes) -> bytes:
    """A digest of the parts. Each part is preceded by its length, so that different parts never give the same bytes."""
    parts = [body, binding] if key is None else [body, binding, scope]
    signed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    if key is None:
        return hashlib.blake2b(signed, digest_size=_CHECKSUM, person=b"dotmac-cursor").digest()
    return hmac.new(key, signed, hashlib.sha256).digest()[:_SIGNATURE]


def _microseconds(value: timedelta) -> int:
    return (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds


# The tag and the encoding of each type. The first matching type is used, so datetime must come before date, of which it
# is a subclass. The tags are part of the format of cursors.
_PACKERS: tuple[tuple[type, str, Callable[[Any], str]], ...] = (
    (Enum, "e", lambda value: value.name),
    (datetime, "d", datetime.isoformat),
    (date, "D", date.isoformat),
    (time, "t", time.isoformat),
    (timedelta, "i", lambda value: str(_microseconds(value))),
    (Decimal, "n", str),
    (UUID, "u", lambda value: value.hex),
    (bytes, "b", lambda value: urlsafe_b64encode(value).decode()),
)

_UNPACKERS: dict[str, Callable[[str], object]] = {
    "e": EnumName,
    "d": datetime.fromisoformat,
    "D": date.fromisoformat,
    "t": time.fromisoformat,
    "i": lambda text: timedelta(microseconds=int(text)),
    "n": Decimal,
    "u": UUID,
    "b": urlsafe_b64decode,
    "I": lambda text: int(text, 16),
    "f": float.fromhex,
}


def _packed(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    for kind, tag, pack in _PACKERS:
        if isinstance(value, kind):
            if isinstance(value, Decimal) and not value.is_finite():
                raise ValidationError("A cursor can't hold a Decimal that is not finite.")
            return {tag: pack(value)}
    if isinstance(value, int):
        return int(value) if abs(value) < 2**53 else {"I": hex(value)}
    if isinstance(value, float):
        if math.isnan(value):
            raise ValidationError("A cursor can't hold NaN, which has no position in an order.")
        return {"f": value.hex()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple):
        return [_packed(member) for member in value]
    raise ValidationError(f"A cursor can't carry a {type(value).__name__}.")


def _unpacked(value: object) -> object:
    if isinstance(value, dict):
        ((tag, text),) = value.items()
        if not isinstance(text, str):
            raise InvalidCursorError
        return _UNPACKERS[tag](text)
    if isinstance(value, list):
        return tuple(_unpacked(member) for member in value)
    if isinstance(value, float):
        raise InvalidCursorError
    return value
