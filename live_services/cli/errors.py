"""Failures as one clear message and an exit code: 0 done, 1 it failed, 2 wrong command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

import click
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from typer.core import TyperGroup

from live_services.failures import CommandFailed
from live_services.settings import SettingsFileError, config_file
from live_services.settings_report import describe_error

_FEW: Final = 8
_SUGGESTIONS: Final = 3
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known names are near one that is not known; else all if they are few, else nothing."""
    names = {known_name.lower(): known_name for known_name in known}
    asked = name.lower()
    near = get_close_matches(asked, names, n=_SUGGESTIONS) or [n for n in names if asked in n][:_SUGGESTIONS]
    if near:
        return f"did you mean {' or '.join(names[n] for n in near)}?"
    if len(names) > _FEW:
        return ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names.values())}"


class ClearGroup(TyperGroup):
    """A command group that says expected failures in words instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected failure becomes a message and exit code 1."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.ClickException, click.Abort, click.exceptions.Exit):
            raise  # these click ends by itself, with its own exit codes
        except expected_failures() as problem:
            err.print(f"[bold red]error:[/] {_escape(message_of(problem))}", soft_wrap=True)
            raise typer.Exit(1) from problem


def expected_failures() -> tuple[type[Exception], ...]:
    """Give what may go wrong outside this program: settings, files, servers, registry, disk."""
    import redis
    import requests
    import sqlalchemy.exc
    from aiokafka.errors import KafkaError

    from feature_store.market.types import MarketDataError
    from live_services.adapters.kafka import KafkaSetupError
    from live_services.cli.explain import ExplainError
    from live_services.domain.strategy.checks import WrongStrategy
    from live_services.machine.embedded import EmbeddedServerError
    from live_services.machine.kafka_jars import KafkaJarsError
    from live_services.machine.supervision import SupervisionError
    from live_services.runtime.task import RuntimeFailure
    from live_services.services.market_feed import FeedError
    from live_services.services.model_loading import ModelUnavailable
    from live_services.services.strategy_runner import HistoryChanged
    from models_registry.ledger import LedgerError
    from models_registry.promotion import PromotionError
    from models_registry.refusals import ModelRefusedError
    from models_registry.registry import RegistryUnavailable

    return (
        CommandFailed,
        ValidationError,
        SettingsError,
        SettingsFileError,
        tomllib.TOMLDecodeError,
        MarketDataError,
        EmbeddedServerError,
        KafkaJarsError,
        SupervisionError,
        ExplainError,
        RuntimeFailure,
        FeedError,
        ModelUnavailable,
        HistoryChanged,
        WrongStrategy,
        LedgerError,
        PromotionError,
        ModelRefusedError,
        RegistryUnavailable,
        KafkaSetupError,
        KafkaError,
        redis.RedisError,
        requests.RequestException,
        sqlalchemy.exc.SQLAlchemyError,
        OSError,
        TimeoutError,
    )


def message_of(problem: Exception) -> str:
    """Say what went wrong, for a person."""
    import redis
    import requests

    if isinstance(problem, ValidationError):
        return describe_error(problem) if problem.title == "Settings" else str(problem)
    if isinstance(problem, SettingsError):
        return f"{problem}. Lists are written as JSON in the environment, for example ACTIVE_BROKERS='[\"paper\"]'."
    if isinstance(problem, tomllib.TOMLDecodeError):
        return (
            f"the settings file {config_file()} is not TOML: {problem}. Correct that line; ALPHA_PANDA_CONFIG can name "
            "another file."
        )
    if isinstance(problem, requests.RequestException):
        where = problem.request.url if problem.request is not None else "its address"
        return f"no answer from {where}: {type(problem).__name__}. Is it running? See `alpha-panda status`."
    if isinstance(problem, redis.RedisError):
        return f"Redis does not answer: {problem}. See `alpha-panda status`."
    return str(problem) or type(problem).__name__


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
