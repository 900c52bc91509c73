"""A backtest of registered versions: the live desk and account over stored sessions, each run by what had not seen it.

from live_services.backtest.run import backtest

result = backtest("breakout")          # every session that its folds had not seen
result.trades                          # one row for each round trip
result.report("breakout.html")
"""

from __future__ import annotations

import datetime as dt
import getpass
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from feature_store.market.types import Session
from live_services.backtest.changes import changed
from live_services.backtest.engine import EngineConfig
from live_services.backtest.figures import return_figures, trade_figures
from live_services.backtest.recording import Recorders, configuration
from live_services.backtest.report import BacktestResult
from live_services.backtest.result import Opponent, trades_table
from live_services.backtest.traded import Fills, TradedSession, require_as_trained, trade
from live_services.backtest.versions import (
    THRESHOLDS,
    BacktestRefused,
    JudgedVersion,
    Promotions,
    Versions,
    asked_versions,
    judged_version,
    specification_named,
)
from live_services.domain.account.trades import round_trips
from live_services.domain.basis import Stamp
from live_services.domain.limits import AccountConfig
from live_services.next_steps import to_type
from live_services.settings import Settings, load_settings
from models_registry.trials import HoldoutLook, Trial, config_digest

if TYPE_CHECKING:
    from feature_store.offline.store import OfflineStore

Progress = Callable[[str, int, int], object]
"""Takes what is under way, how many sessions are done, and of how many."""
_NAMED: Final = 3


def backtest(
    strategies: str | Sequence[str],
    *,
    settings: Settings | None = None,
    first: dt.date | str | None = None,
    last: dt.date | str | None = None,
    models: str | Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    fills: Fills = "bars",
    in_sample: bool = False,
    against_champion: bool = True,
    registry: Versions | None = None,
    ledger: Promotions | None = None,
    progress: Progress = lambda _what, _done, _total: None,
    recorders: Recorders | None = None,
) -> BacktestResult:
    """Trade stored sessions by registered versions, several strategies side by side on one account.

    Decisions are made at a bar's close and fill at the next bar's open (or the next tick), are charged by the day's
    schedule, and pass the account's limits; cash and positions go from session to session.

    Parameters
    ----------
    strategies : str or sequence of str
        Names of strategies of the settings.
    settings : Settings, optional
        Default: those in force.
    first, last : date or ISO text, optional
        Sessions to trade, both ends included. Without either: those that the folds tested, and no other.
    models : str or sequence of str
        ``NAME@7`` or ``NAME@champion``; default: each model's champion, else its newest version.
    changes : mapping, optional
        Of fields that decide how it is traded, such as ``{"stop_bps": 30}``; see `changes.changed`.
    fills : {"bars", "ticks"}
        What orders fill on; with ticks only sessions that have them.
    in_sample : bool
        Run the registered models on whatever they were trained on; the report is stamped.
    against_champion : bool
        Trade the strategies' champions on the same sessions too, if another version of one of them is judged.
    registry, ledger : optional
        Default: those of the settings.
    progress : callable
    recorders : Recorders, optional
        Default: the table of trials beside the ledger.

    Returns
    -------
    BacktestResult

    Raises
    ------
    BacktestRefused
        If there is nothing to trade, a version is not what its strategy trades, or a session would be run by a model
        that knows it.
    feature_store.market.types.MarketDataError, models_registry.refusals.ModelRefusedError
    models_registry.registry.RegistryUnavailable, models_registry.ledger.LedgerError
    """
    from feature_store.offline.store import OfflineStore

    settings = settings or load_settings()
    names = [strategies] if isinstance(strategies, str) else list(dict.fromkeys(strategies))
    specs = [specification_named(settings.strategies, name) for name in names]
    asked = asked_versions([models] if isinstance(models, str) else models, specs)
    account = AccountConfig.model_validate(settings.trading.paper.model_dump(include=set(AccountConfig.model_fields)))
    change = changed(specs, account, changes or {})
    source, promotions = registry or _registry(settings), ledger or _ledger(settings)
    judged = tuple(
        judged_version(source, promotions, spec, asked.get(spec.name), change.thresholds) for spec in change.strategies
    )
    store = OfflineStore(settings.store_root).pinned()
    sessions, left_out = chosen_sessions(store, judged, _date(first), _date(last), fills=fills, in_sample=in_sample)
    require_as_trained(store, judged, sessions if fills == "bars" else ())
    config = EngineConfig(
        tuple(spec.model_copy(update={"brokers": ("paper",)}) for spec in change.strategies),
        {"paper": change.account},
        bar_minutes=settings.market.bar_minutes,
        stamp=_stamp(settings),
    )
    run = _Run(store, settings, config, sessions, fills, in_sample, progress)
    traded = run.traded(judged, f"trading {' + '.join(names)}")
    champion, no_champion = None, "it was not asked for"
    if against_champion:
        champion, no_champion = run.champion(source, promotions, judged, change.thresholds)
    progress("laying out the report", 0, 1)
    from live_services.backtest.beside import beside

    result = BacktestResult(
        judged=judged,
        account=change.account,
        fills=fills,
        in_sample=in_sample,
        universe=store.universe(),
        traded=traded,
        market=store.market() or "unknown market",
        changes=dict(changes or {}),
        left_out=left_out,
        champion=champion,
        no_champion=no_champion,
        **beside(store, settings, judged, traded, change.account),
    )
    _record(result, config, recorders if recorders is not None else Recorders.of(settings.ledger_url))
    return result


