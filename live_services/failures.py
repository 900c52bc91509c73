"""What a person is told when a command cannot go on; in a room of its own, so that no service loads a CLI library."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command could not do what was asked; the message says what to do."""
