"""Where market data comes from: files of any dialect, screened and quarantined, or a generated market."""
