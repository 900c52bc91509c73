"""The audit of a strategy: every guard on the chain that trades, over sessions that its version had not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.features.audit import audit
from feature_store.features.library import DECLARED
from feature_store.labels.barrier_return import VOLATILITY, BarrierReturn
from feature_store.market.types import MINUTE_NS, Bars
from live_services.audit.chains import StrategyChain
from live_services.audit.decisions import fills_follow_decisions, reads_no_table
from live_services.audit.findings import AuditReport, Finding, LeakKind, first_of_each, joined
from live_services.audit.labels import LabelTable, label_ends_when_it_says
from live_services.audit.look_ahead import LATER_START, look_ahead
from live_services.audit.sessions import AuditedSession
from live_services.audit.stages import ROW, compared
from live_services.audit.versions import version_is_older
from live_services.domain.events import Event, SignalGenerated
from live_services.domain.limits import AccountConfig
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec

FEWEST_DECISIONS: Final = 10
"""Of all sessions together; with fewer a leak in the decisions can hide, and nothing is passed."""
STREAM: Final = "stream against batch"

_TRADED_CUTS: Final = 8  # of each session; a run of desk and account costs what a session's backtest does
_AUDITED_INSTRUMENTS: Final = 3  # for the guards of features, some of which step bar by bar
_KIND_OF_GUARD: Final = {
    "prefix": LeakKind.FEATURE_LOOKS_AHEAD,
    "future perturbation": LeakKind.FEATURE_LOOKS_AHEAD,
    "origin": LeakKind.DEPENDS_ON_START,
}
"""By how the name of a guard of features begins; every other one computes the same in another way."""
_NO_LEAKS: Final = {"mirror", "NaN policy"}
"""Guards of what a feature declares, which are no leaks; `feature_store.features.audit` fails a feature for them."""


@dataclass(frozen=True)
class Effort:
    """How much is tried in each session."""

    cuts: int = 48
    """Decisions at which the data is cut."""
    perturbations: int = 12
    """Decisions after which all is another."""
    traded_cuts: int = _TRADED_CUTS
    """Of both, those at which signals, orders and fills are compared too."""


def audit_strategy(
    spec: StrategySpec,
    sessions: Sequence[AuditedSession],
    account: AccountConfig,
    *,
    sidecar: Sidecar | None = None,
    traded_from_ns: int | None = None,
    known_sessions: Sequence[str] = (),
    effort: Effort | None = None,
    seed: int = 7,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Run every guard on a strategy.

    Parameters
    ----------
    spec : StrategySpec
    sessions : sequence of AuditedSession
        In order, each with the model that it is run with; each is traded on a new account.
    account : AccountConfig
        The limits of that account.
    sidecar : Sidecar, optional
        Of the version; without it nothing is said of its training, and a note says so.
    traded_from_ns : int, optional
        From when on the version trades, which its training must lie before; default: the open of the first session.
    known_sessions : sequence of str
        ISO dates of the sessions that are stored, to count an embargo by.
    effort : Effort, optional
        How much is tried.
    seed : int
        Of what is drawn by lot.
    progress : callable, optional
        Told each step.

    Returns
    -------
    AuditReport
        It passes if nothing leaks and there was enough to look at.
    """
    tell, tried = progress or (lambda _step: None), effort or Effort()
    reports = [*_of_what_it_reads(spec)]
    for number, over in enumerate(sessions):
        chain = StrategyChain(spec, over, account)
        rng = np.random.default_rng([seed, number])
        reports.append(_of_session(chain, tried, rng, _prefixed(tell, over.session.date.isoformat())))
    if sessions:
        tell("features")
        reports.append(_of_features(sessions[-1], seed))
    if sidecar is None:
        reports.append(AuditReport("", {}, notes=("no sidecar: nothing is said of when its training ended",)))
    elif sessions or traded_from_ns is not None:
        from_ns = traded_from_ns if traded_from_ns is not None else sessions[0].session.open_ns
        reports.append(version_is_older(sidecar, from_ns, sessions=known_sessions))
    whole = joined(spec.name, reports)
    return replace(whole, too_few=(*whole.too_few, *_too_few(whole.counts)))


