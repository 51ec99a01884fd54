"""How time and memory grow with rows, tenants and random shapes of calls: ``python -m benchmarks.growth``."""
