"""The pytest plugin of `dotmac_database`, which pytest loads in each run in whose environment the toolkit is installed.

It is a package of its own, because ``import dotmac_database`` takes longer than all of pytest: `plugin` imports the
toolkit, SQLAlchemy and PostgreSQL only when a test takes one of its fixtures.
"""
