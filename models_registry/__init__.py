"""How a model is fitted, judged, packed, registered, promoted and loaded. MLflow is the registry."""
