"""Tables of cases whose every cell is run against real databases: what works alone may fail in a product of two.

Each module has one matrix. ``make test`` runs a sample of each, ``make matrices`` every cell (the marker ``matrix``).
"""
