import pytest

from tests.feature_markets import FeatureMarket, feature_market


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    return feature_market(2, stocks=2, sessions=4, missing=0.05)
