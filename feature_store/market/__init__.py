"""Instruments, sessions, bars, calendars and dated tables: the words every other room speaks. Pure."""
