"""Judges migrations before they run: which of their statements would lock or rewrite a large table.

The rules are those of squawk and strong_migrations. In addition a finding states the size of the table.
"""

from .examining import examine_migrations, examine_statements
from .rules import RULES, Rule

__all__ = ["RULES", "Rule", "examine_migrations", "examine_statements"]
