"""The manifest of an export: what it contains, with counts and checksums. It is written last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

from ..dialects.stored_rows import StoredColumn
from ..errors import ValidationError
from ..tenancy.values import same
from .files import write_whole

FORMAT = 1
"""The version of the format of an export. An import refuses a newer one."""

MANIFEST = "manifest.json"
HEAD = "export.json"
"""The file that is written first. With it an export without a manifest can be resumed."""

_KINDS = {"str": str, "int": int, "UUID": UUID, "Decimal": Decimal}
_Json: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Part:
    """One file. ``size`` (in bytes) and ``sha256`` are those of its lines, before they were compressed."""

    file: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ExportedColumn:
    """A column, with the database's name of its type. ``generated``: the database computes its values."""

    name: str
    type: str
    generated: bool


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """The rows of one table, in the order of its primary key. ``belonging`` says why they are the tenant's."""

    name: str
    belonging: str
    columns: tuple[ExportedColumn, ...]
    rows: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What is fixed when an export begins. ``export`` identifies it; ``tenant`` and ``kind`` are its name and its type.

    ``part_rows`` is the most rows of a part. Times are in UTC.
    """

    format: int
    export: str
    tenant: str
    kind: str
    dialect: str
    compressed: bool
    part_rows: int
    started_at: str
    runs: int

    def is_of(self, tenant: object) -> bool:
        """Whether it is an export of this tenant."""
        try:
            return same(_KINDS.get(self.kind, str)(self.tenant), tenant)
        except (ValueError, ArithmeticError):
            return False


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export contains: the tables in the order in which an import writes them, parents before children.

    ``snapshot`` says in words which state of the database it is; `snapshot_at` is when that state was read, and
    ``head.runs`` how many runs it took. ``left_out`` are the tables without the tenant's rows, each with the reason.
    """

    head: Head
    toolkit: str
    server: str
    snapshot: str
    snapshot_at: str
    finished_at: str
    tables: tuple[ExportedTable, ...]
    left_out: Mapping[str, str]

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def size(self) -> int:
        """The size of all lines in bytes, before they were compressed."""
        return sum(part.size for table in self.tables for part in table.parts)

    def write(self, folder: Path) -> None:
        """Write it into the folder of the export."""
        content = {**asdict(self), "rows": self.rows, "size": self.size}
        write_whole(folder / MANIFEST, _dumped(content))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read it. Raises `ValidationError` if there is none, or if it can't be read."""
        content = _loaded(folder, MANIFEST)
        if content is None:
            unfinished = (folder / HEAD).exists()
            state = "its export is not finished: run it again" if unfinished else "the folder is no export"
            raise ValidationError(f"{folder} has no manifest: {state}.", field="folder")
        try:
            head = _head(content["head"])
            tables = tuple(_table(each) for each in _list(content["tables"]))
            texts = {
                name: _text(content[name]) for name in ("toolkit", "server", "snapshot", "snapshot_at", "finished_at")
            }
            left_out = {_text(name): _text(why) for name, why in _object(content["left_out"]).items()}
        except (KeyError, TypeError) as error:
            raise ValidationError(f"The manifest in {folder} is damaged: {error}.", field="folder") from None
        return cls(head=head, tables=tables, left_out=left_out, **texts)


def read_head(folder: Path) -> Head | None:
    """What the first run of an export has fixed; None: no export has begun in this folder."""
    content = _loaded(folder, HEAD)
    if content is None:
        return None
    try:
        return _head(content)
    except (KeyError, TypeError) as error:
        raise ValidationError(f"{HEAD} in {folder} is damaged: {error}.", field="folder") from None


def write_head(folder: Path, head: Head) -> None:
    """Write what this run of an export begins with."""
    write_whole(folder / HEAD, _dumped(asdict(head)))


def tenant_as_text(tenant: object) -> tuple[str, str]:
    """The name of a tenant, and the name of its type, as a manifest has them."""
    kind = next((name for name, type_ in _KINDS.items() if isinstance(tenant, type_)), "str")
    return str(tenant), kind


def exported(column: StoredColumn) -> ExportedColumn:
    """A column of the database as a manifest has it."""
    return ExportedColumn(column.name, column.type, column.generated)


def now_as_text(now: datetime) -> str:
    """A time as a manifest has it."""
    return now.isoformat(timespec="microseconds")


def _dumped(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _loaded(folder: Path, name: str) -> _Json | None:
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise ValidationError(f"{name} in {folder} is no JSON.", field="folder") from None
    if not isinstance(content, dict):
        raise ValidationError(f"{name} in {folder} is no JSON object.", field="folder")
    return content


def _head(value: object) -> Head:
    content = _object(value)
    version = _number(content["format"])
    if version > FORMAT:
        raise ValidationError(
            f"The export has the format {version}, and this toolkit reads {FORMAT}: use a newer one.", field="folder"
        )
    names = ("export", "tenant", "kind", "dialect", "started_at")
    return Head(
        format=version,
        compressed=content["compressed"] is True,
        part_rows=_number(content["part_rows"]),
        runs=_number(content["runs"]),
        **{name: _text(content[name]) for name in names},
    )


def _table(value: object) -> ExportedTable:
    content = _object(value)
    columns = (_object(each) for each in _list(content["columns"]))
    parts = (_object(each) for each in _list(content["parts"]))
    return ExportedTable(
        _text(content["name"]),
        _text(content["belonging"]),
        tuple(ExportedColumn(_text(c["name"]), _text(c["type"]), c["generated"] is True) for c in columns),
        _number(content["rows"]),
        tuple(Part(_text(p["file"]), _number(p["rows"]), _number(p["size"]), _text(p["sha256"])) for p in parts),
    )


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("an object is missing")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("a list is missing")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a number is missing")
    return value
