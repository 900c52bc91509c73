"""Proposals: rules that name a side on an event, for a model to judge."""

from feature_store.proposals import library  # declares the platform's rules

__all__ = ["library"]
