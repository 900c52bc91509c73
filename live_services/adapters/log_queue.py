"""Between a logger and the disk: a queue that never blocks who logs, and the brake on libraries that repeat a line."""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from live_services.adapters.log_lines import CHANNELS, settle

QUEUED_LINES: Final = 10_000
"""So many wait for a slow disk, about 10 MB; what comes then is dropped and counted."""
_KEYS: Final = 1_000
_NUMBERS: Final = re.compile(r"\d+")

Write = Callable[[logging.LogRecord], None]


class Brake:
    """Lets the same line of a library through once in so many seconds, and counts what it held back.

    Two lines are the same when logger, level and template are; a line without arguments is taken without its numbers.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.held_back = 0
        self._seconds = seconds
        self._clock = clock
        self._passed: dict[tuple[str, int, str], tuple[float, int]] = {}
        """When each line passed last, and how many were held back since."""

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether a record may be written; it is told how many of its like were held back before it."""
        if record.name in CHANNELS:
            return True
        template = str(record.msg) if record.args else _NUMBERS.sub("#", str(record.msg))
        key, now = (record.name, record.levelno, template), self._clock()
        passed_at, held = self._passed.get(key, (now - self._seconds, 0))
        if now - passed_at < self._seconds:
            self._passed[key] = (passed_at, held + 1)
            self.held_back += 1
            return False
        if len(self._passed) >= _KEYS:
            self._passed.clear()
        self._passed[key] = (now, 0)
        record.held_back = held
        return True


class _Braked(logging.Handler):
    """Settles what passes the brake, and takes it; one that cannot be told ends on stderr, never at who logs."""

    def __init__(self, write: Write, brake: Brake) -> None:
        super().__init__()
        self._write = write
        self._brake = brake

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        try:
            if self._brake.passes(record) and self._has_room(record):
                settle(record)
                self._take(record)
        except Exception:  # noqa: BLE001 (a library's wrong template ends neither its work nor trading)
            self.handleError(record)

    def _has_room(self, record: logging.LogRecord) -> bool:
        return True

    def _take(self, record: logging.LogRecord) -> None:
        raise NotImplementedError


class Direct(_Braked):
    """Writes at once: for a command or a run that logs little and ends soon."""

    def _take(self, record: logging.LogRecord) -> None:
        self._write(record)


class Queued(_Braked):
    """Hands records to a thread that writes them. A full queue drops and counts; audit lines are never dropped."""

    def __init__(self, write: Write, brake: Brake, most: int = QUEUED_LINES) -> None:
        super().__init__(write, brake)
        self.dropped = 0
        self._most = most
        self.start()

    def start(self) -> None:
        """Begin with an empty queue and a thread of its own; also in the child of a fork, which has no threads."""
        self._queue: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._told = self.dropped
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def _has_room(self, record: logging.LogRecord) -> bool:
        full = self._queue.qsize() >= self._most and record.name != "audit"
        self.dropped += full
        return not full

    def _take(self, record: logging.LogRecord) -> None:
        self._queue.put(record)

    def stop(self, seconds: float) -> bool:
        """Write what is queued, for so long at most; whether all of it was."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        mine = self._queue
        while (record := mine.get()) is not None:
            self._write(record)
            if self.dropped > self._told:
                self._say_dropped()

    def _say_dropped(self) -> None:
        count, self._told = self.dropped - self._told, self.dropped
        said = {"event": "log_lines_dropped", "lines": count, "reason": "they came faster than the disk took them"}
        self._write(logging.LogRecord("monitoring", logging.WARNING, __file__, 0, said, None, None))
