"""What the desk's rules and models are worth on its sessions, and how a trade on bars differs from one on ticks.

`python -m benchmarks.strategies` prints a row for each strategy with a rule, of the newest version of its model, on the
home of the settings. ``--fills FIRST LAST`` trades these sessions twice, on bars (stop and target are looked for in
highs and lows) and on ticks (they are watched), and compares the trades one by one.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dagster_project.desk import Desk
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from live_services.backtest.run import backtest
from live_services.composition import build_registry
from live_services.settings import load_settings

if TYPE_CHECKING:
    from live_services.settings import Settings
    from models_registry.specification import StrategySpec

KEY = ["strategy", "symbol", "side", "minute"]
"""What makes two trades the same entry: the minute that began with the decision."""


def events(settings: Settings, spec: StrategySpec) -> dict[str, float]:
    """Count what a rule proposes in the training sessions, and what these trades gain before costs."""
    desk = Desk(OfflineStore(settings.store_root).pinned(), settings)
    days = desk.training_sessions()
    features, label, proposer = spec.feature_schema(), spec.label(), spec.proposer()
    frame = training_frame(
        desk.store, None, days[0].date, days[-1].date, features=features, label=label, proposer=proposer
    )
    gain = 1e4 * frame.forward_return
    by_day = pd.Series(gain).groupby(frame.decision_ns // (86_400 * 10**9)).mean()
    return {
        "sessions": len(days),
        "events_a_session": len(frame) / len(days),
        "gain_bps": float(gain.mean()),
        "gain_standard_error_bps": float(by_day.std(ddof=1) / np.sqrt(len(by_day))),
        "win_rate": float((gain > 0).mean()),
    }


def judged(settings: Settings, spec: StrategySpec) -> dict[str, float | str]:
    """Give what the newest version of a strategy's model was measured to be out of fold."""
    registry = build_registry(settings)
    version = registry.versions(spec.model_name)[0].version
    sidecar = registry.sidecar(spec.model_name, version)
    names = (
        "gain_auc", "gain_auc_lower_bound", "gain_surplus", "gain_surplus_lower_bound", "test_sessions", "trades",
        "trade_gross_expectancy_bps", "trade_net_expectancy_bps", "trades_net_pnl_inr",
    )  # fmt: skip
    found: dict[str, float | str] = {name: sidecar.metrics[name] for name in names}
    failed = [check.name for check in sidecar.gate.checks if check.verdict == "failed"]
    return found | {"skill_confidence": sidecar.metrics["skill_confidence"], "gate": ", ".join(failed) or "passed"}


def traded(name: str, fills: str, first: str, last: str) -> pd.DataFrame:
    """Trade sessions by the newest version of a strategy; one row for each trade, its entry by the minute."""
    result = backtest(name, first=first, last=last, fills=fills, against_champion=False)  # type: ignore[arg-type]
    trades = result.trades
    return trades.assign(minute=trades["entry_time"].dt.floor("min")).drop_duplicates(KEY)


def compared(on_bars: pd.DataFrame, on_ticks: pd.DataFrame) -> dict[str, Any]:
    """Compare trades one by one: which are there on both, how their exits differ, and by how much their gains do."""
    both = on_bars.merge(on_ticks, on=KEY, suffixes=("_bars", "_ticks"))
    side = np.where(both["side"] == "long", 1.0, -1.0)
    entry = 1e4 * side * (both["entry_price_ticks"] / both["entry_price_bars"] - 1.0)
    gain = both["gross_bps_ticks"] - both["gross_bps_bars"]
    same = both["exit_reason_bars"] == both["exit_reason_ticks"]
    changed = Counter(zip(both["exit_reason_bars"], both["exit_reason_ticks"], strict=True))
    return {
        "trades_on_bars": len(on_bars),
        "trades_on_ticks": len(on_ticks),
        "same_entry": len(both),
        "entry_worse_by_bps": float(entry.mean()),
        "same_end": int(same.sum()),
        "other_ends": {f"{a} -> {b}": count for (a, b), count in changed.most_common() if a != b},
        "gain_on_bars_bps": float(both["gross_bps_bars"].mean()),
        "gain_on_ticks_bps": float(both["gross_bps_ticks"].mean()),
        "difference_bps": float(gain.mean()),
        "difference_standard_deviation_bps": float(gain.std(ddof=1)),
        "difference_where_the_end_is_the_same_bps": float(gain[same].mean()),
        "difference_where_it_is_not_bps": float(gain[~same].mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print figures of the strategies of the settings, or of those that are named, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategies", description=__doc__)
    parser.add_argument("names", nargs="*", help="strategies; default: all that have a rule")
    parser.add_argument("--fills", nargs=2, metavar=("FIRST", "LAST"), help="compare bars and ticks on these sessions")
    parser.add_argument("--out", type=Path, help="write the figures to this file too")
    asked = parser.parse_args(arguments)
    settings = load_settings()
    chosen = [spec for spec in settings.strategies if spec.judged and (not asked.names or spec.name in asked.names)]
    found: dict[str, Any] = {}
    for spec in chosen:
        if asked.fills:
            found[spec.name] = compared(*(traded(spec.name, fills, *asked.fills) for fills in ("bars", "ticks")))
        else:
            found[spec.name] = events(settings, spec) | judged(settings, spec)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
