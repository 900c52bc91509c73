"""Instruments, sessions, ticks and bars: the words every other module speaks.

Times are UTC epoch nanoseconds (``int64``); prices are rupees (``float64``).

    MarketDataError
    ├── UnreadableFile        the file cannot be opened or is not what its name says
    ├── MissingColumn         a required column is absent
    ├── InvalidRows           rows of a small table that must be right as a whole
    ├── CollidingInstruments  two instruments have one symbol or one token
    └── UnknownInstrument     a symbol or token is not in the universe
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

IST = ZoneInfo("Asia/Kolkata")
SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
IST_OFFSET_NS = 19_800 * SECOND_NS
"""IST before UTC; India has had no daylight saving time since 1945."""
REGULAR_OPEN, REGULAR_CLOSE = dt.time(9, 15), dt.time(15, 30)
"""Hours of a regular NSE session, IST."""
REGULAR_OPEN_NS, REGULAR_CLOSE_NS = 33_300 * SECOND_NS, 55_800 * SECOND_NS
"""The same, after midnight IST."""
REGULAR_SESSION_NS = REGULAR_CLOSE_NS - REGULAR_OPEN_NS
MARKET_INDEX_SYMBOLS = ("NIFTY 50", "NIFTY50", "NIFTY", "SYN INDEX")
"""What the index that stands for the whole market is called, by preference."""


def is_generated(market: str) -> bool:
    """Whether a market's name is that of a generated one."""
    return market.startswith(SYNTHETIC)


def index_spelling(symbol: str) -> str:
    """Give one spelling of an index's name: capitals, without its exchange and what parts its words.

    >>> index_spelling("NSE_INDEX|Nifty 50"), index_spelling("NIFTY_50"), index_spelling("BSE:SENSEX")
    ('NIFTY50', 'NIFTY50', 'SENSEX')
    """
    return re.sub(r"^(?:NSE_INDEX\||BSE_INDEX\||NSE:|BSE:)|[\s_-]+", "", symbol.strip().upper())


_MARKET_INDICES = tuple(dict.fromkeys(index_spelling(symbol) for symbol in MARKET_INDEX_SYMBOLS))

_EPOCH = dt.date(1970, 1, 1)
_Times = TypeVar("_Times", int, NDArray[np.int64])

SYNTHETIC = "SYNTHETIC"
"""How the name of a generated market begins, wherever it shows."""
GENERATED_MARKET = f"{SYNTHETIC} MARKET: generated data, not an exchange's"
"""What every page of one says."""
TICK_BARS = "ticks"
"""``bar_source`` of bars that our own builder made from ticks."""
VENDOR_BARS = "vendor"
"""``bar_source`` of bars that came as bars, made by somebody else's rules."""


class MarketDataError(Exception):
    """Market data that cannot be used; the message names file, row or key and what to do."""


class UnreadableFile(MarketDataError):
    """A file that cannot be opened or parsed."""


class MissingColumn(MarketDataError):
    """A table without a column that it must have."""


class InvalidRows(MarketDataError):
    """Rows of a small table that must be right as a whole, such as corporate actions, are wrong."""

    _SHOWN = 5

    def __init__(self, where: str, problems: Sequence[tuple[int, str]]) -> None:
        shown = "; ".join(f"row {row}: {problem}" for row, problem in problems[: self._SHOWN])
        more = f"; and {len(problems) - self._SHOWN} more rows" if len(problems) > self._SHOWN else ""
        super().__init__(f"{where}: {shown}{more}")
        self.problems = tuple(problems)
        """Row (1 is the first row of data) and what is wrong with it."""


class CollidingInstruments(MarketDataError):
    """Two instruments with one symbol or one token: rows could not be told apart."""


class UnknownInstrument(MarketDataError):
    """A symbol or token outside the universe."""


