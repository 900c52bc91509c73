"""Trading as pure functions: data and time come in as arguments, data goes out. No IO, no clock."""
