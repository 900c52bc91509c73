"""The live desk: market feed, strategy runner, risk manager, paper trading, portfolio, and the runtime under them."""
