"""Files that are there whole or not at all, and stay there when the power goes: content first, then the name."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from feature_store.market.types import UnreadableFile


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document of the store.

    Raises
    ------
    UnreadableFile
        If it does not exist or is damaged.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnreadableFile(f"{path} does not exist; write data to the store first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} is damaged ({error}); write the data again") from error
    if not isinstance(document, dict):
        raise UnreadableFile(f"{path} is damaged (no JSON object); write the data again")
    return document


def replace(path: Path, content: bytes) -> None:
    """Put a file in place at once: readers see the old one or the new one, never half of one, even after a power cut.

    When it returns, content and name are on the disk.
    """
    make_directory(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could keep the name and lose the content
    beside.replace(path)
    sync_directory(path.parent)  # or it could lose the name


def make_directory(folder: Path) -> None:
    """Make a directory, and those above it, so that a power cut does not lose them."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_directory(one.parent)


def sync_directory(folder: Path) -> None:
    """Bring what was renamed, made or removed in a directory onto the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
