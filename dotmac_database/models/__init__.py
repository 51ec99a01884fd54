"""Mixins, and the traits that any mapped class has."""

from .living import LivingUnique
from .mixins import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from .traits import Traits, traits_of

__all__ = ["AuditMixin", "LivingUnique", "SoftDeleteMixin", "TenantMixin", "Traits", "VersionMixin", "traits_of"]
