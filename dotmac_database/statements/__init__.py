"""Options in, SQLAlchemy statements out: pure functions, nothing is sent from here."""
