"""Gates: whether a version may stand on a rung. Pure."""
