"""What the gates need from the right: the account's trades, and the champion's recipe on the candidate's sessions.

Plain functions: the assets load, call these and hand the evidence to `models_registry.gates`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError
from live_services.domain.money import rupees
from live_services.settings import Settings
from models_registry.gates.evidence import NO_CHAMPION, ChampionComparison, Evidence, FoldTrades, TradeEvidence
from models_registry.ledger_entries import standing
from models_registry.refusals import ModelRefusedError
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from feature_store.market.corporate_actions import CorporateActions
    from feature_store.market.membership import Membership
    from feature_store.market.types import Session
    from feature_store.offline.store import OfflineStore
    from feature_store.offline.training_frames import TrainingFrame
    from live_services.backtest.sessions import SessionTrades, TestedSession
    from live_services.domain.account.trades import Trade
    from models_registry.ledger import PromotionLedger
    from models_registry.packing import Parity
    from models_registry.registry import Registry
    from models_registry.training import OutOfFold, TrainedModel

Told = Callable[[str], object]
"""Where progress goes, for example a run's log."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What a candidate was trained on, and what the champion's rows of the same sessions are computed from."""

    store: OfflineStore
    frame: TrainingFrame
    """The candidate's."""
    membership: Membership | None
    actions: CorporateActions


@dataclass(frozen=True)
class Champion:
    """The version that holds the alias now."""

    version: str
    sidecar: Sidecar
    files: Mapping[str, bytes]
    """Its artifact files, as `Registry.fetch` gives them."""


@dataclass(frozen=True)
class DamagedChampion:
    """The version that holds the alias now, where its files are not what was registered."""

    version: str
    reason: str


def standing_champion(registry: Registry, ledger: PromotionLedger, model: str) -> Champion | DamagedChampion | None:
    """Give the version that is champion now, by the ledger, to which a promotion holds its verdict.

    Raises
    ------
    models_registry.registry.RegistryUnavailable
        If the registry does not answer.
    models_registry.ledger.LedgerError
        If the ledger does not, or was tampered with.
    """
    stands = standing(ledger.history(model), "champion")
    if stands is None:
        return None
    number = stands.to_version
    try:
        return Champion(number, *registry.fetch(model, number))
    except ModelRefusedError as refused:
        return DamagedChampion(number, str(refused))


def gathered(
    ground: Ground,
    settings: Settings,
    trained: TrainedModel,
    parity: Parity,
    champion: Champion | DamagedChampion | None,
    *,
    trades: TradeEvidence,
    trades_on: str,
    told: Told,
) -> Evidence:
    """Find out what the gates look at beside the trades: the champion, and whether the skill looks like a leak.

    Parameters
    ----------
    ground : Ground
        What the candidate was trained on.
    settings : Settings
        Of the account and of the gates.
    trained : TrainedModel
        The candidate.
    parity : Parity
        How its packed form compares with it.
    champion : Champion, DamagedChampion or None
        What holds the alias.
    trades : TradeEvidence
        From `trade_evidence`.
    trades_on : str
        What makes the bars that the strategy decides on.
    told : callable
        Takes a line of progress now and then.
    """
    from models_registry.gates.plausible import plausibility_of

    told("asking each feature what the skill owes to it")
    return Evidence.of(
        trained,
        parity=parity,
        bar_source=ground.frame.bar_source,
        trades_on=trades_on,
        plausibility=plausibility_of(trained, ground.frame),
        champion=champion_comparison(
            ground,
            trained,
            champion,
            minimum_sessions=settings.gates.champion.minimum_test_sessions,
            told=told,
        ),
        trades=trades,
    )


# --- trades -------------------------------------------------------------------------------------------------------


