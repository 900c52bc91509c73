"""How a process logs: every line on a channel, each channel a rotating JSON file in ``{home}/logs`` that all processes
share, and a readable console. Whoever logs never waits for the disk.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from concurrent_log_handler import ConcurrentRotatingFileHandler

from live_services.adapters import log_lines
from live_services.adapters.log_lines import JsonLines, Origin, ReadableLines, channel_of, line_of
from live_services.adapters.log_queue import Brake, Direct, Queued
from live_services.adapters.redaction import redaction
from live_services.operations_settings import LoggingSettings

CHANNELS: Final = log_lines.CHANNELS
WIRING_FILE: Final = "alpha_panda.log"
"""Has a line for each start of a process: which channel goes where."""
_MB: Final = 1024 * 1024
_STOP_SECONDS: Final = 2.0
_FAILING_SECONDS: Final = 60.0
_COMPLAINT_SECONDS: Final = 60.0
# Its reconnects and rebalances are INFO; what matters of them comes from the runtime.
_QUIET: Final[Mapping[str, int]] = {
    "aiokafka": logging.WARNING,
    # Kafka verifies a transaction at its first produce and answers "NotEnoughReplicas" meanwhile, many times a minute;
    # a delivery that really fails ends the commit, and with it the process, with its own message.
    "aiokafka.producer.sender": logging.ERROR,
    "urllib3": logging.WARNING,
    "asyncio": logging.WARNING,
}
_PROCESSORS: Final[list[Any]] = [  # one list: loggers keep it from their first line on
    structlog.contextvars.merge_contextvars,
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


class ChannelFile(ConcurrentRotatingFileHandler):
    """A file that processes share and rotate; what it cannot write it counts, and says so once a minute on stderr."""

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        super().__init__(str(path), maxBytes=max_bytes, backupCount=backups, encoding="utf-8", chmod=0o600)
        self.setFormatter(JsonLines())
        self.failed = 0
        self.failed_at = -_FAILING_SECONDS
        """When a line could not be written last; monotonic seconds."""
        self._complained_at = -_COMPLAINT_SECONDS

    def _open_lockfile(self) -> None:
        Path(self.baseFilename).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        super()._open_lockfile()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name is logging's)
        """Count a line that could not be written."""
        self.failed += 1
        self.failed_at = time.monotonic()
        if time.monotonic() - self._complained_at >= _COMPLAINT_SECONDS and sys.stderr is not None:
            self._complained_at = time.monotonic()
            failure = sys.exc_info()[1]
            with suppress(OSError):  # who read it is gone; the thread that writes goes on
                sys.stderr.write(f"cannot write {self.baseFilename}: {failure}; {self.failed} lines are lost so far\n")


class _Sinks:
    """Where records end: the file of their channel, ``error.log`` if they are errors, and the console."""

    def __init__(
        self, origin: Origin, home: Path | None, settings: LoggingSettings, secrets: Iterable[str], *, console: bool
    ) -> None:
        self._origin = origin
        self._redact = redaction(secrets)
        self.files: dict[str, ChannelFile] = {}
        if home is not None:
            self.files = {name: _file_of(name, home, settings) for name in CHANNELS}
        self.console = logging.StreamHandler(sys.stderr) if console else None
        if self.console is not None:
            self.console.setFormatter(ReadableLines())

    def write(self, record: logging.LogRecord) -> None:
        try:
            record.line = line_of(record, self._origin, self._redact)
        except Exception as failure:  # noqa: BLE001 (a line that cannot be written ends neither thread nor trading)
            record.line = {"event": "log_line_failed", "logger": record.name, "failure": type(failure).__name__}
        names = {channel_of(record.name)} | ({"error"} if record.levelno >= logging.ERROR else set())
        for name in names & self.files.keys():
            self.files[name].handle(record)
        if self.console is not None:
            self.console.handle(record)

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def _file_of(channel: str, home: Path, settings: LoggingSettings) -> ChannelFile:
    """Open a channel's file; that of ``audit`` is only ever added to: never rotated, nothing of it deleted."""
    max_bytes = 0 if channel == "audit" else settings.max_mb * _MB
    return ChannelFile(home.absolute() / "logs" / f"{channel}.log", max_bytes, settings.backups)


@dataclass(frozen=True)
class LogWiring:
    """How this process logs."""

    service: str
    level: str
    files: Mapping[str, Path]
    """By channel; empty without a home."""
    console: bool
    queued: bool
    _sinks: _Sinks
    _handler: Queued | Direct
    _brake: Brake
    _loggers: tuple[logging.Logger, ...]

    def takes(self, channel: str) -> bool:
        """Whether a line on a channel gets to a handler, and from there to its file."""
        return channel in self.files and logging.getLogger(channel).hasHandlers()

    @property
    def dropped(self) -> int:
        """Lines that a full queue did not take."""
        return self._handler.dropped if isinstance(self._handler, Queued) else 0

    @property
    def held_back(self) -> int:
        """Lines that libraries repeated."""
        return self._brake.held_back

    @property
    def failed(self) -> int:
        """Lines that a file did not take."""
        return sum(file.failed for file in self._sinks.files.values())

    @property
    def lost(self) -> int:
        """Lines that are in no file: those that were dropped, and those that a file did not take."""
        return self.dropped + self.failed

    @property
    def is_failing(self) -> bool:
        """Whether a file did not take a line in the last minute."""
        now = time.monotonic()
        return any(now - file.failed_at < _FAILING_SECONDS for file in self._sinks.files.values())


