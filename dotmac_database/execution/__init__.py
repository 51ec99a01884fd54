"""How statements are sent.

`state` holds what the toolkit remembers of a session, `routes` decides how a statement is sent and why, `work` begins
and ends transactions, and `asyncpg` sends a statement by the driver alone.
"""