def trade_evidence(
    store: OfflineStore, settings: Settings, trained: TrainedModel, told: Told, *, candidate_sha256: str
) -> TradeEvidence:
    """Trade every session that a fold had not seen with that fold's model, within the paper account's limits.

    Orders fill at the next stored bar's open, fills are charged by the schedule of their day; the strategy is alone on
    the account, which begins each session anew.

    Parameters
    ----------
    store : OfflineStore
        With the bars of these sessions and of those before them, on the desk's clock.
    settings : Settings
        Of the account; its other strategies are left out.
    trained : TrainedModel
        With a model for each fold.
    told : callable
        Takes a line of progress now and then.
    candidate_sha256 : str
        Of the candidate, which the evidence carries.

    Raises
    ------
    MarketDataError
        If a session is not in the store any more, or has other bars than it was trained on, or a file cannot be used.
    """
    from live_services.backtest.sessions import trade_sessions

    fold_of = {date: fold.number for fold in trained.fold_models for date in fold.sessions}
    found: list[SessionTrades] = []
    for traded in trade_sessions(_unseen(store, settings, trained), trained.spec, settings.trading.paper):
        found.append(traded)
        if len(found) % 5 == 0 or len(found) == len(fold_of):
            trades = sum(len(one.trades) for one in found)
            told(f"traded {len(found)} of {len(fold_of)} unseen sessions: {trades} trades")
    return summary(found, fold_of, candidate_sha256)


def _unseen(store: OfflineStore, settings: Settings, trained: TrainedModel) -> Iterator[TestedSession]:
    from live_services.adapters.history import StoredHistory
    from live_services.backtest.sessions import TestedSession, loaded_fold

    schema, universe = trained.spec.feature_schema(), store.universe()
    history = StoredHistory(settings)
    stored = _as_trained_on(store, trained)
    for fold in trained.fold_models:
        model = loaded_fold(fold, schema, trained.spec.model_name)
        for date in fold.sessions:
            session = stored[date]
            before = history.of(session, universe, needed=schema.history_sessions)
            yield TestedSession(session, universe, store.read_bars([session]), before, model)


def _as_trained_on(store: OfflineStore, trained: TrainedModel) -> dict[str, Session]:
    """Give the sessions that a model was trained on by date, if the store still has their bars as they were."""
    stored = {session.date.isoformat(): session for session in store.sessions("bars")}
    model = trained.spec.model_name
    for date, digest in trained.lineage.sessions.items():
        if date not in stored:
            raise MarketDataError(f"the bars of {date} are gone, which {model} was trained on: train again")
        if store.manifest("bars", stored[date])["digest"] != digest:
            raise MarketDataError(f"the bars of {date} have changed since {model} was trained on them: train again")
    return stored


def summary(sessions: Sequence[SessionTrades], fold_of: Mapping[str, int], candidate_sha256: str) -> TradeEvidence:
    """Sum up the trades of sessions, and those of each fold by the ISO date of its sessions."""
    trades = [trade for session in sessions for trade in session.trades]
    longs = [trade for trade in trades if trade.side == "BUY"]
    shorts = [trade for trade in trades if trade.side == "SELL"]
    by_fold: dict[int, list[Trade]] = {number: [] for number in fold_of.values()}
    refused: Counter[str] = Counter()
    for session in sessions:
        by_fold[fold_of[session.session.date.isoformat()]] += session.trades
        refused.update(session.entries_refused)
    return TradeEvidence(
        candidate_sha256=candidate_sha256,
        sessions=len(sessions),
        trades=len(trades),
        long_trades=len(longs),
        short_trades=len(shorts),
        gross_expectancy_bps=_mean([trade.gross_bps for trade in trades]),
        net_expectancy_bps=_mean([trade.net_bps for trade in trades]),
        long_net_expectancy_bps=_mean([trade.net_bps for trade in longs]),
        short_net_expectancy_bps=_mean([trade.net_bps for trade in shorts]),
        net_pnl_inr=_net_inr(trades),
        left_open=sum(trade.left_open > 0 for trade in trades),
        entries_proposed=sum(session.entries_proposed for session in sessions),
        entries_refused=dict(sorted(refused.items())),
        net_pnl_by_session={session.session.date.isoformat(): _net_inr(session.trades) for session in sessions},
        by_fold={
            number: FoldTrades(len(made), _mean([trade.net_bps for trade in made])) for number, made in by_fold.items()
        },
    )


def _net_inr(trades: Iterable[Trade]) -> float:
    return rupees(sum(trade.net_pnl_inr_e4 for trade in trades))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


