from __future__ import annotations

import pytest

from live_services.backtest.report import BacktestResult
from live_services.backtest.run import backtest
from tests.backtest_world import BacktestWorld


@pytest.fixture
def world(backtest_market: BacktestWorld) -> BacktestWorld:
    return backtest_market


@pytest.fixture(scope="session")
def result(backtest_market: BacktestWorld) -> BacktestResult:
    return backtest("momentum", models="momentum@1", **backtest_market.known())  # type: ignore[arg-type]
