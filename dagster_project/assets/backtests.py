"""A strategy's backtest: its registered version over sessions that its models had not seen, with a report to read."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from dagster_project.failures import expected_failures
from dagster_project.model_keys import ModelKeys
from dagster_project.plots import equity_plot, session_plot
from dagster_project.resources import LedgerResource, MlflowResource
from feature_store.market.types import MarketDataError
from live_services.settings import Settings
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from live_services.backtest.report import BacktestResult

_EVERY = 10  # sessions between two lines of a run's log


class BacktestConfig(dg.Config):
    """What a person may choose in the Launchpad; as it stands: every session that the version's folds had not seen."""

    version: str = ""
    """A number, or a rung; default: the champion, else the newest."""
    first_session: str = ""
    last_session: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    """Of how it is traded, by field, such as ``{"stop_bps": 30}``."""
    fills: str = "bars"
    """``bars`` or ``ticks``."""
    in_sample: bool = False
    """Run the model on what it was trained on; every page says so."""


def backtest_key(strategy: str) -> dg.AssetKey:
    """Give the key of a strategy's backtest."""
    return dg.AssetKey(f"{strategy}_backtest")


def backtest_asset(spec: StrategySpec) -> dg.AssetsDefinition:
    """Make a strategy's backtest; no training makes it, a person does."""
    keys = ModelKeys(spec.model_name)

    @dg.asset(
        key=backtest_key(spec.name),
        deps=[keys.version],
        group_name=keys.model,
        kinds={"numba"},
        description=f"What the strategy {spec.name} would have made on the paper account by a registered version of "
        f"{keys.model}, over the sessions that the version's folds had not seen: a report to read, and its figures. "
        f"The command is `alpha-panda backtest {spec.name}`.",
    )
    def backtest(
        context: dg.AssetExecutionContext,
        config: BacktestConfig,
        settings: dg.ResourceParam[Settings],
        mlflow: dg.ResourceParam[MlflowResource],
        ledger: dg.ResourceParam[LedgerResource],
    ) -> dg.MaterializeResult[None]:
        """Trade the sessions and write the report."""
        from live_services.backtest.run import backtest as run
        from live_services.backtest.versions import BacktestRefused
        from models_registry.ledger import LedgerError
        from models_registry.refusals import ModelRefusedError
        from models_registry.registry import RegistryUnavailable

        fills: Literal["bars", "ticks"] = "ticks" if config.fills == "ticks" else "bars"
        with expected_failures(BacktestRefused, MarketDataError, ModelRefusedError, RegistryUnavailable, LedgerError):
            result = run(
                spec.name,
                settings=settings,
                first=config.first_session or None,
                last=config.last_session or None,
                models=(f"{spec.model_name}@{config.version}",) if config.version else (),
                changes=config.changes,
                fills=fills,
                in_sample=config.in_sample,
                registry=mlflow.registry(),
                ledger=ledger.ledger(),
                progress=_told(context.log.info),
            )
        folder = settings.alpha_panda_home.absolute() / "backtests" / spec.name / context.run.run_id
        return dg.MaterializeResult(metadata=backtest_facts(result, result.report(folder / "report.html")))

    return backtest


def backtest_facts(result: "BacktestResult", report: Path) -> dict[str, Any]:
    """Give what Dagster shows of a backtest: what must be said first, then figures, then where the report is."""
    from live_services.backtest.tables import assumptions

    returns, trades, earned = result.returns, result.trade_figures, result.sessions["net_inr"].tolist()
    told = f"Net result, ₹, after charges, over {len(earned)} sessions"
    figures = {
        "net_inr": result.net_inr,
        "net_return_percent": 100 * returns.total_return,
        "sharpe": returns.sharpe,
        "sharpe_standard_error": returns.sharpe_error,
        "deepest_drawdown_percent": 100 * returns.max_drawdown,
        "net_bps_a_trade": trades.mean_net_bps,
        "win_rate_percent": 100 * trades.win_rate,
        "charges_inr": trades.charges_inr,
        "buy_and_hold_percent": 100 * result.holding_return if result.holding is not None else float("nan"),
    }
    return {
        "judged": result.title,
        "said_on_every_page": dg.MetadataValue.md("; ".join(f"**{stamp}**" for stamp in result.stamps) or "nothing"),
        "sessions": f"{result.traded[0].session.date} to {result.traded[-1].session.date}, {len(result.traded)}",
        "equity_and_drawdown": dg.MetadataValue.md(equity_plot(earned, told)),
        "each_session": dg.MetadataValue.md(session_plot(earned, "Net result of each session, ₹, after charges")),
        "trades": trades.trades,
        **{name: round(float(value), 3) for name, value in figures.items() if value == value},  # noqa: PLR0124 (NaN)
        "champion": _beside(result),
        "what_it_assumes": dg.MetadataValue.md("\n\n".join(assumptions(result))),
        "report": dg.MetadataValue.path(str(report)),
    }


def _beside(result: "BacktestResult") -> str:
    if result.champion is None:
        return f"not beside it: {result.no_champion}"
    return f"{result.champion.title}: {100 * result.champion.returns.total_return:+.2f} % on the same sessions"


def _told(told: Callable[[str], object]) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if done % _EVERY == 0 or done == total:
            told(f"{what}: {done} of {total} sessions")

    return progress
