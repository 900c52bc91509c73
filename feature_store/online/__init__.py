"""The online store: the newest feature rows in Redis."""
