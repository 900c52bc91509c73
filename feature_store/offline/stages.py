"""The stages of market data, a session after the other: source → bars → features → labels, each into the store.

Each gives what it wrote, session by session as it is iterated. However a day comes, alone or with the whole market, it
goes through these functions, so it is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

from feature_store.features.schema import FeatureSchema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Session, Universe
from feature_store.offline.feature_rows import FeatureRows, computed, write_features
from feature_store.offline.incoming import bar_source_of, bars_on_clock, write_incoming
from feature_store.offline.label_rows import LabelRows, compute_labels, write_labels
from feature_store.offline.store import OfflineStore
from feature_store.sources.arrivals import Arrival

_Rows = TypeVar("_Rows")
_Digest = TypeVar("_Digest")

_WRITERS: Final = 4  # most of a writer's time is the disk's


class StoredBars(NamedTuple):
    """The bars of one session on the desk's clock."""

    session: Session
    universe: Universe
    bars: Bars
    bar_source: str
    """What made them; see `incoming.bar_source_of`."""
    digest: str


class StoredFeatures(NamedTuple):
    """The feature rows of one session."""

    session: Session
    rows: FeatureRows
    digest: str


class StoredLabels(NamedTuple):
    """The labels of one session, of one kind."""

    session: Session
    label: ForwardReturn
    rows: LabelRows
    digest: str


def store_arrival(store: OfflineStore, arrival: Arrival) -> Iterator[Session]:
    """Write an arrival's sessions as their source has them; what a session had before is replaced."""
    for session in arrival.sessions:
        write_incoming(store, arrival, session)
        yield session


def store_bars(store: OfflineStore, sessions: Sequence[Session], clock: BarClock) -> Iterator[StoredBars]:
    """Put sessions that came in on the desk's clock.

    Raises
    ------
    MarketDataError
        If a source's bars do not add up to those of the clock.
    """
    for session in sessions:
        universe, source = store.universe(), bar_source_of(store, session)
        bars = bars_on_clock(store, session, clock)
        digest = store.write_bars(session, universe, bars, store.market() or "", bar_source=source, clock=clock)
        yield StoredBars(session, universe, bars, source, digest)


def store_features(
    store: OfflineStore, sessions: Sequence[Session], schema: FeatureSchema, actions: CorporateActions | None = None
) -> Iterator[StoredFeatures]:
    """Compute the feature rows of sessions that have bars, each as a warm start would see them.

    Raises
    ------
    OtherClock
        If bars of a session or of its history are not on the schema's clock.
    """
    if not sessions:
        return  # the store may be empty
    found = zip(sessions, computed(store, sessions, schema, None, actions), strict=True)
    for (session, rows), digest in _written(
        found, lambda one: write_features(store, one[0], schema, one[1], actions=actions)
    ):
        yield StoredFeatures(session, rows, digest)


def store_labels(
    store: OfflineStore, sessions: Sequence[Session], labels: Sequence[ForwardReturn]
) -> Iterator[tuple[StoredLabels, ...]]:
    """Label the bars of sessions, each once for every label."""
    pinned = store.pinned(sessions)
    found = ((s, [(label, compute_labels(pinned, s, label)) for label in labels]) for s in sessions)

    def write(one: tuple[Session, list[tuple[ForwardReturn, LabelRows]]]) -> list[str]:
        return [write_labels(store, one[0], label, rows) for label, rows in one[1]]

    for (session, of_session), digests in _written(found, write):
        yield tuple(
            StoredLabels(session, label, rows, digest)
            for (label, rows), digest in zip(of_session, digests, strict=True)
        )


def _written(found: Iterable[_Rows], write: Callable[[_Rows], _Digest]) -> Iterator[tuple[_Rows, _Digest]]:
    """Write what is found, a few sessions at once while the next are computed; give it in order, once it is on disk."""
    with ThreadPoolExecutor(_WRITERS) as threads:
        under_way: deque[tuple[_Rows, Future[_Digest]]] = deque()
        for rows in found:
            under_way.append((rows, threads.submit(write, rows)))
            if len(under_way) > _WRITERS:
                done, digest = under_way.popleft()
                yield done, digest.result()
        for done, digest in under_way:
            yield done, digest.result()
