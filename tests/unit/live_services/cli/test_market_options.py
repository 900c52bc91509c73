"""What a person says of their own files on the command line, as settings."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from live_services.__main__ import app
from live_services.cli.market_options import market_settings
from live_services.failures import CommandFailed
from live_services.settings import MarketSettings, Settings


def test_only_what_is_given_becomes_a_setting():
    assert market_settings() == {}
    assert market_settings("time=Date, open = O ,volume=Total Qty", "%d-%m-%Y %H:%M", "UTC", "end") == {
        "columns": {"time": "Date", "open": "O", "volume": "Total Qty"},
        "time_format": "%d-%m-%Y %H:%M",
        "timezone": "UTC",
        "stamp": "end",
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": "time"}, "--columns: 'time' is no pair; write OURS=THEIRS"),
        ({"columns": "time=,open=O"}, "--columns: 'time=' is no pair"),
        ({"columns": "time=A,time=B"}, "--columns: time is there twice, as 'A' and as 'B'"),
        ({"timezone": "Mars/Olympus"}, "--timezone: zone 'Mars/Olympus' is unknown; write one such as Asia/Kolkata"),
        ({"stamp": "middle"}, "--stamp: bars are not stamped at 'middle'; choose start or end"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(options, told):
    with pytest.raises(CommandFailed, match=re.escape(told)):
        market_settings(**options)


def test_how_a_file_is_read_changes_nothing_that_is_said_of_a_session():
    read_otherwise = MarketSettings(columns={"time": "Date"}, time_format="%d-%m-%Y", timezone="UTC", stamp="end")
    assert Settings(market=read_otherwise).digest == Settings().digest


def test_the_options_need_a_file():
    result = CliRunner().invoke(app, ["demo", "--time-format", "%d-%m-%Y %H:%M", "--stamp", "end"])
    assert result.exit_code == 1
    assert "--time-format, --stamp: is said of your own files; give them with --bars" in result.output