class Routed(logging.Handler):
    """Hands records to this process's wiring, if it has one; for a library that takes the name of a handler's class."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on."""
        if _current is not None:
            _current._handler.handle(record)


_current: LogWiring | None = None


def wiring() -> LogWiring | None:
    """Give how this process logs; None before :func:`configure_logging`."""
    return _current


def configure_logging(
    service: str,
    home: Path | None = None,
    settings: LoggingSettings | None = None,
    *,
    scope: str = "",
    secrets: Iterable[str] = (),
) -> LogWiring:
    """Take over the logging of a process: channels' files, a readable console, libraries routed and held.

    Parameters
    ----------
    service, scope
        Who writes; they stand on each line.
    home
        Its ``logs`` holds the files; default: the console only.
    settings
        Level, size and number of the files, how often a library may repeat itself.
    secrets
        Values that are hidden wherever they stand; see :func:`live_services.adapters.redaction.secrets_of`.
    """
    settings = settings or LoggingSettings()
    wired = _wire(Origin(service, scope), home, settings, secrets, own=True)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    if home is not None:
        _say_wiring(wired, home, settings, Origin(service, scope))
    return wired


def log_beside(
    service: str,
    home: Path | None = None,
    settings: LoggingSettings | None = None,
    *,
    secrets: Iterable[str] = (),
    libraries: Iterable[str] = (),
) -> LogWiring:
    """Write the channels' files, and nothing else, from a process whose console is another's.

    For the command line and for Dagster's processes: lines are few, and each is on disk when the call returns. No file
    or directory is made before the first line. What ``libraries`` log goes on where it went, and to the files too.
    """
    return _wire(Origin(service), home, settings or LoggingSettings(), secrets, own=False, libraries=tuple(libraries))


def stop_logging(seconds: float = _STOP_SECONDS) -> bool:
    """Write what is queued, for so long at most, and let the loggers go; whether all of it was written."""
    global _current
    if _current is None:
        return True
    gone, _current = _current, None
    if gone.held_back:
        said = {"event": "library_lines_held_back", "lines": gone.held_back}
        gone._handler.handle(logging.LogRecord("application", logging.INFO, __file__, 0, said, None, None))
    for logger in gone._loggers:
        logger.removeHandler(gone._handler)
        logger.propagate = True
    written = not isinstance(gone._handler, Queued) or gone._handler.stop(seconds)
    if written:  # else its thread still writes
        gone._sinks.close()
    return written


def _wire(
    origin: Origin,
    home: Path | None,
    settings: LoggingSettings,
    secrets: Iterable[str],
    *,
    own: bool,
    libraries: tuple[str, ...] = (),
) -> LogWiring:
    global _current  # noqa: PLW0603
    stop_logging()
    level = logging.getLevelNamesMapping()[settings.level]
    structlog.configure(
        processors=_PROCESSORS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    sinks, brake = _Sinks(origin, home, settings, secrets, console=own), Brake(settings.third_party_seconds)
    handler: Queued | Direct = Queued(sinks.write, brake) if own else Direct(sinks.write, brake)
    if own:
        logging.basicConfig(handlers=[handler], level=level, force=True)
        loggers: tuple[logging.Logger, ...] = (logging.getLogger(),)
    else:
        loggers = tuple(logging.getLogger(name) for name in (*CHANNELS, *libraries))
        for logger in loggers:
            logger.addHandler(handler)
            if logger.name in CHANNELS:
                logger.setLevel(level)
                logger.propagate = False
    files = {name: Path(file.baseFilename) for name, file in sinks.files.items()}
    _current = LogWiring(origin.service, settings.level, files, own, own, sinks, handler, brake, loggers)
    return _current


def _say_wiring(wired: LogWiring, home: Path, settings: LoggingSettings, origin: Origin) -> None:
    said = {
        "event": "logging_wired",
        "wired_level": wired.level,
        "channels": {channel: str(path) for channel, path in wired.files.items()},
        "console": wired.console,
        "rotated_at_mb": settings.max_mb,
        "backups": settings.backups,
        "libraries_held_to_seconds": settings.third_party_seconds,
    }
    record = logging.LogRecord("application", logging.INFO, __file__, 0, said, None, None)
    record.line = line_of(record, origin, redaction())
    file = ChannelFile(home.absolute() / "logs" / WIRING_FILE, settings.max_mb * _MB, settings.backups)
    file.handle(record)
    file.close()


def _after_fork() -> None:
    if _current is not None and isinstance(_current._handler, Queued):
        _current._handler.start()


atexit.register(stop_logging)
os.register_at_fork(after_in_child=_after_fork)
