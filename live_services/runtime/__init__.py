"""The one loop that runs services: the port, the merge, tasks, commits."""
