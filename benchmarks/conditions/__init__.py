"""Comparisons of the toolkit with the ORM by hand under many conditions: ``python -m benchmarks.conditions``."""