def _too_few(counts: Mapping[str, int]) -> Iterator[str]:
    sessions, decisions = counts.get("sessions", 0), counts.get("decisions", 0)
    if not sessions:
        yield "no session was given: store some after the version's training"
    elif decisions < FEWEST_DECISIONS:
        yield (
            f"{decisions} decisions in {sessions} sessions, and {FEWEST_DECISIONS} are needed to say anything: give "
            "more sessions, or a version that decides more often"
        )
    elif not counts.get("fills"):
        yield "no order was filled, so nothing is known of orders: look at what risk refuses, or give more sessions"


def _prefixed(tell: Callable[[str], None], date: str) -> Callable[[str], None]:
    return lambda step: tell(f"{date}: {step}")


def _of_session(
    chain: StrategyChain, effort: Effort, rng: np.random.Generator, tell: Callable[[str], None]
) -> AuditReport:
    bars, universe = chain.over.bars, chain.over.universe
    decided = chain.decisions()
    cuts = _drawn(decided, bars, effort.cuts, rng)
    chain.trades = False
    few = look_ahead(
        chain,
        bars,
        universe,
        cuts=cuts,
        perturbations=effort.perturbations,
        seed=int(rng.integers(2**31)),
        progress=tell,
    )
    chain.trades = True
    traded = look_ahead(
        chain, bars, universe, cuts=_drawn(decided, bars, effort.traded_cuts, rng),
        perturbations=effort.traded_cuts, seed=int(rng.integers(2**31)), progress=lambda step: tell(f"orders, {step}"),
    )  # fmt: skip
    tell(STREAM)
    events = chain.events(bars)
    streamed = _streamed(chain, events)
    tell(LATER_START)
    later = _later_start(chain)
    tell("label")
    label = _label(chain)
    report = joined("", [few, traded, streamed, later, label, fills_follow_decisions(events)])
    signals = [one for one in events if isinstance(one, SignalGenerated)]
    counts = {"sessions": 1, "bars": len(bars), "decisions": len(signals)}
    return replace(report, counts={**report.counts, **counts})


