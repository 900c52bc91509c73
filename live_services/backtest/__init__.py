"""The backtest: the live strategies and accounts over recorded sessions, in one process without a log."""
