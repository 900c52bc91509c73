"""How a task numbers what other tasks merge, so that they tell it from what anybody else writes there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from feature_store.market.types import Session
from live_services.domain.sequence import Stamp
from live_services.domain.topics import Topic


class Numbers:
    """The numbers of one task's outputs in a session, by topic.

    Only what is committed counts: a successor goes on from there, and who was fenced has said nothing.

    Parameters
    ----------
    topics : iterable of Topic
        What the task may say something on; those with a writer are numbered.
    last : mapping of str to int
        By topic, of the last record of the session that a predecessor was in.
    """

    def __init__(self, topics: Iterable[Topic], last: Mapping[str, int]) -> None:
        self._writers: Final = {topic.name: topic.writer for topic in topics if topic.writer}
        self._last = dict(last)

    def begin(self) -> None:
        """Begin with a session in which nothing was said."""
        self._last.clear()

    def next_stamp(self, topic: str, session: Session | None) -> Stamp | None:
        """Number one more record of a topic; None for one that is not numbered, and outside a session."""
        writer = self._writers.get(topic)
        if writer is None or session is None:
            return None
        self._last[topic] = number = self._last.get(topic, -1) + 1
        return Stamp(writer, session.open_ns, number)

    @property
    def last(self) -> dict[str, int]:
        """What a commit has to say of them."""
        return dict(self._last)
