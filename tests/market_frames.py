"""Files of bars for tests of the research side, as data frames that a test may spoil before they are written."""

import datetime as dt

import dagster as dg
import numpy as np
import pandas as pd

from dagster_project.definitions import definitions
from feature_store.market.types import IST
from feature_store.sources.synthetic import synthetic_market
from live_services.settings import load_settings

DAILY = ("market_day", "bars", "features", "labels")


def generated(instruments=4, sessions=5, **options):
    """A generated market whose sessions are those of the first days of 2026."""
    return synthetic_market(instruments=instruments, sessions=sessions, seed=3, **options)


def bars_frame(market):
    """All bars of a generated market as a file would have them."""
    symbols = np.array([i.symbol for i in market.universe.instruments])
    parts = [
        pd.DataFrame(
            {
                "timestamp": pd.to_datetime(bars.start_ns, utc=True).tz_convert(IST),
                "symbol": symbols[bars.instrument],
                **{name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")},
            }
        )
        for bars in market.bars
    ]
    return pd.concat(parts, ignore_index=True)


def date_of(frame):
    """The IST date of each row."""
    return frame["timestamp"].dt.date


class Research:
    """The research side over files in a directory: writes them, runs ranges of days and jobs, and reads what came."""

    def __init__(self, home, instance, **market):
        self.home, self.instance = home, instance
        self.market = {"source": "files", "feed": "bars", "bars_file": home / "bars.parquet", **market}
        self.strategies = [{"name": "momentum"}]

    @property
    def settings(self):
        return load_settings(alpha_panda_home=self.home, market=self.market, strategies=self.strategies)

    def bring(self, frame):
        frame.to_parquet(self.home / "bars.parquet", index=False)

    def run(self, *assets, first=None, last=None, config=None, raise_on_error=False):
        """Materialise assets, of a range of days if one is given, in one run."""
        defs = definitions(self.settings, dt.date(2026, 11, 1))
        span = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            run_config=config,
            asset_selection=[dg.AssetKey(asset) for asset in assets or DAILY],
            instance=self.instance,
            tags=span if first else None,
            raise_on_error=raise_on_error,
        )

    def train(self):
        """Launch train_momentum as it is, without a partition."""
        job = definitions(self.settings, dt.date(2026, 11, 1)).resolve_job_def("train_momentum")
        return job.execute_in_process(instance=self.instance, raise_on_error=False)


def checks_of(run):
    """Checks by name, without the asset."""
    return {check.check_name: check for check in run.get_asset_check_evaluations()}


def days_of(run, asset):
    """Metadata by day of one asset's materializations."""
    events = [e.step_materialization_data.materialization for e in run.get_asset_materialization_events()]
    return {
        e.partition: {name: value.value for name, value in e.metadata.items()}
        for e in events
        if e.asset_key == dg.AssetKey(asset)
    }
