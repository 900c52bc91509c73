from tests.strategy_world import registry

__all__ = ["registry"]
