"""Builds SQLAlchemy statements from options. Pure functions: nothing is sent from here."""
