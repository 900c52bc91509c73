"""What the features of a session go on from: bars of the sessions before it, and those of its own that count. Pure.

Features go on from session to session, so a desk that starts empty would say WARMING for days. It steps these bars
first, and the engine the same ones: two runs from equal histories are equal. The digest goes on the log, so that a
restart that would stand on other bars is noticed.

A hole in the market is what a `MarketGap` says, and nothing else: a session whose first tick comes at 09:16 has none.
Bars that lie in a gap, whole or in part, do not count. Stored bars of the session that reach its end stand in for them;
without these no window may span the hole, and features begin anew, WARMING. After a gap in ticks an instrument's first
whole bar holds what was traded in the hole as well, because day volume goes on counting: by stored bars it is put
right, without them it is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Session, Universe
from live_services.domain.events import MarketGap, StrategyHistoryUsed
from live_services.domain.partitions import owned
from live_services.domain.snapshot import Tree
from live_services.domain.written import fields_of, in_few_tables, read_tables, written_tables


def no_bars() -> Bars:
    """Give a table of bars without rows."""
    whole, price = np.empty(0, dtype=np.int64), np.empty(0)
    small = np.empty(0, dtype=np.int32)
    return Bars(small, whole, whole, price, price, price, price, whole, small)


def bars_digest(bars: Bars, universe: Universe) -> str:
    """SHA-256 of bars by instrument token, so that it does not move with the universe's order."""
    sha = hashlib.sha256(np.ascontiguousarray(universe.tokens[bars.instrument]).tobytes())
    for name in ("start_ns", "end_ns", "open", "high", "low", "close", "volume", "spread_bps", "imbalance"):
        sha.update(np.ascontiguousarray(getattr(bars, name)).tobytes())
    return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class SessionHistory:
    """Bars on the desk's clock from before a session, in order of ``(end_ns, instrument)``, and corporate actions."""

    universe: Universe
    sessions: tuple[str, ...] = ()
    """ISO dates of the sessions before, in order."""
    before: Bars = None  # type: ignore[assignment]
    """Their bars."""
    today: Bars = None  # type: ignore[assignment]
    """Bars of the session itself that were stored when it was opened here; they stand in for those that a gap took."""
    actions: CorporateActions = None  # type: ignore[assignment]
    """Applied at the ex-date, in history as in live."""

    def __post_init__(self) -> None:
        for name in ("before", "today"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, no_bars())
        if self.actions is None:
            object.__setattr__(self, "actions", CorporateActions.none())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all before the session: dates, bars by token, corporate actions; a part has that of the whole."""
        text = "\n".join([*self.sessions, bars_digest(self.before, self.universe), self.actions.digest])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def today_digest(self) -> str:
        """SHA-256 of the session's own stored bars, empty without any; a part has that of the whole."""
        return bars_digest(self.today, self.universe) if len(self.today) else ""

    @cached_property
    def today_ends(self) -> frozenset[int]:
        """Ends of the session's own stored bars; a part has those of the whole."""
        return frozenset(np.unique(self.today.end_ns).tolist())

    def as_it_was(self, used: HistoryUsed) -> SessionHistory:
        """Give what a logged run stood on: of the session's own bars, if others are stored now, those that it took."""
        if self.today_digest == used.today_stored:
            return self
        return replace(self, today=self.today[self.today.end_ns <= used.today_until_ns])

    def part_of(self, partition: int, partitions: int) -> SessionHistory:
        """Give what a partition's desk steps: its own instruments and the market's index."""
        if partitions == 1:
            return self
        travels = owned(self.universe, partition, partitions)
        if self.universe.market_index is not None:
            travels[self.universe.market_index] = True
        return self.only(travels)

    def only(self, instruments: NDArray[np.bool_]) -> SessionHistory:
        """Give the bars of some instruments, shape ``(n_instruments,)``, with the digest and the ends of the whole."""
        before, today = (bars[instruments[bars.instrument]] for bars in (self.before, self.today))
        part = SessionHistory(self.universe, self.sessions, before, today, self.actions)
        part.__dict__.update(
            digest=self.digest, today_digest=self.today_digest, today_ends=self.today_ends
        )  # as if they had been asked already
        return part


