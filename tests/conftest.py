"""Fixtures that tests of several folders share; nothing starts before a test asks for it."""

from tests.trading_desk import open_desk, reference, standing_desk

__all__ = ["open_desk", "reference", "standing_desk"]
