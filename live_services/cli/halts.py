"""``alpha-panda halt | reduce | flatten | resume``: what a person types; `trading_commands` carries it out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from live_services.composition import read_settings
from live_services.failures import CommandFailed

if TYPE_CHECKING:
    from live_services.cli.trading_commands import Verb

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept with who and when.")]
HaltBrokerOption = Annotated[
    str | None, typer.Option("--broker", help="paper or zerodha; default: every broker that runs.")
]
StrategyOption = Annotated[
    str | None, typer.Option("--strategy", help="Only this strategy; default: everything at the broker.")
]


def halt(reason: ReasonOption, broker: HaltBrokerOption = None, strategy: StrategyOption = None) -> None:
    """Stop trading: no entry, and no exit until it is lifted. What rests at the exchange stays there.

    Positions stay open, over the square-off too: `flatten` closes them, `reduce` lets their exits go on. In force
    within a second, also while the market stalls, and over restarts and sessions until another command for the same
    scope.

    Example: `alpha-panda halt --strategy momentum --reason "fills look wrong"`
    """
    _command("halt", reason, broker, strategy)


def reduce(reason: ReasonOption, broker: HaltBrokerOption = None, strategy: StrategyOption = None) -> None:
    """Let positions be left and none be entered.

    Example: `alpha-panda reduce --reason "results at 14:00"`
    """
    _command("reduce", reason, broker, strategy)


def flatten(reason: ReasonOption, broker: HaltBrokerOption = None, strategy: StrategyOption = None) -> None:
    """Close every position at the market now, also what a halt held back; then let none be entered.

    Example: `alpha-panda flatten --broker paper --reason "end of the test"`
    """
    _command("flatten", reason, broker, strategy)


def resume(reason: ReasonOption, broker: HaltBrokerOption = None, strategy: StrategyOption = None) -> None:
    """Trade again. A strategy's own halt outlives that of its broker: it is lifted by its name.

    Example: `alpha-panda resume --strategy momentum --reason "fills explained"`
    """
    _command("resume", reason, broker, strategy)


def _command(verb: Verb, reason: str, broker: str | None, strategy: str | None) -> None:
    from live_services.cli.trading_commands import command_trading_state

    missing = asyncio.run(command_trading_state(read_settings(), verb, reason, broker=broker, strategy=strategy))
    if missing:
        raise CommandFailed(missing)