def chosen_sessions(
    store: OfflineStore,
    judged: Sequence[JudgedVersion],
    first: dt.date | None,
    last: dt.date | None,
    *,
    fills: Fills,
    in_sample: bool,
) -> tuple[tuple[Session, ...], tuple[str, ...]]:
    """Choose the sessions to trade, and say which lie between them and are left out.

    Raises
    ------
    BacktestRefused
        If there is none, or one that was asked for is known to a model that would run it.
    """
    stored = store.sessions(fills)
    if not stored:
        raise BacktestRefused(
            f"the store has no session with {fills}: bring a market in with {to_type('train NAME --bars FILE')}"
            if fills == "bars"
            else "the store has no session with ticks: backtest on bars, or bring ticks in"
        )
    if first and last and last < first:
        raise BacktestRefused(f"--to {last} is before --from {first}")
    asked = first is not None or last is not None
    span = [one for one in stored if (first or one.date) <= one.date <= (last or one.date)]
    if not span:
        raise BacktestRefused(
            f"the store has no session with {fills} from {first or 'the first'} to {last or 'the last'}; it has "
            f"{stored[0].date} to {stored[-1].date}"
        )
    if in_sample:
        return tuple(span), ()
    known = [one for one in span if any(version.role(one) == "in sample" for version in judged)]
    if asked and known:
        raise BacktestRefused(_known(judged, span, known))
    tested = [one for one in span if one not in known and (asked or any(v.role(one) == "out of fold" for v in judged))]
    if not tested:
        raise BacktestRefused(_untested(judged, stored))
    between = [one for one in span if tested[0].date < one.date < tested[-1].date and one not in tested]
    why = "no fold of every model had tested it"
    return tuple(tested), tuple(f"{one.date}: {why}" for one in between)


def _known(judged: Sequence[JudgedVersion], span: Sequence[Session], known: Sequence[Session]) -> str:
    title = next(one.title for one in judged if any(one.role(session) == "in sample" for session in known))
    dates = [session.date.isoformat() for session in known]
    named = ", ".join(dates[:_NAMED]) + (f" and {len(dates) - _NAMED} more" if len(dates) > _NAMED else "")
    later = [session.date for session in span if session.date > known[-1].date]
    begin = f"--from {later[0]}" if later else "later dates"
    return (
        f"{title} was trained on {len(known)} of these {len(span)} sessions and no fold tested them ({named}): its "
        f"profit there says nothing. Take {begin}, leave the dates out for all sessions that its folds had not seen, "
        "or say --in-sample, which every page of the report will say too"
    )


def _untested(judged: Sequence[JudgedVersion], stored: Sequence[Session]) -> str:
    bare = [one.title for one in judged if not one.folds]
    later = [s.date for s in stored if all(one.role(s) == "after training" for one in judged)]
    after = f" Sessions from {later[0]} on are later than the training: say --from {later[0]}." if later else ""
    if bare:
        return (
            f"{' and '.join(bare)} was registered without the models of its folds, so no session of its training "
            f"period can be judged: train it again.{after}"
        )
    return f"no stored session was tested by a fold of every model: are these the sessions they were trained on?{after}"


