"""What a task's strategies propose, from the market and their models. Pure."""