@dataclass(frozen=True, eq=False)
class LaterHistory:
    """A history by what the log says of it; its bars are read when somebody asks for them.

    Who goes on from a snapshot seldom does: a feature schema that is new to the session steps them, and a gap looks for
    what stands in for it.
    """

    universe: Universe
    sessions: tuple[str, ...]
    digest: str
    today_digest: str
    actions: CorporateActions
    read: Callable[[], SessionHistory]

    @cached_property
    def whole(self) -> SessionHistory:
        """The history itself; raises what reading it does."""
        return self.read()

    @property
    def before(self) -> Bars:
        """As `SessionHistory` has it; read now if it was not yet."""
        return self.whole.before

    @property
    def today(self) -> Bars:
        """As `SessionHistory` has it; read now if it was not yet."""
        return self.whole.today

    @property
    def today_ends(self) -> frozenset[int]:
        """As `SessionHistory` has it; read now if it was not yet."""
        return self.whole.today_ends

    def part_of(self, partition: int, partitions: int) -> LaterHistory:
        """Give what a partition's desk steps, later too; nothing holds the bars of the other ones behind that."""
        read = self.read
        return replace(self, read=lambda: read().part_of(partition, partitions))


@dataclass(frozen=True, slots=True)
class HistoryUsed:
    """What a desk's features stand on, for the log."""

    sessions: tuple[str, ...]
    digest: str
    """Of the history before the session."""
    today_until_ns: int = 0
    """End of the last stored bar of the session itself that was stepped; 0 without any."""
    today_digest: str = ""
    """Of these bars."""
    broken: bool = False
    """Nothing told what lay in a gap of the market: features began anew behind it, WARMING."""
    today_stored: str = field(default="", compare=False)
    """Digest of the session's own bars that were stored when it was opened; those that a gap does not ask for are no
    part of what features stand on."""

    def snapshot(self) -> Tree:
        """Write it down."""
        return asdict(self)

    @classmethod
    def restored(cls, kept: Tree) -> HistoryUsed:
        """Give what was written down."""
        there = fields_of(kept)
        return cls(**{**there, "sessions": tuple(there["sessions"])})


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A part of a session over which features go on."""

    after_ns: int
    """Rows of bars that end later stand on it."""
    bars: list[Bars]
    """In order of time; the first stretch begins with the history before the session."""


def used_of(event: StrategyHistoryUsed) -> HistoryUsed:
    """Give what a record of the log says that features stand on."""
    return HistoryUsed(**{f.name: getattr(event, f.name) for f in fields(HistoryUsed)})


class SessionBars:
    """The bars that a partition's features stand on, in order: history, what counts of the market, and stand-ins.

    Parameters
    ----------
    history : SessionHistory
        Of the partition's instruments.
    session : Session
    bar_ns : int
        Length of a bar, nanoseconds.
    of_bars : bool
        Whether the market comes as bars: a gap then takes those that end in it, and else all that have a part in it.
    carried : iterable of Bars
        Of the sessions that a desk went on from, in order of time.
    """

    def __init__(
        self,
        history: SessionHistory | LaterHistory,
        session: Session,
        bar_ns: int,
        *,
        of_bars: bool = False,
        carried: Iterable[Bars] = (),
    ) -> None:
        self.used = HistoryUsed(history.sessions, history.digest, today_stored=history.today_digest)
        self._history: Final = history
        self._on_history = True
        self._own: list[Bars] = [*carried]
        """Tables in order of time, behind the history."""
        self._session: Final = session
        self._bar_ns: Final = bar_ns
        self._of_bars: Final = of_bars
        self._hole = (0, 0)
        self._stand_ins: list[Bars] = []
        # of ticks, by instrument, until its first whole bar behind a gap
        self._excess: NDArray[np.int64] = np.zeros(len(history.universe), dtype=np.int64)
        self._unknown: NDArray[np.bool_] = np.zeros(len(history.universe), dtype=np.bool_)

    @property
    def parts(self) -> list[Bars]:
        """All that features stand on now, tables in order of time: only what came behind it where they began anew."""
        before = [self._history.before] if self._on_history else []
        return [bars for bars in (*before, *self._own) if len(bars)]

    def take(self, bars: Bars) -> Bars:
        """Take bars that were built from the market, or came from it; give those that count.

        Parameters
        ----------
        bars : Bars
            In order of ``(end_ns, instrument)``, later than those taken before.
        """
        if not len(bars):
            return bars
        begin_ns, until_ns = self._hole
        inside = (bars.end_ns > begin_ns) & (bars.end_ns <= until_ns)
        if inside.any():
            if not self._of_bars:
                np.subtract.at(self._excess, bars.instrument[inside], bars.volume[inside])
            bars = bars[~inside]
        if self._unknown.any() or self._excess.any():
            bars = self._without_what_a_gap_added(bars)
        if len(bars):
            self._own.append(bars)
        return bars

    def gap(self, gap: MarketGap) -> Bars | None:
        """Take a gap, when every bar that was over before it was taken.

        Returns
        -------
        Bars or None
            What features step in place of the bars that are gone, empty if none are; None: they begin anew.
        """
        hole = self._hole_of(gap)
        if hole is None:
            return no_bars()
        self._hole = hole
        begin_ns, until_ns = max(hole[0], self.used.today_until_ns), hole[1]
        if begin_ns >= until_ns:
            return no_bars()  # a second gap in a bar that was replaced
        if until_ns not in self._history.today_ends or self._unknown.any():
            self._on_history, self._own = False, []
            self._excess[:], self._unknown[:] = 0, not self._of_bars
            self.used = replace(self.used, broken=True)
            return None
        today = self._history.today
        found = today[(today.end_ns > begin_ns) & (today.end_ns <= until_ns)]
        if not self._of_bars:
            np.add.at(self._excess, found.instrument, found.volume)
        self._own.append(found)
        self._stand_ins.append(found)
        digest = bars_digest(Bars.concatenate(self._stand_ins), self._history.universe)
        self.used = replace(self.used, today_until_ns=until_ns, today_digest=digest)
        return found

    def take_session(self, market: Bars, gaps: Iterable[MarketGap]) -> list[Stretch]:
        """Take a whole session in one step, as who computes it again has it.

        Parameters
        ----------
        market : Bars
            All that was built from the market, or came from it, in order of ``(end_ns, instrument)``.
        gaps : iterable of MarketGap
            In order of time.

        Returns
        -------
        list of Stretch
            One, and one more for each time that features begin anew.
        """
        stretches, after_ns = [], 0
        for gap in gaps:
            over = market.end_ns < gap.event_time_ns + (not self._of_bars)  # of ticks: it may end as the gap begins
            self.take(market[over])
            market, before = market[~over], self.parts
            if self.gap(gap) is None:
                stretches.append(Stretch(after_ns, before))
                after_ns = gap.event_time_ns
        self.take(market)
        return [*stretches, Stretch(after_ns, self.parts)]

    def _hole_of(self, gap: MarketGap) -> tuple[int, int] | None:
        """Give the times between which bars end that do not count, the first one excluded; None if there are none."""
        open_ns, bar_ns = self._session.open_ns, self._bar_ns
        begin = max(gap.event_time_ns, open_ns) - open_ns
        until = min(gap.until_ns, self._session.close_ns) - open_ns
        first, last = begin // bar_ns, -(-until // bar_ns)
        if self._of_bars:
            first, last = max(-(-begin // bar_ns) - 1, 0), last - 1
        if until <= begin or last <= first:
            return None
        return open_ns + first * bar_ns, min(open_ns + last * bar_ns, self._session.close_ns)

    def _without_what_a_gap_added(self, bars: Bars) -> Bars:
        """Put the volume of each instrument's first bar behind a gap right, or leave that bar out."""
        instruments, first = np.unique(bars.instrument, return_index=True)
        volume, counts = bars.volume.copy(), np.ones(len(bars), dtype=np.bool_)
        volume[first] = np.maximum(volume[first] - self._excess[instruments], 0)
        counts[first] = ~self._unknown[instruments]
        self._excess[instruments], self._unknown[instruments] = 0, False
        return replace(bars, volume=volume)[counts]

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Tree:
        """Write down what came since the session's open; the history before it is the opening's."""
        self._own = in_few_tables(self._own)
        return {
            "used": self.used.snapshot(),
            "on_history": self._on_history,
            "own": written_tables(self._own),
            "stand_ins": written_tables(self._stand_ins),
            "hole": list(self._hole),
            "excess": self._excess.copy(),
            "unknown": self._unknown.copy(),
        }

    def restore(self, kept: Tree) -> None:
        """Go on where a snapshot was taken, on the same history."""
        there = fields_of(kept)
        self.used, self._on_history = HistoryUsed.restored(there["used"]), there["on_history"]
        self._own = read_tables(there["own"])
        self._stand_ins, self._hole = read_tables(there["stand_ins"]), (there["hole"][0], there["hole"][1])
        self._excess[:], self._unknown[:] = there["excess"], there["unknown"]
