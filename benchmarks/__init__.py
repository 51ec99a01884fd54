"""The toolkit beside raw asyncpg and SQLAlchemy as usually written: ``python -m benchmarks``."""
