"""Markets, bars, features, labels and their stores. Knows no model and no broker."""
