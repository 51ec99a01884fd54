"""Mixins for models, and the traits of mapped classes."""

from .living import LivingUnique
from .mixins import AuditMixin, HistoryMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from .scoped import TenantScoped
from .traits import Traits, traits_of

__all__ = [
    "AuditMixin",
    "HistoryMixin",
    "LivingUnique",
    "SoftDeleteMixin",
    "TenantMixin",
    "TenantScoped",
    "Traits",
    "VersionMixin",
    "traits_of",
]
