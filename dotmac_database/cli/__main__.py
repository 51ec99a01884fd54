"""``python -m dotmac_database.cli``: as ``dotmac-db``."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
