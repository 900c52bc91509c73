from tests.toy_desk import kafka

__all__ = ["kafka"]