@dataclass(frozen=True)
class _Run:
    """What every version of a backtest is traded on."""

    store: OfflineStore
    settings: Settings
    config: EngineConfig
    sessions: tuple[Session, ...]
    fills: Fills
    in_sample: bool
    progress: Progress

    def traded(self, judged: Sequence[JudgedVersion], what: str) -> tuple[TradedSession, ...]:
        from live_services.adapters.history import StoredHistory

        total, found = len(self.sessions), list[TradedSession]()
        self.progress(what, 0, total)
        history = StoredHistory(self.settings)
        for one in trade(
            self.store,
            history,
            self.config,
            judged,
            self.sessions,
            fills=self.fills,
            in_sample=self.in_sample,
        ):
            found.append(one)
            self.progress(what, len(found), total)
        return tuple(found)

    def champion(
        self,
        source: Versions,
        ledger: Promotions,
        judged: Sequence[JudgedVersion],
        thresholds: Mapping[str, float],
    ) -> tuple[Opponent | None, str]:
        """Trade the champions too, side by side as what is judged; None and the reason if there is no comparison."""
        from models_registry.refusals import ModelRefusedError

        if all("champion" in one.rungs for one in judged):
            stand = "are the champions" if len({one.title for one in judged}) > 1 else "is the champion"
            return None, f"{_titles(judged)} {stand}"
        try:
            champions = tuple(
                one if "champion" in one.rungs else judged_version(source, ledger, one.spec, "champion", thresholds)
                for one in judged
            )
        except (BacktestRefused, ModelRefusedError) as refused:
            return None, str(refused)
        for one in champions:
            known = sum(one.role(session) == "in sample" for session in self.sessions)
            if known and not self.in_sample:
                return None, f"{one.title} was trained on {known} of these sessions, and no fold of it tested them"
        traded = self.traded(champions, f"trading the champion, {_titles(champions)}")
        return self._opponent(_titles(champions), traded), ""

    def _opponent(self, title: str, traded: Sequence[TradedSession]) -> Opponent:
        import pandas as pd

        equity = pd.Series({one.session.date: one.last.equity_inr for one in traded}, dtype=float)
        cash = self.config.accounts["paper"].starting_cash_inr
        returns = equity / equity.shift(fill_value=cash) - 1.0
        trips = trades_table(round_trips([event for one in traded for event in one.kept]))
        return Opponent(title, equity, return_figures(returns.to_numpy()), trade_figures(trips))


def _titles(judged: Sequence[JudgedVersion]) -> str:
    return " + ".join(dict.fromkeys(one.title for one in judged))


def _record(result: BacktestResult, config: EngineConfig, recorders: Recorders) -> None:
    """Tell who counts what was tried, and how often the hold-out was looked at."""
    by, at_ns = getpass.getuser(), time.time_ns()
    after = [one.session.date for one in result.traded if result.role(one.session) == "after training"]
    for one, said in zip(result.judged, _configurations(result, config.accounts["paper"]), strict=True):
        name = one.sidecar.model_name
        if after and recorders.look is not None:
            recorders.look(
                HoldoutLook(
                    model_name=name,
                    first_session=after[0],
                    last_session=after[-1],
                    what="backtest",
                    by=by,
                    at_ns=at_ns,
                    config_digest=config_digest(said),
                )
            )
        if recorders.trial is not None and not result.in_sample:
            recorders.trial(
                Trial(
                    model_name=name,
                    config=said,
                    data_digest=result.provenance["data digest"],
                    daily_pnl_inr=result.daily_net_inr(one.spec.name),
                    made_by=f"backtest by {by}",
                    recorded_at_ns=at_ns,
                    run_id="",
                )
            )


def _configurations(result: BacktestResult, account: AccountConfig) -> list[dict[str, Any]]:
    """Give each strategy's configuration; what trades beside it on the account makes it another one."""
    by_hand = {name: float(value) for name, value in result.changes.items() if name in THRESHOLDS}
    alone = [
        configuration(
            one.sidecar.recipe_digest,
            one.sidecar.specification,
            one.spec,
            account,
            fills=result.fills,
            thresholds=by_hand,
        )
        for one in result.judged
    ]
    digests = [config_digest(said) for said in alone]
    if len(alone) == 1:
        return alone
    return [said | {"beside": sorted(digests[:k] + digests[k + 1 :])} for k, said in enumerate(alone)]


def _registry(settings: Settings) -> Versions:
    from models_registry.registry import Registry

    if not settings.mlflow.tracking_uri:
        raise BacktestRefused(
            f"no model registry is known: start one with {to_type('up')}, or set MLFLOW__TRACKING_URI"
        )
    return Registry(settings.mlflow.tracking_uri)


def _ledger(settings: Settings) -> Promotions:
    from models_registry.ledger import PromotionLedger

    return PromotionLedger(settings.ledger_url)


def _stamp(settings: Settings) -> Stamp:
    from feature_store.provenance import code_commit

    return Stamp(settings.digest, code_commit())


def _date(value: dt.date | str | None) -> dt.date | None:
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            raise BacktestRefused(f"{value!r} is no date: write YYYY-MM-DD") from None
    return value.date() if isinstance(value, dt.datetime) else value
