import pandas as pd

from feature_store.market.types import Universe
from feature_store.sources.findings import file_findings, instrument_findings, table_findings
from feature_store.sources.quarantine import Quarantine


def left_out(*reasons: str) -> Quarantine:
    return Quarantine(pd.DataFrame({"row": range(3, 3 + len(reasons)), "reason": list(reasons)}))


def test_rows_that_were_left_out_are_counted_by_reason_with_the_first_row_of_each() -> None:
    found = file_findings("bars", left_out("superseded_bar", "negative_volume", "superseded_bar"))
    assert found == ("bars: 3 rows cannot be used: 1 negative_volume (first: row 4), 2 superseded_bar (first: row 3)",)


def test_rows_of_other_hours_or_dates_name_the_exchange_its_hours_and_the_verified_dates() -> None:
    (said,) = file_findings("ticks", left_out("outside_session"))
    assert "1 row cannot be used: 1 outside_session (first: row 3). The exchange is NSE" in said
    assert "from 09:15 to 15:30 IST, verified from 2020-01-01 to 2026-12-31" in said


def test_what_was_inferred_and_mended_is_said_and_a_clean_file_says_nothing() -> None:
    assert file_findings("bars", left_out(), recognised=("times are UTC",), rows_out_of_order=1200) == (
        "bars: times are UTC",
        "bars: 1,200 rows stand after a later one of their symbol; they were sorted",
    )
    assert file_findings("bars", left_out()) == ()


def test_instruments_that_are_not_traded_or_have_no_volume_are_named() -> None:
    universe = Universe.from_symbols(["NIFTY 50", "TCS"], untradable=frozenset({"NIFTY 50"}))
    indices, silent = instrument_findings(universe, ("ODD",))
    assert indices == "indices, which are never traded: NIFTY 50"
    assert "without any volume" in silent
    assert "ODD; say in market.universe what they are" in silent


def test_names_of_tables_that_no_instrument_has_are_counted_and_the_first_named() -> None:
    found = table_findings({"corporate_actions": ("AA",), "membership": tuple("ABCDEFG")})
    assert found == (
        "market.corporate_actions has 1 name that no instrument has; their rows do nothing: AA",
        "market.membership has 7 names that no instrument has; their rows do nothing: A, B, C, D, E and 2 more",
    )
