"""The app of `docs/endpoints.md`, as it stands on that page."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parent.parent.parent / "docs" / "endpoints.md"


def load() -> ModuleType:
    """The module of the page's one block of Python. It is made once, because it maps classes."""
    name = "docs_endpoints"
    if name not in sys.modules:
        [block] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        module = sys.modules[name] = ModuleType(name)
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), module.__dict__)
    return sys.modules[name]
