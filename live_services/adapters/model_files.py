"""Files of model versions that ran here, kept on this machine so that a restart needs no registry to go on.

They are data, never objects: who reads them compares the digest of the sidecar with what the log recorded, and every
other file with the digests in the sidecar, before anything is parsed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from models_registry.refusals import ARTIFACT_FILES

_SIDECAR = "sidecar.json"


class ModelFiles:
    """A folder for each version: ``ROOT/NAME/VERSION``.

    Parameters
    ----------
    root : Path
        Made when the first version is kept.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str, version: str) -> tuple[bytes, dict[str, bytes]] | None:
        """Give a version's sidecar and artifact files; None if they are not here, or not all of them.

        Raises
        ------
        OSError
            If they are here and cannot be read.
        """
        folder = self.folder(name, version)
        try:
            return (folder / _SIDECAR).read_bytes(), {file: (folder / file).read_bytes() for file in ARTIFACT_FILES}
        except FileNotFoundError:
            return None

    def versions(self, name: str) -> tuple[str, ...]:
        """Name the versions of a model that are kept, in no order."""
        folder = self._root / name
        return tuple(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else ()

    def keep(self, name: str, version: str, sidecar: bytes, files: Mapping[str, bytes]) -> None:
        """Keep a version's files; they are there together or not at all, and replace what was there before.

        Raises
        ------
        OSError
            If there is no room, or no right to write.
        """
        folder = self.folder(name, version)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            for file, value in {**files, _SIDECAR: sidecar}.items():
                (whole / file).write_bytes(value)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(whole, folder)  # noqa: PTH105 (said as what it is: one step)
        finally:
            shutil.rmtree(whole, ignore_errors=True)

    def folder(self, name: str, version: str) -> Path:
        """Give where a version is kept.

        Raises
        ------
        OSError
            If its name cannot be that of a folder here.
        """
        for part in (name, version):
            if not part or part.startswith(".") or Path(part).name != part:
                raise OSError(f"{part!r} cannot name a folder under {self._root}")
        return self._root / name / version
