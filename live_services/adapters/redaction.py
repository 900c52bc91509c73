"""What may not be read in a log line: secrets, known by their type, by the name before them, or by their value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr

HIDDEN: Final = "***"
_NAME: Final = (
    r"passw(?:or)?d|passwd|pwd|passphrase|secret|secret[_-]?key|client[_-]?secret|api[_-]?key|api[_-]?secret"
    r"|access[_-]?key|private[_-]?key|access[_-]?token|request[_-]?token|refresh[_-]?token|auth[_-]?token|enctoken"
    r"|token|authorization|credentials?"
)
# instrument_token=408065 is none: an underscore before the name makes it another word, unless it qualifies a password.
_KEY: Final = re.compile(rf"(?i)(?:.*[_.-](?:passw(?:or)?d|secret|api_?key|access_?token)|{_NAME})")
_TEXT: Final = re.compile(
    rf"(?i)((?<![a-z0-9_])(?:[a-z0-9_]*_(?=passw(?:or)?d|secret|api_?key|access_?token))?(?:{_NAME})"
    r"""["']?\s*(?:=|:(?!//)|=>)\s*["']?(?:(?:bearer|basic|token)\s+)?)"""
    r"""([^\s"',;&}\])]+)"""
)
_BEARER: Final = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9+/_.~-]{8,}=*")
_URL: Final = re.compile(r"""(?<=://)[^\s/?#"'@]*@""")  # begins at the slashes: a long word costs nothing
_SHORTEST: Final = 4  # a password of three letters would black out half of every line

Redact = Callable[[Any], Any]
"""Gives a value as it may be logged: plain types of JSON, with every secret hidden."""


def redaction(secrets: Iterable[str] = ()) -> Redact:
    """Make the function that hides secrets in whatever a line holds.

    Parameters
    ----------
    secrets
        Values that are hidden wherever they stand; those shorter than four characters are left out.

    Returns
    -------
    Redact
        Strings lose what follows ``password=``, ``token:`` and their like, what stands before the ``@`` of a URL, and
        the ``secrets``; a mapping's values go by their keys; other objects become their ``repr``.
    """
    known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
    values = re.compile("|".join(map(re.escape, known))) if known else None

    def text(value: str) -> str:
        if values is not None:
            value = values.sub(HIDDEN, value)
        if "://" in value:
            value = _URL.sub(f"{HIDDEN}@", value)
        if ":" in value or "=" in value:
            value = _TEXT.sub(_hidden, value)
        return _BEARER.sub(_hidden, value) if " " in value else value

    def redact(value: Any) -> Any:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return text(value)
            case SecretStr() | SecretBytes():
                return HIDDEN
            case Mapping():
                return {text(str(k)): _hidden_by(str(k), v) or redact(v) for k, v in value.items()}
            case list() | tuple() | set() | frozenset():
                return [redact(one) for one in value]
        return text(repr(value))

    return redact


def _hidden(found: re.Match[str]) -> str:
    return found[1] + HIDDEN


def _hidden_by(key: str, value: object) -> str:
    return HIDDEN if isinstance(value, str | bytes) and _names_a_secret(key) else ""


@lru_cache(maxsize=1000)
def _names_a_secret(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def secrets_of(settings: BaseModel) -> tuple[str, ...]:
    """Give the secret values of settings: what is a ``SecretStr``, of an address only its name and password."""
    return tuple(dict.fromkeys(_secrets(settings)))


def _secrets(value: object) -> Iterator[str]:
    match value:
        case SecretStr():
            yield from _credentials(value.get_secret_value())
        case BaseModel():
            for name in type(value).model_fields:
                yield from _secrets(getattr(value, name))
        case Mapping():
            for one in value.values():
                yield from _secrets(one)
        case list() | tuple():
            for one in value:
                yield from _secrets(one)


def _credentials(secret: str) -> Iterator[str]:
    if "://" not in secret:
        yield from [secret] if secret else []
        return
    password = urlsplit(secret).password
    if password:
        yield from (password, unquote(password))
