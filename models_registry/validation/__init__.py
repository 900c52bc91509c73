"""Out-of-sample measurement: folds, row weights and statistics. Pure."""
