"""The jars of Apache Kafka: pinned by coordinates and SHA-256, fetched once, verified at every start.

``python -m live_services.machine.kafka_jars > live_services/machine/kafka_jars.lock`` writes the lock anew, after a
change of ``KAFKA_VERSION``; nothing else resolves dependencies.

    KafkaJarsError
    ├── JarUnavailable   a jar could not be fetched
    └── WrongDigest      a fetched jar is not the one that was pinned
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from live_services.failures import CommandFailed

KAFKA_VERSION: Final = "4.3.1"
LOCK_FILE: Final = Path(__file__).with_suffix(".lock")
_DOWNLOADS_AT_ONCE: Final = 4
_ATTEMPTS: Final = 3

Progress = Callable[[int, int], None]
"""Called with (jars that are here, jars in all)."""


class KafkaJarsError(CommandFailed):
    """Kafka's jars are not usable; the message says what to do."""


class JarUnavailable(KafkaJarsError):
    """A jar is neither in the cache nor to be had from the network."""


class WrongDigest(KafkaJarsError):
    """A jar's bytes are not those that were pinned."""


@dataclass(frozen=True, slots=True)
class PinnedJar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    def path(self, repository: Path) -> Path:
        """Where it lies in a Maven repository directory."""
        return repository.joinpath(
            *self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar"
        )

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


Fetch = Callable[[PinnedJar, Path], None]
"""Puts one jar into a repository directory."""


def cache_directory() -> Path:
    """Where downloads are kept: ``ALPHA_PANDA_CACHE``, else the user's cache directory."""
    return Path(os.environ.get("ALPHA_PANDA_CACHE") or platformdirs.user_cache_path("alpha-panda"))


def read_lock(lock_file: Path = LOCK_FILE) -> tuple[PinnedJar, ...]:
    """Read the pinned jars, in the order of the class path."""
    pinned = []
    for line in lock_file.read_text().splitlines():
        coordinates, _, sha256 = line.partition(" ")
        group, artifact, version = coordinates.split(":")
        pinned.append(PinnedJar(group, artifact, version, sha256.strip()))
    return tuple(pinned)


def ensure_jars(
    cache: Path | None = None,
    pinned: tuple[PinnedJar, ...] | None = None,
    *,
    progress: Progress | None = None,
    fetch: Fetch | None = None,
) -> tuple[Path, ...]:
    """Give the verified paths of Kafka's jars, fetching what is missing.

    Parameters
    ----------
    cache
        Directory to keep them in; default ``cache_directory()``.
    pinned
        What is wanted; default the committed lock.
    progress
        Told after each jar.
    fetch
        Puts one jar into the cache; default: from the Maven repository that jgo is configured for.

    Raises
    ------
    JarUnavailable
        No network, or the jar does not exist.
    WrongDigest
        Fetched afresh, a jar still differs from its pinned SHA-256; the file was removed.
    """
    pinned = read_lock() if pinned is None else pinned
    repository = (cache or cache_directory()) / "maven"
    repository.mkdir(parents=True, exist_ok=True)
    here = 0
    with _locked(repository / ".lock"), ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        paths = []
        for path in pool.map(lambda jar: _ensure(jar, repository, fetch or fetch_with_jgo), pinned):
            paths.append(path)
            here += 1
            if progress is not None:
                progress(here, len(pinned))
    return tuple(paths)


def _ensure(jar: PinnedJar, repository: Path, fetch: Fetch) -> Path:
    path = jar.path(repository)
    if path.exists() and _sha256(path) == jar.sha256:
        return path
    changed = path.exists()
    path.unlink(missing_ok=True)  # a broken download, or a file somebody changed: fetch it again once
    try:
        fetch(jar, repository)
    except JarUnavailable as problem:
        if changed:
            raise JarUnavailable(
                f"{path} was not the file that {LOCK_FILE.name} pins by its SHA-256, so it was removed. {problem}"
            ) from problem
        raise
    found = _sha256(path)
    if found != jar.sha256:
        path.unlink()
        raise WrongDigest(
            f"{jar}: SHA-256 is {found}, but {LOCK_FILE.name} pins {jar.sha256}. The file was removed and Kafka was "
            "not started. Try again; if it stays so, something between you and the repository changes files."
        )
    return path


def fetch_with_jgo(jar: PinnedJar, repository: Path) -> None:
    """Fetch one jar through jgo (Maven Central unless jgo is told otherwise)."""
    import requests
    from jgo.maven import MavenContext

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            context = MavenContext(repo_cache=repository, timeout=60)
            context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (requests.RequestException, RuntimeError, OSError) as problem:
            jar.path(repository).unlink(missing_ok=True)
            if attempt == _ATTEMPTS:
                raise JarUnavailable(
                    f"{jar} could not be fetched ({_reason(problem)}). Kafka's jars (45 MB) are downloaded once: "
                    f"connect to the network and try again, copy them from another machine to {repository} "
                    "(or set ALPHA_PANDA_CACHE), or use your own Kafka with KAFKA__BOOTSTRAP_SERVERS."
                ) from problem
        else:
            return


def _reason(problem: Exception) -> str:
    import requests

    if isinstance(problem, requests.RequestException) and problem.request is not None:
        return f"{type(problem).__name__}, asking {problem.request.url}"
    return str(problem)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two processes must not write the same jar
        yield


def resolve_lock(repository: Path) -> Iterator[str]:
    """Resolve Kafka's class path anew and give the lines of a lock; ``log4j-slf4j-impl`` joins log4j's own version."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository, timeout=60)
    kafka = context.create_dependency(f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
    inputs, transitive = context.resolver.resolve([kafka])
    coordinates = {(d.groupId, d.artifactId, d.version) for d in (*inputs, *transitive)}
    log4j = next(version for _, artifact, version in coordinates if artifact == "log4j-core")
    coordinates.add(("org.apache.logging.log4j", "log4j-slf4j-impl", log4j))
    for group, artifact, version in sorted(coordinates):
        path = Path(context.project(group, artifact).at_version(version).artifact().resolve())
        yield f"{group}:{artifact}:{version} {_sha256(path)}"


if __name__ == "__main__":
    for lock_line in resolve_lock(cache_directory() / "maven"):
        sys.stdout.write(f"{lock_line}\n")
