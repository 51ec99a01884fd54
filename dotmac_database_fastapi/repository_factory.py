"""Makes the repository of a request, from a mapped class or from a repository class of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from dotmac_database import (
    ALL_TENANTS,
    AsyncRepository,
    BaseRepository,
    MisuseError,
    Policy,
    TenantIsolationError,
    TenantNotGivenError,
    ValidationError,
    bind_tenant,
    create_async_repository,
    create_repository,
    traits_of,
)

from .identity import RequestIdentity
from .ruling import checked_policy
from .source import CursorKey
from .tenants import BadTenantError

AnySession: TypeAlias = Session | AsyncSession
AnyRepository: TypeAlias = AsyncRepository[Any, Any] | BaseRepository[Any, Any]
Build: TypeAlias = Callable[[AnySession, RequestIdentity, CursorKey], AnyRepository]
"""Makes a repository from a session, an identity and a cursor key."""


def builder(target: type, base: type, policy: Policy[Any] | None = None) -> Build:
    """A function that makes the repository of ``target`` from a session, an identity and a cursor key.

    ``policy`` rules the repository, for the identity's actor, in place of the session's policy of the class. Raises
    `MisuseError` if it is the policy of another class.
    """
    build = _builder(target, base)
    checked_policy(policy, getattr(target, "declared_model", None) or target)
    if policy is None:
        return build

    def ruled(session: AnySession, identity: RequestIdentity, cursor_key: CursorKey) -> AnyRepository:
        return build(session, identity, cursor_key).with_policy(policy, actor=identity.person)

    return ruled


def _builder(target: type, base: type) -> Build:
    """As `builder`, without a policy.

    ``base`` is `AsyncRepository` or `BaseRepository`, for async or sync sessions. Raises `ValidationError` unless
    ``target`` is a mapped class or a subclass of ``base``.
    """
    if not isinstance(target, type):
        raise ValidationError(f"A mapped class or a repository class was expected, not {target!r}.")
    if issubclass(target, base):
        return _checked(_of_repository(target), getattr(target, "declared_model", None))
    other = "get_sync_repository" if base is AsyncRepository else "get_repository"
    if hasattr(target, "declared_model"):
        raise ValidationError(f"{target.__name__} is for the other kind of session: use {other}.")
    build = _of_model(target, base)
    return build if traits_of(target).tenant is None else _checked(build, target)


def _of_model(model: type, base: type) -> Build:
    create = create_async_repository if base is AsyncRepository else create_repository
    scoped = traits_of(model).tenant is not None

    def build(session: Any, identity: RequestIdentity, cursor_key: CursorKey) -> AnyRepository:
        return create(session, model, identity.tenant if scoped else None, cursor_key=cursor_key)

    return build


def _of_repository(target: type) -> Build:
    """Pass only the arguments that the class accepts, as in ``def __init__(self, db, tenant_id)``."""
    make: Callable[..., AnyRepository] = target
    parameters = inspect.signature(target).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    model: type | None = getattr(target, "declared_model", None)
    scoped = model is None or traits_of(model).tenant is not None
    takes = {name: takes_all or name in parameters for name in ("tenant_id", "cursor_key")}

    def build(session: AnySession, identity: RequestIdentity, cursor_key: CursorKey) -> AnyRepository:
        arguments = {"tenant_id": identity.tenant if scoped else None, "cursor_key": cursor_key}
        return make(session, **{name: value for name, value in arguments.items() if takes[name]})

    return build


def _checked(build: Build, model: type | None) -> Build:
    """Raise the request's own error for a missing tenant, or for one that the tenant column can't hold."""
    scoped = model is not None and traits_of(model).tenant is not None

    def checked(session: AnySession, identity: RequestIdentity, cursor_key: CursorKey) -> AnyRepository:
        if scoped and model is not None and identity.tenant is None:
            raise identity.refusal(f"{model.__name__} belongs to tenants.")
        try:
            repository = build(session, identity, cursor_key)
        except TenantNotGivenError as refused:
            raise identity.refusal(str(refused)) from refused
        except ValidationError as refused:
            if scoped and not isinstance(refused, MisuseError):
                raise BadTenantError(f"The request's tenant is invalid: {refused}") from refused
            raise
        _rebind(session, identity.tenant, repository.tenant_id)
        return repository

    return checked


def _rebind(session: AnySession, named: object, tenant: object) -> None:
    """Bind the session to ``tenant``, the value that the tenant column stores, if it differs from the request's name.

    The two differ if the tenant column is, for example, a UUID: the name in the request is a text.
    """
    if tenant is None or tenant is ALL_TENANTS or tenant == named:
        return
    try:
        bind_tenant(session, tenant)
    except TenantIsolationError:
        # The session is a test's own and not guarded, or it is already in use: the repository itself checks the tenant.
        return