def _drawn(decided: NDArray[np.int64], bars: Bars, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw times at which data is cut: decisions, and where they are too few, ends of other bars."""
    chosen = rng.permutation(decided)[:count]
    others = np.setdiff1d(np.unique(bars.end_ns), chosen)
    return np.sort(np.concatenate([chosen, rng.permutation(others)[: count - len(chosen)]]))


# --- features and rule ------------------------------------------------------------------------------------------------


def _of_what_it_reads(spec: StrategySpec) -> Iterator[AuditReport]:
    names = {name.partition("@")[0] for name in spec.feature_schema().names}
    for feature, function in DECLARED:
        if feature.name in names:
            yield reads_no_table(feature.name, function, "features")
    proposer = spec.proposer()
    if proposer is not None:
        yield reads_no_table(proposer.rule.name, proposer.rule.function, "proposals")


def _of_features(over: AuditedSession, seed: int) -> AuditReport:
    """Run every guard of features on a few instruments: batches, snapshots, origins and orders, which no cut shows."""
    bars = Bars.concatenate([over.history.before, over.bars])
    index = over.universe.market_index
    few = np.isin(bars.instrument, np.unique(over.bars.instrument)[:_AUDITED_INSTRUMENTS])
    if index is not None:
        few |= bars.instrument == index
    seen = audit(over.model.schema, bars[few], over.universe, actions=over.history.actions, seed=seed, cuts=2)
    findings = []
    for one in seen.differences:
        if one.guard in _NO_LEAKS:
            continue
        kind = next((kind for guard, kind in _KIND_OF_GUARD.items() if one.guard.startswith(guard)), None)
        findings.append(
            Finding(
                kind or LeakKind.BATCH_DIFFERS, one.guard, "features", one.feature, str(one), one.symbol, one.time_ns,
                one.expected, one.found,
            )
        )  # fmt: skip
    return AuditReport("", {"features": sum(seen.compared.values())}, first_of_each(findings))


# --- stream and batch -------------------------------------------------------------------------------------------------


def _streamed(chain: StrategyChain, events: Sequence[Event]) -> AuditReport:
    """Hold the desk's own rows and scores against one batch, and its events of minutes against those of a session."""
    bars, findings, values = chain.over.bars, list[Finding](), 0
    signals = [one for one in events if isinstance(one, SignalGenerated)]
    rows, _ = chain.rows(bars)
    index, names = chain.over.universe.index_of_token, chain.model.schema.names
    place = {key: k for k, key in enumerate(zip(bars.instrument.tolist(), bars.end_ns.tolist(), strict=True))}
    at = [place[index[one.instrument_token], one.event_time_ns] for one in signals]
    scores = chain.said(np.ascontiguousarray(rows[at]))[0] if at else np.empty(0)
    for signal, row, score in zip(signals, at, scores.tolist(), strict=True):
        live = np.array([np.nan if v is None else v for v in signal.features.values()] + [signal.score])
        batch = np.append(rows[row], score)
        values += len(live)
        for k in np.flatnonzero((live.view(np.int64) != batch.view(np.int64)) & ~(np.isnan(live) & np.isnan(batch))):
            column = (*names, "score")[k]
            what = f"the desk decided by {float(live[k])!r}, one batch gives {float(batch[k])!r}"
            findings.append(
                Finding(
                    LeakKind.BATCH_DIFFERS, STREAM, "signals", column, what, signal.symbol, signal.event_time_ns,
                    float(batch[k]), float(live[k]),
                )
            )  # fmt: skip
    minutes = chain.events(bars, frame_ns=MINUTE_NS)
    values += len(events)
    different = next((k for k, pair in enumerate(zip(events, minutes, strict=False)) if pair[0] != pair[1]), None)
    if different is not None or len(events) != len(minutes):
        first = (events if len(events) > (different or 0) else minutes)[different or min(len(events), len(minutes)) - 1]
        what = (
            f"a session in one batch has {len(events)} events, by the minute {len(minutes)}; {first.event_type} differs"
        )
        kind, when = LeakKind.BATCH_DIFFERS, first.event_time_ns
        findings.append(Finding(kind, STREAM, "orders", first.event_type, what, time_ns=when))
    return AuditReport("", {STREAM: values}, first_of_each(findings))


# --- warm-up ----------------------------------------------------------------------------------------------------------


def _later_start(chain: StrategyChain) -> AuditReport:
    """Let features go on from a shorter history: rows that are warm then must be the same."""
    over, history = chain.over, chain.over.history
    starts = np.unique(history.before.start_ns)
    if not len(starts):
        return AuditReport("", {LATER_START: 0}, notes=("there is no session before: warm-up is not looked at",))
    third = starts[len(starts) // 3]
    shorter = replace(history, before=history.before[history.before.start_ns >= third])
    again = StrategyChain(chain.spec, replace(over, history=shorter), AccountConfig())
    chain.trades = again.trades = False
    findings, values = list[Finding](), 0
    for whole, part in zip(chain(over.bars), again(over.bars), strict=True):
        n, found = compared(whole, part, over.session.close_ns, fewer=True)
        values += n
        for one in found:
            column = ROW if one.column < 0 else whole.columns[one.column]
            symbol, when = over.universe.instruments[int(one.instrument[0])].symbol, int(one.known_ns[0])
            with_all, without = float(one.with_future[0]), float(one.without_future[0])
            what = (
                f"{with_all!r} on all of history, {without!r} on the last two thirds of it, though it is warm on both"
            )
            kind = LeakKind.DEPENDS_ON_START
            findings.append(Finding(kind, LATER_START, whole.name, column, what, symbol, when, with_all, without))
        if found:
            break
    chain.trades = True
    return AuditReport("", {LATER_START: values}, tuple(findings))


# --- label ------------------------------------------------------------------------------------------------------------


def _label(chain: StrategyChain) -> AuditReport:
    """Hold the label of the strategy against its stated end, on the sides and volatilities of its own decisions."""
    over, spec, label = chain.over, chain.spec, chain.spec.label()
    n, sessions, proposer = len(over.universe), (over.session,), spec.proposer()

    def held(bars: Bars) -> LabelTable:
        found = spec.holding_label().of(bars, n, sessions)
        return LabelTable(found.forward_return, found.entry_ns, found.label_end_ns)

    if proposer is None or not isinstance(label, BarrierReturn):
        return replace(label_ends_when_it_says(held, over.bars, over.universe, cuts=8), too_few=())
    rows, warm = chain.rows(over.bars)
    side = np.where(warm, proposer.sides(rows, chain.model.schema), 0).astype(np.int8)
    volatility = rows[:, chain.model.schema.names.index(VOLATILITY)]

    def of(bars: Bars) -> LabelTable:
        found = label.of(bars, n, sessions, side, volatility)
        return LabelTable(found.forward_return, found.entry_ns, found.label_end_ns)

    return replace(label_ends_when_it_says(of, over.bars, over.universe, cuts=8), too_few=())
