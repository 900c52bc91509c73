"""One broker's account: what may be ordered, how orders end, and what the books say. Pure."""
