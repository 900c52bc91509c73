"""``alpha-panda``, also as ``python -m live_services``: all commands, the demo first."""

from live_services.chaos.command import chaos
from live_services.cli.main import app
from live_services.demo.command import demo

app.command()(chaos)
app.command()(demo)
app.registered_commands.insert(0, app.registered_commands.pop())  # typer lists them as they were registered


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="alpha-panda")


if __name__ == "__main__":
    main()
