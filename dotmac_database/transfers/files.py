"""Files that are there in full or not at all, also after a crash."""

from __future__ import annotations

import gzip
import os
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from ..errors import ValidationError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step: a temporary file, which gets the file's name when it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names of the new files in a folder. Windows can't, and needs not."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(content: bytes) -> str:
    """The SHA-256 in hexadecimal digits."""
    return sha256(content).hexdigest()


def part_name(position: int, table: str, number: int, *, compressed: bool) -> str:
    """The name of a part's file in the folder: ``003-orders/000001.ndjson``."""
    return f"{position:03}-{quote(table, safe='')}/{number:06}.ndjson{'.gz' if compressed else ''}"


def pack(content: bytes, *, compressed: bool) -> bytes:
    """The content of a part's file. The same rows give the same bytes."""
    return gzip.compress(content, compresslevel=6, mtime=0) if compressed else content


def read_part(folder: Path, name: str, size: int) -> bytes:
    """The lines of a part, at most ``size`` bytes and one more, so that a wrong file fills no memory.

    Raises `ValidationError` if the file is missing, outside of the folder, or damaged.
    """
    root, path = folder.resolve(), (folder / name).resolve()
    if root not in path.parents:
        raise ValidationError(f"The manifest names a file outside of its folder: {name}.", field="folder")
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            content: bytes = file.read(size + 1)
    except FileNotFoundError:
        raise ValidationError(f"The file {name} is missing.", field="folder") from None
    except (EOFError, OSError) as error:
        raise ValidationError(f"The file {name} can't be read: {type(error).__name__}.", field="folder") from error
    return content


def current_content(path: Path, size: int) -> bytes | None:
    """The lines of a part that an earlier run has written; None: it has not, or the file is damaged."""
    try:
        return read_part(path.parent, path.name, size)
    except ValidationError:
        return None
