"""Header names that a client of Kafka in another language may write."""

from __future__ import annotations


class BadName(str):
    """A name that goes to the brokers as bytes which are no UTF-8; the client writes it in Python only."""

    said: bytes

    def __new__(cls, said: bytes) -> BadName:
        """Take the bytes."""
        made = super().__new__(cls, said.decode("latin-1"))
        made.said = said
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Give the bytes."""
        return self.said
