"""Progress of what takes long, in a terminal as a bar, elsewhere as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from live_services import kafka_jars


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
