"""Progress of what takes long, in a terminal as a bar, elsewhere as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from live_services.machine import kafka_jars

FileProgress: TypeAlias = Callable[[Path], AbstractContextManager[Callable[[int, int], None]]]
"""Shows the reading of one file while its context lasts; what it gives takes how much is read and how much there is."""


@contextmanager
def no_file_progress(_path: Path) -> Iterator[Callable[[int, int], None]]:
    """Show nothing."""
    yield lambda _done, _total: None


def file_progress(console: Console) -> FileProgress:
    """Show the reading of files as bars that vanish; nothing outside a terminal, where each file gets its own line."""

    @contextmanager
    def of_file(path: Path) -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn("Reading {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(path.name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return of_file


@contextmanager
def jar_progress(console: Console) -> Iterator[kafka_jars.Progress]:
    """Show the download of Kafka's jars; nothing shows when all are here already."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True)
    missing = any(not jar.path(kafka_jars.cache_directory() / "maven").exists() for jar in kafka_jars.read_lock())
    if missing and not console.is_terminal:
        console.print("Fetching Apache Kafka (45 MB, once; kept in the user cache)")
    if not missing or not console.is_terminal:
        yield lambda _here, _total: None
        return
    with bar:
        task = bar.add_task("Fetching Apache Kafka", total=None)

        def progress(here: int, total: int) -> None:
            bar.update(task, completed=here, total=total)
            if here == total:
                bar.update(task, visible=False)

        yield progress


def waiting(console: Console, words: str, *, quietly: bool = False) -> AbstractContextManager[object]:
    """Show in a terminal that something is under way; outside one, and quietly, nothing shows."""
    return nullcontext() if quietly or not console.is_terminal else console.status(words)
