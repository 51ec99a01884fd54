"""The history of rows: what was changed, when, and by whom."""

from . import mapping as mapping  # listens to classes with `HistoryMixin`
from .entries import HistoryEntry

__all__ = ["HistoryEntry"]
