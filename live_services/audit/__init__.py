"""The audit: whether anything in a strategy's chain, from bars to orders, knew what came after its decision.

`look_ahead` runs a chain on cut and on changed data, `training` asks folds, fits, labels and versions when they knew
what, `strategy` puts all of it together for a strategy of the desk.
"""
