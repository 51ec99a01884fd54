"""Measure how the toolkit's time and memory grow, compared with the same work on the ORM by hand.

``rows``: each operation in tables with different numbers of rows, in 10 tenants. ``tenants``: each operation in a table
with the largest of these numbers, in different numbers of tenants. The measured tenant has a tenth of the rows in the
first part, and always the same number in the second. The rows that both ways return are compared before the
measurement. Buffers are the pages of 8 KiB of the table and its indexes that PostgreSQL reads and changes for one call;
they are counted, and do not depend on the machine.

``memory``: the peak of memory of reading all rows and of creating many, each in a process of its own. ``shapes``: calls
and requests with random filters, orders, fields, lists and tenants; no cache may exceed its bound, and memory must stay
flat.

The exit status is 1 if something grows that must not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .operations import OPERATIONS
from .parts import PARTS, failures, measured


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of rows")
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 1000, 100_000], help="numbers of tenants")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    names = [each.name for each in OPERATIONS]
    parser.add_argument("--operation", choices=names, nargs="+", default=names, help="measure only some operations")
    parser.add_argument("--rounds", type=int, default=30, help="number of turns of each way at each size, at least 3")
    parser.add_argument("--calls", type=int, default=25_000, help="number of calls of each of the four runs of shapes")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--figures", type=Path, help="take the figures of parts that are not measured from this file")
    parser.add_argument("--plots", type=Path, help="draw the figures as SVG files in this folder")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text()) if arguments.figures else {}
    chosen = [part for part in PARTS if arguments.only == part or (arguments.only is None and part not in figures)]
    figures |= measured(chosen, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.plots:
        from .plots import draw  # matplotlib is needed for nothing else

        draw(figures, arguments.plots)
    grown = failures(figures)
    print("".join(f"\nGROWS: {failure}" for failure in grown))
    return int(bool(grown))


if __name__ == "__main__":
    sys.exit(main())
