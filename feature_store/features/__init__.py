"""Features: their library, the compiled step, schema and engine, and the guards that keep them honest. Pure."""
