"""What only PostgreSQL or only SQLite can do, and what their errors mean; nothing dialect-specific is elsewhere."""

from .errors import cause_of, lost_connection, translate, translated

__all__ = ["cause_of", "lost_connection", "translate", "translated"]
