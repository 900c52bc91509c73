"""``python -m live_services`` is ``alpha-panda``; the supervisor starts its children so."""

from live_services.cli.main import app

app(prog_name="alpha-panda")
