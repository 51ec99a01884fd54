"""Policies in a request: whose rules hold on which session."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from starlette.types import Scope

from dotmac_database import MisuseError, Policy, bind_policies, policy_scope

AnySession: TypeAlias = Session | scoped_session[Any] | AsyncSession | async_scoped_session[Any]

RULED = "dotmac_database.ruled"
"""The key of a request's scope that is there if policies rule one of its repositories. Looking for it costs no call."""


@dataclass(frozen=True)
class Policies:
    """The policies of a plugin. ``required``: models without one are refused."""

    members: tuple[Policy[Any], ...]
    required: bool = False

    def bind(self, session: AnySession, actor: object, scope: Scope | None) -> None:
        """Apply the policies to a session that has been made for this actor, in a request or outside of one.

        A session that is neither a request's nor an actor's is that of trusted code, and is not ruled.
        """
        if scope is None and actor is None:
            return
        bind_policies(session, self.members, actor=actor, required=self.required)
        if scope is not None:
            scope[RULED] = True

    def lend(self, session: AnySession, actor: object, scope: Scope | None) -> AbstractContextManager[None]:
        """A block in which the policies apply to a session that the app supplies for a request."""
        if scope is not None:
            scope[RULED] = True
        return policy_scope(session, self.members, actor=actor, required=self.required)


def policies_of(policies: Iterable[Policy[Any]], *, required: bool, actor: object) -> Policies | None:
    """The policies of a plugin; None: it has none. Raises `MisuseError` if no dependency names the ``actor``."""
    members = tuple(policies)
    if not members and not required:
        return None
    if actor is None:
        raise no_actor()
    for each in members:
        if not isinstance(each, Policy):
            raise MisuseError(f"policies: a Policy was expected, not {type(each).__name__}.", field="policies")
    models = [each.model for each in members]
    for model in models:
        if models.count(model) > 1:
            raise MisuseError(
                f"policies: there are two policies of {model.__name__}: combine them by & or |.", field="policies"
            )
    return Policies(members, required)


def no_actor() -> MisuseError:
    """The error for policies of a plugin that does not know who makes a request."""
    return MisuseError(
        "Policies need to know who makes a request: give the plugin a dependency that returns the actor, "
        "DatabasePlugin(url, actor=…).",
        field="actor",
    )


def checked_policy(policy: Policy[Any] | None, model: type | None) -> Policy[Any] | None:
    """The policy, if it rules ``model``. Else raises `MisuseError`."""
    if policy is None:
        return None
    if not isinstance(policy, Policy):
        raise MisuseError(f"policy: a Policy was expected, not {type(policy).__name__}.", field="policy")
    if policy.model is not model:
        name = getattr(model, "__name__", "no class")
        raise MisuseError(f"policy: it rules {policy.model.__name__}, and not {name}.", field="policy")
    return policy
