from __future__ import annotations

import pytest
from pydantic import SecretStr

from live_services.adapters.redaction import HIDDEN, redaction, secrets_of
from live_services.settings import KafkaSettings, LedgerSettings, RedisSettings, Settings

plain = redaction()


@pytest.mark.parametrize(
    "text",
    [
        "password=s3cr3t!x",
        "sasl_password: s3cr3t!x",
        'got {"access_token": "s3cr3t!x"}',
        "{'api_key': 's3cr3t!x'}",
        "GET /session?request_token=s3cr3t!x&action=login",
        "Authorization: Bearer s3cr3t!x",
        "Authorization: token s3cr3t!x",
        "redis://:s3cr3t!x@10.0.0.5:6379/0",
        "postgresql+psycopg://desk:s3cr3t!x@db/ledger",
    ],
)
def test_what_stands_behind_the_name_of_a_secret_or_in_an_address_is_hidden(text: str) -> None:
    said = plain(text)
    assert "s3cr3t" not in said
    assert HIDDEN in said


@pytest.mark.parametrize(
    "text",
    [
        "instrument_token=408065",
        "tokens: 3",
        "redis://127.0.0.1:6379/0",
        "see docs/secrets.md",
        "a@b.example",
        "a basic algorithm",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert plain(text) == text


def test_a_value_is_hidden_by_its_type_and_by_its_key_however_deep_it_lies() -> None:
    said = plain(
        {
            "sasl_password": "s3cr3t!x",
            "instrument_token": 408065,
            "inner": [{"token": "s3cr3t!x"}, SecretStr("s3cr3t!x"), ValueError("password=s3cr3t!x")],
        }
    )
    assert "s3cr3t" not in str(said)
    assert said["instrument_token"] == 408065


def test_the_settings_own_secrets_are_hidden_wherever_they_stand() -> None:
    settings = Settings(
        kafka=KafkaSettings(sasl_password=SecretStr("rosebud-7")),
        redis=RedisSettings(url=SecretStr("rediss://desk:p%40ss-word@cache:6380/0")),
        ledger=LedgerSettings(url=SecretStr("sqlite:///ledger.sqlite")),
    )
    secrets = secrets_of(settings)
    assert set(secrets) == {"rosebud-7", "p%40ss-word", "p@ss-word"}
    assert redaction(secrets)("the word is rosebud-7, and p@ss-word") == f"the word is {HIDDEN}, and {HIDDEN}"


def test_a_long_word_is_looked_through_once() -> None:
    for word in ("x" * 400_000, "x_" * 200_000, "a.b+" * 100_000, "token" * 80_000):
        assert plain(word) == word  # what looks again at each letter takes minutes
