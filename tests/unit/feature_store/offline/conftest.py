from tests.offline_world import market, store

__all__ = ["market", "store"]
