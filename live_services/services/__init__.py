"""One module a service: its topic list and its handler."""
