from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from live_services.backtest import charts, tables
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.backtest.report import BacktestResult, chart_figures
from live_services.backtest.run import backtest
from live_services.backtest.traded import kept
from live_services.domain.strategy.loaded_model import RuleFailures
from models_registry.specification import StrategySpec
from tests.backtest_world import BacktestWorld
from tests.live_world import MINUTE, SESSION, UNIVERSE, loaded_model, random_walk

DRAWS_ALL = "<script>drawEverything()</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(result: BacktestResult, tmp_path_factory: pytest.TempPathFactory) -> str:
    return result.report(tmp_path_factory.mktemp("report") / "deep" / "report.html").read_text(encoding="utf-8")


def without_plotly(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_the_report_is_one_file_that_asks_the_network_for_nothing(page: str) -> None:
    assert page.count("Plotly.react") >= 1
    text = without_plotly(page)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert "@import" not in text
    assert "url(" not in text


@pytest.mark.parametrize(
    "said",
    [
        "Backtest: momentum v1", "net result", "Sharpe ratio", "standard error", "deepest drawdown", "buy and hold",
        "What these figures assume", "next bar&#39;s open",
        "by the model of the walk-forward fold that had not seen it",
        "By side", "By exit reason", "By hour of the entry (IST)", "By instrument", "STT", "stamp duty",
        "Outages of the data", "feature schema", "code commit", "data digest", "training data", "starting_cash_inr",
        "buy_quantile", "SYNTHETIC MARKET", "REFUSED BY ITS GATE",
    ],
)  # fmt: skip
def test_the_report_says_what_a_person_must_know(page: str, said: str) -> None:
    assert said in without_plotly(page)


def test_a_stamp_stands_on_every_printed_page(page: str) -> None:
    printed = page[page.index("@media print") :]
    assert re.search(r"\.stamps \{ display: table-header-group", printed)


def test_no_table_is_clipped_and_every_session_is_in_it(page: str, result: BacktestResult) -> None:
    assert "…" not in without_plotly(page)
    assert all(f"{one.session.date:%a %d %b %Y}" in page for one in result.traded)
    symbols = set(result.trades["symbol"])
    assert all(f"<td>{symbol}</td>" in page for symbol in symbols)


def test_charts_are_plain_numbers_that_json_holds(result: BacktestResult) -> None:
    found = chart_figures(result)
    assert {"equity", "sessions", "exposure", "distribution", "hours", "instruments", "charges"} <= set(found)
    assert {name for name in found if name.startswith("price ")} == {f"price {p.symbol}" for p in result.prices}
    json.dumps(found, allow_nan=False)


def test_the_equity_chart_ends_where_the_account_does(result: BacktestResult) -> None:
    line = charts.equity_chart(result)["data"][0]
    assert line["y"][-1] == pytest.approx(result.sessions["equity_inr"].iloc[-1], abs=0.01)
    assert line["x"][-1] <= len(result.traded)
    assert line["x"] == sorted(line["x"])


def test_every_trade_of_an_instrument_stands_on_its_price(result: BacktestResult) -> None:
    path = result.prices[0]
    trades = result.trades[result.trades["symbol"] == path.symbol]
    drawn = charts.price_chart(result, path)["data"]
    marked = [trace for trace in drawn if "customdata" in trace]
    assert sum(len(trace["x"]) for trace in marked if trace["name"].endswith("entry")) == len(trades)
    (exits,) = (trace for trace in marked if trace["name"] == "exit")
    assert exits["y"] == trades["exit_price"].round(2).tolist()
    assert np.all(np.array(exits["x"]) >= 0)
    in_legend = [trace for trace in drawn if trace["mode"] == "markers" and trace.get("showlegend", True)]
    assert {trace["name"] for trace in in_legend} == {trace["name"] for trace in marked}
    assert {trace["marker"]["color"] for trace in in_legend} == {charts.GREY}  # green and red say gained and lost


def test_an_outage_is_shaded_where_it_was_and_only_for_whom_it_was(result: BacktestResult) -> None:
    session, name = result.traded[1].session, result.prices[0].symbol
    outage = {"date": session.date, "start": "11:00", "end": "12:15", "intervals": 75, "missing": 3, "throughout": 3,
              "expected": 4, "whole_market": False, "symbols": (name,)}  # fmt: skip
    broken = dataclasses.replace(result, outages=pd.DataFrame([outage]))
    minutes = (session.close_ns - session.open_ns) / 60e9
    assert charts.outage_spans(broken) == [(round(1 + 105 / minutes, 5), round(1 + 180 / minutes, 5))]
    assert charts.outage_spans(broken, name)
    assert not charts.outage_spans(broken, result.prices[1].symbol)
    assert tables.outage_rows(broken).rows[0][1] == "11:00 to 12:15"


def test_the_key_names_outages_only_where_there_are_some(page: str, result: BacktestResult, tmp_path: Path) -> None:
    said = "</i>outage of the data"
    assert (said in page) == bool(tables.outage_rows(result).rows)
    quiet = dataclasses.replace(result, outages=result.outages.iloc[:0])
    assert said not in quiet.report(tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_loss_in_basis_points_has_the_minus_of_a_loss_in_rupees(result: BacktestResult) -> None:
    assert [tables.number(value, 1, plus=True) for value in (-3.21, 3.21)] == ["−3.2", "+3.2"]
    net, bps = tables.extreme_trades(result.trades, best=False).rows[0][-2:]
    assert net.text[0] == bps.text[0] == "−"


def test_a_backtest_without_a_trade_has_a_report_too(world: BacktestWorld, tmp_path: Path) -> None:
    never = {"buy_threshold": 0.999, "sell_threshold": 0.001}
    found = backtest("momentum", models="momentum@1", changes=never, **world.known())  # type: ignore[arg-type]
    assert not len(found.trades)
    text = without_plotly(found.report(tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "0 trades" in text
    assert "nan" not in text.lower().replace("finance", "")


def test_a_notebook_shows_the_headline_with_its_stamps(result: BacktestResult) -> None:
    shown = result._repr_html_()
    assert "SYNTHETIC MARKET" in shown
    assert "Sharpe ratio" in shown
    assert "<script" not in shown


def test_a_rule_that_failed_is_stamped_with_the_number_of_rows_and_the_first(result: BacktestResult) -> None:
    first, *rest = result.traded
    failing = dataclasses.replace(first, rule_failures={"momentum": RuleFailures(1_200, "stretch(z_score=9.0)")})
    broken = dataclasses.replace(result, traded=(failing, failing, *rest))
    assert "RULE FAILED: momentum on 2,400 rows (stretch(z_score=9.0))" in broken.stamps
    assert broken.record()["rule_failures"] == {"momentum": {"rows": 2_400, "first": "stretch(z_score=9.0)"}}
    assert result.record()["rule_failures"] == {}


def test_the_headline_is_the_accounts_and_what_is_open_at_the_end_is_said(result: BacktestResult) -> None:
    walk = random_walk(4, minutes=60, per_minute=20, seed=5)
    ends = walk[walk.event_time_ns < SESSION.open_ns + 32 * MINUTE]  # while positions are open
    assigned = assignments_at_open(SESSION, {"momentum": loaded_model()})
    config = EngineConfig((StrategySpec(name="momentum", holding_bars=3),))
    events = run_session(MarketDay(SESSION, UNIVERSE, ends, assigned), config)
    left = dataclasses.replace(result, traded=(kept(SESSION, events, {}),))
    assert left.net_inr == left.sessions["equity_inr"].iloc[-1] - left.account.starting_cash_inr
    closing = left.net_inr - left.trade_figures.net_inr
    assert closing > 0
    number = int((left.trades["exit_reason"] == "left open").sum())
    (said,) = (one for one in tables.assumptions(left) if "open at the end" in one)
    assert said.startswith(f"{number} trades were open at the end.")
    assert f"{tables.inr(closing, 2)} in all" in said
    shown = {tile.name: tile for tile in tables.tiles(left)}
    assert shown["net result"].note.startswith(tables.inr(left.net_inr))
    assert shown["charges"].value == tables.inr(left.trade_figures.gross_inr - left.net_inr)


def test_figures_as_json_hold_no_number_that_is_none(result: BacktestResult) -> None:
    record = result.record()
    json.dumps(record, allow_nan=False)
    assert record["strategies"] == [{"name": "momentum", "model": "momentum", "version": "1"}]
    assert record["returns"]["sessions"] == len(result.traded)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_draws_every_chart(result: BacktestResult, tmp_path: Path) -> None:
    path = result.report(tmp_path / "report.html")
    # A page draws what a reader scrolls to; nobody scrolls here, and a busy machine may leave part of a page unseen.
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{DRAWS_ALL}</body>"), encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1280,20000", "--virtual-time-budget=10000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    body = drawn[drawn.index("<body") :]
    places = re.findall(r'<div class="chart[^"]*"', body)
    assert len(places) == 8
    assert all("js-plotly-plot" in place for place in places)
