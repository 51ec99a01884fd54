"""Rules inside a tenant: which actor may read, create, change and delete which rows and columns."""

from .policy import Policy
from .rights import Right
from .rules import RULES, ModelRules, Rules, bind_policies, policy_scope, rules_of, rules_scope

__all__ = [
    "RULES",
    "ModelRules",
    "Policy",
    "Right",
    "Rules",
    "bind_policies",
    "policy_scope",
    "rules_of",
    "rules_scope",
]
