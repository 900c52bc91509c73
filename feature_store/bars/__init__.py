"""Ticks become bars, bars become longer bars, and both are looked at. Pure."""
