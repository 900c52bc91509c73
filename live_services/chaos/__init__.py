"""Faults put on a running desk, and what they did to its day: ``alpha-panda chaos``."""
