"""One UPDATE for many rows: the new values as a table to join with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import bindparam, column, update, values

from .reads import Bound
from .writes import Values, Writer


def update_many(writer: Writer, keys: Sequence[tuple[Any, ...]], rows: Sequence[Values]) -> Iterator[Bound]:
    """UPDATE … FROM (VALUES …) for rows of equal fields, as many statements as the dialect's parameters need.

    Each gives back the primary keys that it found.
    """
    traits, reader = writer.traits, writer.reader
    names = sorted(rows[0])
    fields = [*traits.primary_key, *names]
    size = max(1, reader.dialect.max_parameters // len(fields) - 1)
    columns = [column(f"n{place}", traits.columns[name].type) for place, name in enumerate(fields)]
    width = len(traits.primary_key)
    for start in range(0, len(keys), size):
        data = [
            tuple(
                bindparam(None, value, type_=each.type, unique=True)
                for value, each in zip((*key, *(row[name] for name in names)), columns, strict=True)
            )
            for key, row in zip(keys[start : start + size], rows[start : start + size], strict=True)
        ]
        table = values(*columns, name="dotmac_rows").data(data).cte("dotmac_changes")
        given = list(table.c)
        matches = [traits.attribute(name) == given[place] for place, name in enumerate(traits.primary_key)]
        changes = {name: given[width + place] for place, name in enumerate(names)}
        statement = (
            update(traits.model)
            .where(*matches, *reader.scope.root(traits))
            .values({**changes, **writer.next_version()})
            .returning(*(traits.attribute(name) for name in traits.primary_key))
        )
        yield Bound(statement, dict(reader.scope.parameters))
