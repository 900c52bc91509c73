"""What to type next, so that it works when it is copied: the program as it was called, the home that was used."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from live_services.settings import CONFIG_NAME, DEFAULT_HOME, home_directory
from models_registry.specification import StrategySpec, by_model

SECOND: Final = "mine"
"""What the strategy that a person adds is called until they choose."""


def program() -> str:
    """Give the words that call this program again from the same directory: ``.venv/bin/alpha-panda`` without a venv."""
    script = Path(sys.argv[0])
    if script.name != "alpha-panda":
        return f"{shlex.quote(sys.executable)} -m live_services"
    on_path = shutil.which(script.name)
    if on_path is not None and Path(on_path).resolve() == script.resolve():
        return script.name
    return shlex.quote(str(_from_here(script)))


def of_home(home: Path) -> str:
    """Give the same, for a home; the one that is taken without ``--home`` is not named."""
    if home.absolute() == DEFAULT_HOME.absolute():
        return program()
    return f"{program()} --home {shlex.quote(str(_from_here(home)))}"


def to_type(words: str) -> str:
    """Give a command on the home that is in use, in the backticks that messages put around what can be typed."""
    return f"`{of_home(home_directory())} {words}`"


def _from_here(path: Path) -> Path:
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def next_steps(home: Path, strategies: Sequence[StrategySpec], *, running: bool) -> tuple[tuple[str, str], ...]:
    """Give the commands that follow a demo of these strategies, each with what it does."""
    configuration = shlex.quote(str(_from_here(home / CONFIG_NAME)))
    second = f"printf '\\n[[strategies]]\\nname = \"{SECOND}\"\\n' >> {CONFIG_NAME}"
    jobs = ", ".join(spec.training_job for spec in by_model(strategies).values())
    keep_on = (
        (f"{of_home(home)} status", "it is all running: look at it; `down` instead of `status` stops it")
        if running
        else (f"{of_home(home)} up", "keep it all running, with this model and data, until Ctrl-C")
    )
    return (
        (f"{program()} demo --bars FILE", "the same on your own market data (and --ticks FILE if you have them)"),
        (
            f"cp -n {configuration} . && {second}",
            f"a second strategy beside the first; now edit ./{CONFIG_NAME}: say under its [[strategies]] what it does "
            "otherwise (features, holding_bars, estimator, …)",
        ),
        (
            f"{program()} up",
            f"then, when it is edited, run both: launch {jobs} and train_{SECOND} in Dagster; the replay waits for "
            "their models",
        ),
        keep_on,
    )
