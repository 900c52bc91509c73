"""What may go wrong outside this program, and how a person is told; services say it too, so no CLI library is here."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from live_services.failures import CommandFailed
from live_services.next_steps import program, to_type
from live_services.settings import SettingsFileError, config_file
from live_services.settings_report import describe_error

_NODE: Final = re.compile(r"\('([^']+)', (\d+)")
"""An address, as aiokafka writes it where it could not bootstrap."""
_NO_METADATA: Final = "Unable to get cluster metadata"  # its words where a broker takes connections and answers nothing


def expected_failures() -> tuple[type[Exception], ...]:
    """Give what may go wrong outside this program: settings, files, servers, registry, disk."""
    import redis
    import requests
    import sqlalchemy.exc
    from aiokafka.errors import KafkaError

    from feature_store.market.types import MarketDataError
    from feature_store.proposals.rules import RuleFailed
    from live_services.adapters.kafka import KafkaSetupError
    from live_services.domain.strategy.checks import WrongStrategy
    from live_services.runtime.failures import RuntimeFailure
    from live_services.services.feed_plan import FeedError
    from live_services.services.model_loading import ModelUnavailable
    from live_services.services.session_history import HistoryChanged
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
        RuleFailed,
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
        return f"no answer from {where}: {type(problem).__name__}. Is it running? See {to_type('status')}."
    if isinstance(problem, redis.RedisError):
        return f"Redis does not answer: {problem}. See {to_type('status')}."
    return _of_kafka(problem) or _of_a_file(problem) or str(problem) or type(problem).__name__


def _of_kafka(problem: Exception) -> str:
    """Say which brokers could not be reached, or that an answer was late; empty for all else."""
    from aiokafka.errors import KafkaConnectionError, KafkaError

    if isinstance(problem, KafkaConnectionError) and (nodes := _NODE.findall(str(problem))):
        where = ", ".join(f"{host}:{port}" for host, port in nodes)
        return f"no Kafka broker answers at {where} (kafka.bootstrap_servers). Is it running? See {to_type('status')}."
    if isinstance(problem, KafkaError) and _NO_METADATA in str(problem):
        return f"no broker of kafka.bootstrap_servers tells of its cluster. Is Kafka running? See {to_type('status')}."
    if isinstance(problem, TimeoutError) and not str(problem):  # a budget of asyncio: most of them wait for Kafka
        return f"a server, most likely Kafka, did not answer in time. See {to_type('status')}."
    return ""


def _of_a_file(problem: Exception) -> str:
    """Say what the system would not do with a file; empty for all else."""
    if not isinstance(problem, OSError) or not problem.filename or not problem.strerror:
        return ""
    return (
        f"{problem.filename} cannot be used: {problem.strerror}. Give this user the right to it, or correct what is in "
        f"its way; `{program()} --home DIR` takes another home."
    )
