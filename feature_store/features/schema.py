"""Features as a model knows them: an ordered choice of columns on one clock, with a hash.

The functions stand in ``library``; ``engine`` computes the rows of a schema.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from feature_store.features.library import SPECS, FeatureSpec
from feature_store.market.clocks import BarClock, UnknownClock
from feature_store.market.types import REGULAR_SESSION_NS

FEATURES: tuple[FeatureSpec, ...] = SPECS
"""Every feature there is, in the order of declaration."""

EVENT_FEATURES: tuple[str, ...] = ("cusum_move", "donchian_break")
"""What rules of `feature_store.proposals` wait for; a strategy looks at one if it or its rule names it."""

MOMENTUM_FEATURES: tuple[str, ...] = tuple(
    spec.name for spec in SPECS if spec.nan_policy == "never" and spec.name not in EVENT_FEATURES
)
"""What a model looks at unless told otherwise: every feature that is finite on any source, and is no event's."""

_RECURSIVE_BARS: Final = 128  # a 14-bar Wilder average keeps 0.01 % of what is older; ADX, smoothed twice, up to 0.3 %
_MOST_HISTORY_SESSIONS: Final = 100  # of bars of the shorter clock, stepped at every start and for every stored session


class UnknownFeature(ValueError):
    """A feature name that no declaration has."""


@dataclass(frozen=True)
class FeatureSchema:
    """An ordered choice of features on one bar clock; what a model's columns mean.

    A column named ``trend_slope@5m`` is that feature on five-minute bars: of those, the newest closed one.
    """

    features: tuple[FeatureSpec, ...]
    bar_clock: str
    """Canonical text of the clock, ``time:60s`` for one-minute bars."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(spec.name for spec in self.features)

    @cached_property
    def clock(self) -> BarClock:
        """By what the bars are counted."""
        return BarClock.parse(self.bar_clock)

    @property
    def warm_up(self) -> int:
        """Bars that an instrument needs before its rows are warm, if nothing is on a longer clock or recursive."""
        return max(spec.warm_up for spec in self.features)

    @property
    def bar_ns(self) -> int:
        """Length of a bar, nanoseconds; 0 unless the clock is one of time."""
        return self.clock.size if self.clock.kind == "time" else 0

    @cached_property
    def history_sessions(self) -> int:
        """How many sessions before a session have to be stepped so that its first row can be warm."""
        return max(_history_sessions(spec, clock) for clock, specs in self.by_clock.items() for spec in specs)

    @cached_property
    def by_clock(self) -> dict[BarClock, tuple[FeatureSpec, ...]]:
        """The columns' features by their clock, under their plain names."""
        found: dict[BarClock, list[FeatureSpec]] = {}
        for spec in self.features:
            name, _, clock = spec.name.partition("@")
            found.setdefault(BarClock.parse(clock) if clock else self.clock, []).append(replace(spec, name=name))
        return {clock: tuple(specs) for clock, specs in found.items()}

    @cached_property
    def hash(self) -> str:
        """The ``feature_schema_hash``: see `schema_hash`."""
        return schema_hash(self.columns(), self.bar_clock)

    def columns(self) -> tuple[dict[str, Any], ...]:
        """Give one dictionary for each column, as a model's sidecar records it."""
        return tuple(
            {
                "name": spec.name,
                "parameters": dict(spec.parameters),
                "dtype": spec.dtype,
                "version": spec.version,
                "warm_up": spec.warm_up,
            }
            for spec in self.features
        )


def schema_hash(columns: Sequence[dict[str, Any]], bar_clock: str) -> str:
    """SHA-256 of the canonical JSON of the clock and the ordered columns (see `FeatureSchema.columns`)."""
    text = json.dumps({"bar_clock": bar_clock, "columns": list(columns)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def anchor_days(clock: BarClock) -> int:
    """Days between two anchors of recursive features: as few as hold 128 bars; ``IST day number // days`` changes."""
    if clock.kind == "ticks":
        return 1
    a_session = 1 if clock.kind == "session" else math.ceil(REGULAR_SESSION_NS / clock.size)
    return max(1, math.ceil(_RECURSIVE_BARS / a_session * 7 / 5))


def feature_schema(names: Sequence[str] | None, clock: BarClock | str | int) -> FeatureSchema:
    """Choose features by name, in the order given; None chooses all.

    Parameters
    ----------
    names : sequence of str, optional
        Plain names, or ``name@5m`` for a feature on a clock longer than ``clock``.
    clock : BarClock, str or int
        Of the rows: a clock, its text (``1m``), or minutes.

    Raises
    ------
    UnknownFeature
        If a name has no declaration, is named twice, names a clock that does not fit, or none is named.
    """
    base = BarClock.minutes(clock) if isinstance(clock, int) else BarClock.parse(str(clock))
    chosen = tuple(names) if names is not None else tuple(spec.name for spec in FEATURES)
    if not chosen or len(set(chosen)) < len(chosen):
        raise UnknownFeature(f"got {list(chosen)}: name at least one feature, each once")
    return FeatureSchema(tuple(_named(name, base) for name in chosen), str(base))


def _named(name: str, base: BarClock) -> FeatureSpec:
    plain, _, clock = name.partition("@")
    declared = {spec.name: spec for spec in FEATURES}
    if plain not in declared:
        near = difflib.get_close_matches(plain, declared, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(declared)}"
        raise UnknownFeature(f"no feature is named {plain!r}; {hint}")
    if clock:
        try:
            longer = BarClock.parse(clock)
        except UnknownClock as error:
            raise UnknownFeature(f"{name}: {error}") from error
        fits = base.kind == "time" and (
            longer.kind == "session"
            or (longer.kind == "time" and longer.size > base.size > 0 == longer.size % base.size)
        )
        if not fits:
            raise UnknownFeature(
                f"{name}: bars of {clock} cannot be made of bars of {base.short}; name a multiple of it"
            )
        sessions = _history_sessions(declared[plain], longer)
        if sessions > _MOST_HISTORY_SESSIONS:
            raise UnknownFeature(
                f"{name}: a recursive feature on that clock needs {sessions} sessions before it is warm, and here each "
                f"start steps all of them; take a clock of at most 60m, or make {longer.short} the strategy's own clock"
            )
        return replace(declared[plain], name=f"{plain}@{longer.short}")
    return declared[plain]


def _history_sessions(spec: FeatureSpec, clock: BarClock) -> int:
    if spec.memory == "recursive":
        return 2 * anchor_days(clock) + 1
    if clock.kind == "ticks":
        return 1
    a_session = 1 if clock.kind == "session" else math.ceil(REGULAR_SESSION_NS / clock.size)
    return math.ceil(spec.warm_up / a_session) + 1
