"""Fixtures that tests of several folders share; nothing starts before a test asks for it."""

import pytest

from tests.trading_desk import open_desk, reference, standing_desk

__all__ = ["open_desk", "reference", "standing_desk"]


@pytest.fixture(scope="session")
def backtest_market(tmp_path_factory):
    """A small market with versions that were trained on it; made once, and nobody changes it."""
    from tests.backtest_world import backtest_world

    return backtest_world(tmp_path_factory.mktemp("backtest"))
