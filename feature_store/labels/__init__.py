"""Labels: what a row of features is asked to foretell. Pure."""
