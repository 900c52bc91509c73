"""What a run's own configuration says of its market stands over the settings."""

from pathlib import Path

import dagster as dg
import pytest

from dagster_project.market_input import MarketInput
from feature_store.market.types import MarketDataError
from live_services.settings import load_settings
from tests.market_frames import Research, bars_frame, generated


def test_what_is_left_empty_is_as_the_settings_say():
    settings = load_settings(market={"time_format": "epoch_ms", "bar_minutes": 5})
    assert MarketInput().over(settings) == settings
    over = MarketInput(timezone="UTC").over(settings).market
    assert (over.time_format, over.timezone, over.bar_minutes, over.source) == ("epoch_ms", "UTC", 5, "synthetic")


def test_files_make_it_a_market_of_files():
    market = MarketInput(bars_file="/data/bars.csv", columns={"open": "O"}).over(load_settings()).market
    assert (market.source, market.bars_file, market.columns) == ("files", Path("/data/bars.csv"), {"open": "O"})


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(MarketDataError, match="timezone: zone 'Asia/Bombay' is unknown"):
        MarketInput(timezone="Asia/Bombay").over(load_settings())


def test_a_run_brings_in_the_files_of_its_configuration_on_a_desk_that_generates_its_market(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        research = Research(tmp_path, instance)
        research.bring(bars_frame(generated(instruments=2, sessions=2)))
        said = {"bars_file": str(research.market["bars_file"])}
        research.market = {"source": "synthetic"}
        run = research.run("market_data", config={"ops": {"market_data": {"config": said}}}, raise_on_error=True)
        made = run.asset_materializations_for_node("market_data")[-1].metadata
    assert made["bars"].value == 2 * 3 * 375
    assert not made["market"].value.startswith("SYNTHETIC")
