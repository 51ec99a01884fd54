"""Makes links of the public names in docstrings: `create_repository` leads to its place in the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

PACKAGES = ("dotmac_database", "dotmac_database_fastapi", "dotmac_database.testing")
NAME = re.compile(r"(?<![`\w])`(\w+)`(?![`\w])")


class Links(griffe.Extension):
    """Replaces names in single backticks, which docstrings use for names of the toolkit."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, str] = {}

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Note the public names of a package, and link to them from its docstrings."""
        for path in PACKAGES:
            if path.partition(".")[0] == pkg.name:
                module: Any = pkg if path == pkg.name else pkg[path.partition(".")[2]]
                self.places.update({name: f"{path}.{name}" for name in module.exports or ()})
        self._link(pkg)

    def _link(self, owner: griffe.Object) -> None:
        if owner.docstring is not None:
            owner.docstring.value = NAME.sub(self._linked, owner.docstring.value)
        for member in owner.members.values():
            if isinstance(member, griffe.Object):
                self._link(member)

    def _linked(self, match: re.Match[str]) -> str:
        place = self.places.get(match[1])
        return match[0] if place is None else f"[{match[0]}][{place}]"
