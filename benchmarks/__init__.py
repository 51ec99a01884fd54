"""Comparisons of the toolkit with asyncpg, hand-written SQLAlchemy and other libraries: ``python -m benchmarks``."""
