"""Assets: what exists because something was computed. Thin: load, call a function, return metadata."""
