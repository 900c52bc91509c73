from __future__ import annotations

import pytest

from live_services.backtest.report import BacktestResult
from live_services.backtest.run import backtest
from tests.backtest_world import BacktestWorld, backtest_world


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> BacktestWorld:
    return backtest_world(tmp_path_factory.mktemp("backtest"))


@pytest.fixture(scope="package")
def result(world: BacktestWorld) -> BacktestResult:
    return backtest("momentum", models="momentum@1", **world.known())  # type: ignore[arg-type]
