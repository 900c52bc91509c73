"""supervisord as `up` starts it: ``python -m live_services.machine.supervisord -n -c FILE``.

Where it cannot write its own log it says so on stderr, which lies on the same disk; a full one would end it there, and
leave everything that it started to nobody.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

from supervisor import supervisord


class Unending:
    """A stream that takes what can be written and forgets the rest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write at once, or not at all."""
        with suppress(OSError):
            os.write(self._stream.fileno(), text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def fileno(self) -> int:
        """Give the descriptor below."""
        return self._stream.fileno()


def main() -> None:
    """Run supervisord until it is told to stop."""
    sys.stdout, sys.stderr = Unending(sys.stdout), Unending(sys.stderr)
    supervisord.main()


if __name__ == "__main__":
    main()
