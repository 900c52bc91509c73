"""The 45 real sessions come in as one run of all four daily assets, and their outages are listed."""

import os
from pathlib import Path

import dagster as dg
import pytest

from tests.market_frames import DAILY, Research, checks_of, days_of

DATA = os.environ.get("ALPHA_PANDA_TEST_DATA")
FILE = "nse_minute_2021-03-26_2021-06-03.parquet"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not DATA, reason="ALPHA_PANDA_TEST_DATA names no directory with real NSE files"),
]


@pytest.fixture(scope="module")
def research(tmp_path_factory):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Research(tmp_path_factory.mktemp("home"), instance, bars_file=Path(DATA) / FILE)


@pytest.fixture(scope="module")
def run(research):
    return research.run(first="2021-03-26", last="2021-06-03")


def test_the_real_sessions_are_one_run(research, run):
    assert run.success
    for asset in DAILY:
        days = {day: facts for day, facts in days_of(run, asset).items() if facts["session"] != "no session"}
        assert len(days) == 45
    assert sum(facts.get("bars", 0) for facts in days_of(run, "market_day").values()) == 588_399
    said = [record.user_message for record in research.instance.all_logs(run.run_id)]
    assert "bars: session 12 of 45, 2021-04-15, 9,375 rows" in said


def test_every_real_outage_is_listed(run):
    check = checks_of(run)["outages_are_listed"]
    listed = check.metadata["list"].value.splitlines()[2:]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert len(listed) == 68
    for outage in (
        "| 2021-04-07 | 10:35 | 15:30 | 295 | 25 | 25 | 25 |",
        "| 2021-04-23 | 09:15 | 10:59 | 104 | 25 | 25 | 25 |",
        "| 2021-05-07 | 12:55 | 14:02 | 67 | 36 | 36 | 36 |",
        "| 2021-05-12 | 13:38 | 15:30 | 112 | 61 | 32 | 61 |",
        "| 2021-05-24 | 11:35 | 13:58 | 143 | 62 | 32 | 62 |",
        "| 2021-05-25 | 11:31 | 15:30 | 239 | 62 | 48 | 62 |",
    ):
        assert any(line.startswith(outage) for line in listed), outage


def test_what_is_wrong_with_real_data_is_a_warning_and_nothing_else_is(run):
    failed = {name: check for name, check in checks_of(run).items() if not check.passed}
    assert {check.severity for check in failed.values()} == {dg.AssetCheckSeverity.WARN}
    idle = {name for name, check in failed.items() if check.description.startswith("nothing to look at")}
    assert idle == {"seconds_are_not_repeated", "day_volumes_rise", "bars_of_ticks_equal_the_vendors"}
    assert failed.keys() - idle == {"outages_are_listed", "no_day_is_thin", "sessions_are_covered"}
    assert failed["no_day_is_thin"].description == (
        "4 thin days: 2021-03-26 (2 of 25 instruments, 750 of 9,375 bars); "
        "2021-03-30 (8 of 25 instruments, 2,532 of 9,375 bars); "
        "2021-03-31 (8 of 25 instruments, 2,503 of 9,375 bars); and 1 more"
    )
