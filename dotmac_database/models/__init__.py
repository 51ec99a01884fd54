"""Mixins, and the traits that any mapped class has."""

from .mixins import AuditMixin, SoftDeleteMixin, TenantMixin, VersionMixin
from .traits import Traits, traits_of

__all__ = ["AuditMixin", "SoftDeleteMixin", "TenantMixin", "Traits", "VersionMixin", "traits_of"]
