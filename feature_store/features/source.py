"""The digest of the code that feature values come from, and where numba keeps what it makes of that code.

numba's cache notices changes of the file of a function only, not of the functions it calls; so the cache lies in a
directory named by the digest of every file that a kernel here is made of.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numba
import platformdirs

_FILES: Final = ("window", "library", "kernels", "folding", "projection")

SOURCE_DIGEST: Final = hashlib.sha256(
    b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _FILES)
).hexdigest()
"""SHA-256 of the code that feature values come from."""


def keep_compiled_code() -> None:
    """Keep compiled code in the directory of this digest, unless ``NUMBA_CACHE_DIR`` names another."""
    if not numba.config.CACHE_DIR:
        numba.config.CACHE_DIR = str(Path(platformdirs.user_cache_dir("alpha-panda")) / "numba" / SOURCE_DIGEST[:16])
