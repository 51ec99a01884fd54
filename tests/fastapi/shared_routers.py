"""`crud_router` and `list_router`, which build a router once for all tests that want the same one.

A router is the dearest part of most tests: it makes schemas for each route. It belongs to no app and no database, and
an app uses one router for all its requests, too. A test that adds routes to a router must build its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec

from fastapi import APIRouter

import dotmac_database_fastapi

P = ParamSpec("P")

_RECENT = 64
"""So many routers are remembered in a process: those of a few modules, because the tests of a module run together."""


def once(build: Callable[P, APIRouter]) -> Callable[P, APIRouter]:
    """A function like `build` that gives the same router again if it is called with the same arguments.

    Schemas, functions, hooks and other objects are the same if they are equal and of one class; lists, sets and dicts
    are compared by what they contain. If an argument can't be compared so, the router is built each time, and so is one
    with idempotency keys, which remembers when it has last deleted expired keys.
    """

    @functools.lru_cache(_RECENT)
    def remembered(call: _Call) -> APIRouter:
        return build(*call.arguments, **call.options)

    @functools.wraps(build)
    def shared(*arguments: P.args, **options: P.kwargs) -> APIRouter:
        call = _Call(arguments, options)
        return remembered(call) if call.is_comparable else build(*arguments, **options)

    return shared


class _Call:
    """The arguments of one call, equal to another with the same arguments."""

    def __init__(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.arguments, self.options = arguments, options
        self.key = (_frozen(arguments), _frozen(options))
        self.is_comparable = not (options.get("idempotency") or getattr(options.get("options"), "idempotency", False))
        try:
            self._hash = hash(self.key)
        except TypeError:
            self.is_comparable = False

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self.key == other.key


def _frozen(value: Any) -> Hashable:
    """A value as one that can be compared and hashed. The order of a dict counts: it can be that of the routes."""
    if isinstance(value, dict):
        return dict, tuple((_frozen(key), _frozen(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_frozen(each) for each in value)
    if isinstance(value, set | frozenset):
        return type(value), frozenset(_frozen(each) for each in value)
    return type(value), value


crud_router = once(dotmac_database_fastapi.crud_router)
list_router = once(dotmac_database_fastapi.list_router)
