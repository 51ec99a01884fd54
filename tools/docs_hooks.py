"""What mkdocs calls while it builds the documentation site."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

COMING = frozenset({"tenants.md", "command-line.md", "doctor.md"})
"""The pages that have a place in the navigation before they exist. A missing page of another name is an error."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave the pages of `COMING` that don't exist out of the navigation."""
    config.nav = existing(config.nav or [], Path(config.docs_dir))
    return config


def existing(nav: list[object], docs: Path) -> list[object]:
    """The entries of a navigation, without those of `COMING` whose files are not in ``docs``."""
    kept: list[object] = []
    for entry in nav:
        if isinstance(entry, dict):
            kept.append({title: existing(below, docs) for title, below in entry.items()})
        elif entry not in COMING or (docs / str(entry)).exists():
            kept.append(entry)
    return kept