# --- the champion -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Scored:
    """What the champion's registered model says of decisions."""

    score: NDArray[np.float64]
    base_rate: NDArray[np.float64]
    decision_ns: NDArray[np.int64]
    instrument: NDArray[np.int32]


def champion_comparison(
    ground: Ground,
    trained: TrainedModel,
    champion: Champion | DamagedChampion | None,
    *,
    minimum_sessions: int,
    told: Told,
) -> ChampionComparison:
    """Say how a candidate stands against the champion, whose recipe runs in the candidate's folds if it must.

    Parameters
    ----------
    ground : Ground
        What the candidate was trained on.
    trained : TrainedModel
        The candidate.
    champion : Champion, DamagedChampion or None
        What holds the alias.
    minimum_sessions : int
        What a comparison with the champion's registered model must stand on.
    told : callable
        Takes a line of progress.

    Raises
    ------
    MarketDataError
        If the champion has to be run, and the store has no more the bars that the candidate was trained on.
    """
    from models_registry.gates.champion import compare_in_folds, compare_on_later_rows, not_comparable, settled
    from models_registry.training import session_days

    if champion is None:
        return NO_CHAMPION
    if isinstance(champion, DamagedChampion):
        return not_comparable(champion.version, champion.reason.rstrip("."))
    known = settled(champion.sidecar, champion.version, trained.spec, trained.lineage, trained.instruments)
    if known is not None:
        return known
    _as_trained_on(ground.store, trained)
    try:
        told(f"running the recipe of champion v{champion.version} in the same folds")
        again = _run_again(ground, trained, champion.sidecar)
        return compare_in_folds(trained.oof, again, champion.version, judged=trained.spec.judged)
    except (MarketDataError, ValueError) as problem:  # ValueError: UnknownFeature, UntrainableFrame, ValidationError
        told(f"the recipe of champion v{champion.version} cannot be run: {problem}")
    try:
        scored = _registered_scores(ground, trained, champion)
    except (MarketDataError, ModelRefusedError, ValueError) as problem:
        return not_comparable(champion.version, f"neither its recipe nor its model can be run here ({problem})")
    return compare_on_later_rows(
        trained.oof,
        scored,
        champion.version,
        trained_through_day=int(session_days(np.array([champion.sidecar.training_end_ns - 1]))[0]),
        embargo_sessions=trained.spec.embargo_sessions,
        minimum_sessions=minimum_sessions,
        judged=trained.spec.judged,
    )


def _run_again(ground: Ground, trained: TrainedModel, champion: Sidecar) -> OutOfFold:
    from models_registry.training import evaluate, session_days

    if not champion.specification:
        raise ValueError("its sidecar is of version 1 and does not have it")
    theirs = StrategySpec.of_model(champion.specification)
    frame = _frame(ground, trained, theirs.feature_schema(), theirs.instruments)
    folds = {"folds": trained.spec.folds, "embargo_sessions": trained.spec.embargo_sessions}
    return evaluate(frame, theirs.model_copy(update=folds), np.unique(session_days(ground.frame.decision_ns)))


def _registered_scores(ground: Ground, trained: TrainedModel, champion: Champion) -> _Scored:
    from feature_store.features.schema import feature_schema
    from models_registry.packing import load

    names = [column.name for column in champion.sidecar.feature_schema]
    schema = feature_schema(names, champion.sidecar.bar_clock)
    model = load(champion.files, champion.sidecar, expected_feature_schema_hash=schema.hash)
    frame = _frame(ground, trained, schema, ())
    base_rate = np.full(len(frame), champion.sidecar.metrics.get("base_rate", 0.5))
    return _Scored(model.score(frame.X), base_rate, frame.decision_ns, frame.instrument)


def _frame(ground: Ground, trained: TrainedModel, features: FeatureSchema, instruments: Sequence[str]) -> TrainingFrame:
    from feature_store.offline.training_frames import training_frame

    first, last = min(trained.lineage.sessions), max(trained.lineage.sessions)
    return training_frame(
        ground.store,
        instruments or None,
        dt.date.fromisoformat(first),
        dt.date.fromisoformat(last),
        features=features,
        label=trained.spec.label(),
        proposer=trained.spec.proposer(),
        membership=ground.membership,
        actions=ground.actions,
    )
