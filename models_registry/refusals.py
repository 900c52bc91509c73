"""Why a model version does not run, and the digests that stand before anything is read.

A refused version changes nothing: what is running goes on. The tree:

    ModelRefusedError
    ├── TamperedModel          a file is not what the sidecar names, or its structure is unsafe
    ├── FeatureSchemaMismatch  the model was trained on other features than those being computed
    ├── GoldenRowsDiffer       the packed model does not say here what the trained one said
    ├── UnknownModelVersion    the registry holds no such version
    └── GateNotPassed          the gate for the rung did not pass and nobody overruled it
        └── GateStale          it passed, but against a version that holds the alias no more
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from models_registry.refs import GateCheck

MODEL_FILE: Final = "model.skops"
FLAT_FILE: Final = "flat.npz"
GOLDEN_FILE: Final = "golden.npz"
SIDECAR_FILE: Final = "sidecar.json"
ARTIFACT_FILES: Final = (MODEL_FILE, FLAT_FILE, GOLDEN_FILE)
"""What a version consists of beside its sidecar; the sidecar names the SHA-256 of each."""
OUT_OF_FOLD_FILE: Final = "out_of_fold.npz"
"""What a version may have beside these, by digest too: live never reads it, and older versions do not have it."""


class ModelRefusedError(Exception):
    """A model version that must not run; the message says why and what to do."""


class TamperedModel(ModelRefusedError):
    """Bytes that are not what was registered, or that no trainer of ours writes."""


class FeatureSchemaMismatch(ModelRefusedError):
    """A model of other features; never papered over."""


class GoldenRowsDiffer(ModelRefusedError):
    """The golden rows score differently here; equality is promised per platform and library versions."""


class UnknownModelVersion(ModelRefusedError):
    """A name, version or alias that the registry does not hold."""


class GateNotPassed(ModelRefusedError):
    """A gate that said no; ``failed`` are the checks that did not pass."""

    def __init__(self, message: str, failed: tuple[GateCheck, ...] = ()) -> None:
        super().__init__(message)
        self.failed = failed


class GateStale(GateNotPassed):
    """A gate that was passed against another version than the one that would be replaced."""


def sha256_of(value: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(value).hexdigest()


def verify_digests(files: Mapping[str, bytes], expected: Mapping[str, str]) -> None:
    """Compare every file with the sidecar's ``artifact_sha256`` before anything is parsed.

    What live does not read (`OUT_OF_FOLD_FILE`) may be left out of ``files``.

    Raises
    ------
    TamperedModel
        If a file is missing, unexpected, or has other bytes; names the file.
    """
    names, beside = set(ARTIFACT_FILES), {OUT_OF_FOLD_FILE}
    if set(expected) - beside != names or set(files) - beside != names or set(files) - set(expected):
        raise TamperedModel(
            f"a version has exactly {sorted(names)} and maybe {OUT_OF_FOLD_FILE}; the sidecar names "
            f"{sorted(expected)}, found {sorted(files)}. Train and register the model again."
        )
    for name, value in files.items():
        found = sha256_of(value)
        if found != expected[name]:
            raise TamperedModel(
                f"{name} has SHA-256 {found[:16]}…, the sidecar says {expected[name][:16]}…: the artifact was changed "
                "after training. Do not use this version; promote another one or train again."
            )
