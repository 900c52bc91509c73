"""Which code made a file or a model."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE_ROOT = Path(__file__).resolve().parents[1]
_LIVE_PACKAGES = ("feature_store", "models_registry", "live_services")


@lru_cache(maxsize=1)
def code_commit(root: Path = _PACKAGE_ROOT) -> str:
    """Give the commit of the checkout that runs, ``-dirty`` when tracked files differ; else the package's version.

    An installed package that happens to lie inside somebody else's checkout (a virtual environment) is not that
    checkout, so ``root`` itself must be its top.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root:
        return f"alpha-panda {_package_version()}"
    return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit


@lru_cache(maxsize=1)
def code_digest(root: Path = _PACKAGE_ROOT) -> str:
    """Give the SHA-256 of every module that a live service may import, by name and content.

    Two checkouts of one commit have the same one; a line edited in between is another.
    """
    digest = hashlib.sha256()
    for package in _LIVE_PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()


def _package_version() -> str:
    try:
        return version("alpha-panda")
    except PackageNotFoundError:
        return "unknown version"
