"""Failures as one clear message and an exit code: 0 done, 1 it failed, 2 it was asked wrongly (unknown option or value)."""

from __future__ import annotations

import tomllib
from typing import Any

import click
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from typer.core import TyperGroup

from live_services.settings_report import describe_error

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class CommandFailed(Exception):
    """A command could not do what was asked; the message says what to do."""


class ClearGroup(TyperGroup):
    """A command group that says expected failures in words instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected failure becomes a message and exit code 1."""
        try:
            return super().invoke(ctx)
        except expected_failures() as problem:
            err.print(f"[bold red]error:[/] {_escape(message_of(problem))}", soft_wrap=True)
            raise typer.Exit(1) from problem


def expected_failures() -> tuple[type[Exception], ...]:
    """Give what may go wrong outside this program: settings, files, servers, registry, disk."""
    import redis
    import requests
    import sqlalchemy.exc
    from aiokafka.errors import KafkaError

    from feature_store.market import MarketDataError
    from live_services.adapters.kafka import KafkaSetupError
    from live_services.embedded import EmbeddedServerError
    from live_services.kafka_jars import KafkaJarsError
    from live_services.supervision import SupervisionError

    return (
        CommandFailed,
        ValidationError,
        SettingsError,
        tomllib.TOMLDecodeError,
        MarketDataError,
        EmbeddedServerError,
        KafkaJarsError,
        SupervisionError,
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
            f"the settings file is not TOML: {problem}. `ALPHA_PANDA_CONFIG` names it; the default is alpha-panda.toml."
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