class Instrument(BaseModel):
    """One tradable instrument or index of the exchange."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instrument_token: int = Field(ge=-(2**63), lt=2**63)
    symbol: str
    tick_size_inr: float = 0.05
    tradable: bool = True
    lot_size: int = Field(default=1, ge=1, exclude_if=lambda shares: shares == 1)
    """Shares that are traded together: 1 in the cash market, and then left out of what is written and digested."""


class Universe(BaseModel):
    """The instruments of a run, in a fixed order; arrays name an instrument by its index here.

    Raises
    ------
    CollidingInstruments
        If two of them have one symbol or one token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruments: tuple[Instrument, ...]

    @model_validator(mode="after")
    def _each_has_a_symbol_and_a_token_of_its_own(self) -> Self:
        of_symbol: dict[str, Instrument] = {}
        of_token: dict[int, Instrument] = {}
        for one in self.instruments:
            if (twin := of_symbol.setdefault(one.symbol, one)) is not one:
                raise CollidingInstruments(
                    f"{one.symbol!r} is there twice, with the instrument tokens {twin.instrument_token} and "
                    f"{one.instrument_token}: keep one of them; a store goes on with the token that it began with, so "
                    "for another one use another directory"
                )
            if (twin := of_token.setdefault(one.instrument_token, one)) is not one:
                raise CollidingInstruments(
                    f"{twin.symbol!r} and {one.symbol!r} have one instrument token, {one.instrument_token}, so their "
                    "rows could not be told apart (without a table of instruments a token is the CRC-32 of the "
                    "symbol): give both the exchange's tokens in the table that market.universe names (columns "
                    "symbol, kind, instrument_token), or leave one out"
                )
        return self

    @classmethod
    def from_symbols(cls, symbols: Sequence[str], untradable: frozenset[str] = frozenset()) -> Self:
        """Build a universe from symbols alone; tokens are CRC-32 of the symbol, so they do not move with the list."""
        return cls.ordered(
            Instrument(instrument_token=zlib.crc32(s.encode()), symbol=s, tradable=s not in untradable)
            for s in set(symbols)
        )

    @classmethod
    def ordered(cls, instruments: Iterable[Instrument]) -> Self:
        """Put instruments in the house's order: indices first, so that a bar of the market's index precedes the bars
        of the same instant that it is context for, even where nobody said that it is not tradable; then by symbol.
        """

        def place(one: Instrument) -> tuple[bool, str]:
            return one.tradable and index_spelling(one.symbol) not in _MARKET_INDICES, one.symbol

        return cls(instruments=tuple(sorted(instruments, key=place)))

    def __len__(self) -> int:
        return len(self.instruments)

    def __eq__(self, other: object) -> bool:  # pydantic would compare the cached arrays too
        return isinstance(other, Universe) and self.instruments == other.instruments

    def __hash__(self) -> int:
        return hash(self.instruments)

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """Instrument tokens by index, shape ``(n_instruments,)``."""
        return np.array([i.instrument_token for i in self.instruments], dtype=np.int64)

    @cached_property
    def index_of_symbol(self) -> dict[str, int]:
        """Index of each symbol."""
        return {instrument.symbol: index for index, instrument in enumerate(self.instruments)}

    @cached_property
    def index_of_token(self) -> dict[int, int]:
        """Index of each instrument token."""
        return {instrument.instrument_token: index for index, instrument in enumerate(self.instruments)}

    @cached_property
    def _by_token(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        order = np.argsort(self.tokens, kind="stable")
        return self.tokens[order], order.astype(np.int32)

    def indices_of(self, tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        """Index of each instrument token, shape as given; -1 for a token that is not here."""
        known, index = self._by_token
        if not len(known):
            return np.full(tokens.shape, -1, dtype=np.int32)
        place = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
        found: NDArray[np.int32] = np.where(known[place] == tokens, index[place], np.int32(-1))
        return found

    @cached_property
    def token_slots(self) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        """Where compiled code looks a token up: tokens and indices by slot, and the shift that gives a token's slot.

        A token's slot is the highest bits of its product with 2**64 divided by the golden ratio (Knuth, The Art of
        Computer Programming 3, 6.4), or the next free one; an index of -1 is a free slot, and one in two is.
        """
        bits = max(3, (2 * len(self.instruments) - 1).bit_length())
        tokens, index = np.zeros(1 << bits, dtype=np.int64), np.full(1 << bits, -1, dtype=np.int32)
        for place, token in enumerate(self.tokens.tolist()):
            slot = (token * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 64 - bits
            while index[slot] >= 0:
                slot = (slot + 1) & (1 << bits) - 1
            tokens[slot], index[slot] = token, place
        tokens.flags.writeable = index.flags.writeable = False
        return tokens, index, 64 - bits

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the universe is: its instruments with all their fields, and which is the market's index.

        Instruments count in order of token: frames name tokens, so the order of the indices here says nothing.
        """
        of_market = None if self.market_index is None else self.instruments[self.market_index].instrument_token
        said = {
            "instruments": [i.model_dump() for i in sorted(self.instruments, key=lambda i: i.instrument_token)],
            "market_index": of_market,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def _mixed_tokens(self) -> NDArray[np.uint64]:
        return _splitmix64(self.tokens.astype(np.uint64))

    @cached_property
    def _partitions(self) -> dict[int, NDArray[np.int32]]:
        """Market partition of every instrument, by how many partitions there are."""
        return {}

    @cached_property
    def market_index(self) -> int | None:
        """Index here of the market's own index (`MARKET_INDEX_SYMBOLS`), the context of relative features."""
        spelt = {index_spelling(symbol): place for symbol, place in reversed(self.index_of_symbol.items())}
        return next((spelt[name] for name in _MARKET_INDICES if name in spelt), None)

    def partition_of(self, index: NDArray[np.int32], partitions: int) -> NDArray[np.int32]:
        """Market partition of each instrument index: a hash of its token alone, so it outlives changes of the universe.

        The hash is splitmix64 in 64-bit unsigned arithmetic, equal on every machine. The token itself would not do:
        its lowest byte is Kite's segment, 1 for every NSE share, so a remainder by 2, 4 or 8 is 1 for all of them.
        """
        whole = self._partitions.get(partitions)
        if whole is None:
            whole = self._partitions[partitions] = (self._mixed_tokens % np.uint64(partitions)).astype(np.int32)
        return whole[index]


def _splitmix64(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output of splitmix64 for each state, shape as given; products wrap at 2**64.

    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014, with the constants of
    Sebastiano Vigna's splitmix64.c (https://prng.di.unimi.it/splitmix64.c).
    """
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session of the exchange; ``open_ns`` is its first instant, ``close_ns`` the first one after it."""

    date: dt.date
    open_ns: int
    close_ns: int

    @classmethod
    def regular(cls, date: dt.date) -> Session:
        """Give the regular NSE session of a date: 09:15 to 15:30 IST."""
        return cls(date, ist_ns(date, REGULAR_OPEN), ist_ns(date, REGULAR_CLOSE))


def ist_ns(date: dt.date, time: dt.time) -> int:
    """UTC epoch nanoseconds of a wall-clock time in Asia/Kolkata."""
    return int(dt.datetime.combine(date, time, IST).timestamp()) * SECOND_NS


def ist_day(time_ns: _Times) -> _Times:
    """Days since 1970-01-01 on the wall clock of Asia/Kolkata; compiled code has `arrays.compiled_ist_day`."""
    return (time_ns + IST_OFFSET_NS) // DAY_NS


def ist_time_of_day(time_ns: _Times) -> _Times:
    """Nanoseconds since midnight on the wall clock of Asia/Kolkata."""
    return (time_ns + IST_OFFSET_NS) % DAY_NS


def date_of_day(day: int) -> dt.date:
    """Give the date of a day that `ist_day` counts."""
    return _EPOCH + dt.timedelta(days=day)


def day_of_date(date: dt.date) -> int:
    """Give the number that `ist_day` counts for a date."""
    return (date - _EPOCH).days


def ist_text(time_ns: int) -> str:
    """Format epoch nanoseconds as ``YYYY-MM-DD HH:MM:SS IST`` for people."""
    return f"{dt.datetime.fromtimestamp(time_ns // SECOND_NS, IST):%Y-%m-%d %H:%M:%S} IST"


class _Columns:
    """Equal-length arrays that are sliced together; an optional column is None or as long as the others."""

    instrument: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.instrument)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        part = object.__new__(type(self))  # a part of a table is one: there is nothing to fill in
        vars(part).update({name: None if column is None else column[rows] for name, column in vars(self).items()})
        return part

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join tables of the same kind, in the order given; at least one part.

        Raises
        ------
        ValueError
            If an optional column is there in some parts only; see `Ticks.with_depth`.
        """
        return cls(*(_joined(f.name, [getattr(p, f.name) for p in parts]) for f in fields(cls)))  # type: ignore[arg-type]

    def digest(self) -> str:
        """SHA-256 over the columns' bytes, in declaration order."""
        sha = hashlib.sha256()
        for f in fields(self):  # type: ignore[arg-type]
            if getattr(self, f.name) is not None:
                sha.update(np.ascontiguousarray(getattr(self, f.name)).tobytes())
        return sha.hexdigest()


def _joined(name: str, columns: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    there = [column for column in columns if column is not None]
    if there and len(there) < len(columns):
        raise ValueError(f"{name} is there in {len(there)} of {len(columns)} parts; give it to all of them or to none")
    return np.concatenate(there) if there else None


@dataclass(frozen=True, eq=False)
class Ticks(_Columns):
    """Ticks in order of ``event_time_ns``; ties keep their order of arrival. All arrays have shape ``(n,)``.

    The four columns of the best quote are there together or not at all (None): many sources have no depth.
    """

    instrument: NDArray[np.int32]
    """Index in the universe."""
    event_time_ns: NDArray[np.int64]
    """Exchange time."""
    last_price: NDArray[np.float64]
    """Last traded price, rupees; finite and positive."""
    day_volume: NDArray[np.int64]
    """Shares traded since the session's open."""
    bid_price: NDArray[np.float64] | None = None
    """Best bid, rupees; NaN when that side is empty."""
    ask_price: NDArray[np.float64] | None = None
    """Best ask, rupees; NaN when that side is empty."""
    bid_quantity: NDArray[np.int64] | None = None
    """Shares at the best bid."""
    ask_quantity: NDArray[np.int64] | None = None
    """Shares at the best ask."""

    @property
    def has_depth(self) -> bool:
        """Whether the best quote is there."""
        return self.bid_price is not None

    def with_depth(self) -> Ticks:
        """Give the same ticks with the columns of the best quote: empty sides where the source had no depth."""
        if self.has_depth:
            return self
        nothing, none = np.full(len(self), np.nan), np.zeros(len(self), dtype=np.int64)
        return replace(self, bid_price=nothing, ask_price=nothing, bid_quantity=none, ask_quantity=none)


@dataclass(frozen=True, eq=False)
class Bars(_Columns):
    """Closed bars over ``[start_ns, end_ns)``, in order of ``(end_ns, instrument)``. All arrays have shape ``(n,)``."""

    instrument: NDArray[np.int32]
    """Index in the universe."""
    start_ns: NDArray[np.int64]
    """The first instant of the bar (bars are START-stamped wherever one stamp is shown)."""
    end_ns: NDArray[np.int64]
    """The first instant after the bar; nothing in the bar was known before it."""
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.int64]
    """Shares traded inside the bar."""
    tick_count: NDArray[np.int32]
    """Ticks that made the bar; 0 when the source had bars only."""
    spread_bps: NDArray[np.float64] = None  # type: ignore[assignment]
    """Ask minus bid over their mean, basis points, at the bar's last tick with both sides; NaN without depth."""
    imbalance: NDArray[np.float64] = None  # type: ignore[assignment]
    """(bid - ask) / (bid + ask) of the quantities at the same tick, -1 to 1; NaN without depth."""

    def __post_init__(self) -> None:
        for name in ("spread_bps", "imbalance"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(len(self), np.nan))
