"""Settings: frozen, typed, refusing unknown keys, hiding secrets, and able to say where each value came from.

Highest first: command-line options, environment (``KAFKA__BOOTSTRAP_SERVERS``), ``alpha-panda.toml`` (that of
``ALPHA_PANDA_CONFIG``, else the home's, else the working directory's), the running stack's own endpoints, defaults.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from live_services.domain.limits import AccountConfig
from live_services.operations_settings import (
    DeadLettersSettings,
    Environment,
    LoggingSettings,
    MonitoringSettings,
    PreflightSettings,
    ProcessesSettings,
    Section,
    TracingSettings,
)
from live_services.replaced_settings import refuse_replaced_names
from models_registry.gates.limits import GatesSettings
from models_registry.specification import Broker, StrategySpec, of_one_desk
from models_registry.strategies import BUILT_IN

CONFIG_NAME: Final = "alpha-panda.toml"
DEFAULT_HOME: Final = Path(".alpha-panda")
_DECIDES_NOTHING: Final = {
    "speed",
    "replay_session",
    "replay_through",
    "follow",
    "feed_name",
    "take_over",
    "bars_file",
    "ticks_file",
    "corporate_actions",
    "membership",
    "name",
    "universe",
    "columns",
    "time_format",
    "timezone",
    "stamp",
}
"""What stands under ``market`` and changes nothing that is said of a session."""
_LEAST_RETENTION_HOURS: Final = 168  # a week: longer than any time in which an exchange is closed
_SERVERS: Final = re.compile(r"[^\s,:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class SettingsFileError(Exception):
    """The settings file cannot be read; the message names it."""


def _server_list(value: str) -> str:
    if value and not all(_SERVERS.fullmatch(part.strip()) for part in value.split(",")):
        raise ValueError("write HOST:PORT, several with commas between them, for example 127.0.0.1:9092")
    return value


def _retention(hours: int) -> int:
    if hours != 0 and hours < _LEAST_RETENTION_HOURS:
        raise ValueError(
            f"write 0, which is for ever, or at least {_LEAST_RETENTION_HOURS}: a restart after a long weekend reads "
            "the session before it again"
        )
    return hours


def _http_address(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise ValueError("write the address of a server, for example http://127.0.0.1:5000")
    return value.rstrip("/")


def _redis_address(value: SecretStr) -> SecretStr:
    if value.get_secret_value() and not re.match(r"(rediss?|unix)://\S", value.get_secret_value()):
        raise ValueError("write redis://HOST:PORT/0, rediss:// for TLS, or unix:///PATH")
    return value


def _iso_date(value: str) -> str:
    if value:
        try:
            dt.date.fromisoformat(value)
        except ValueError:
            raise ValueError("write a date as YYYY-MM-DD") from None
    return value


def _market_name(value: str) -> str:
    if not value.strip() or value.upper().startswith("SYNTHETIC"):
        raise ValueError("write the exchange's market, such as NSE; SYNTHETIC markets are generated ones")
    return value.strip()


def _time_zone(value: str) -> str:
    if value:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone {value!r} is unknown; write one such as Asia/Kolkata or UTC") from None
    return value


def _time_of_day(value: str) -> str:
    if value and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?", value):
        raise ValueError("write a time of day as HH:MM or HH:MM:SS, for example 10:30")
    return value


_HttpAddress = Annotated[str, AfterValidator(_http_address)]
_IsoDate = Annotated[str, AfterValidator(_iso_date)]


class KafkaSettings(Section):
    """Apache Kafka; without ``bootstrap_servers`` an embedded one is started on loopback."""

    bootstrap_servers: Annotated[str, AfterValidator(_server_list)] = ""
    market_partitions: int = Field(default=1, ge=1, le=64)
    retention_hours: Annotated[int, AfterValidator(_retention)] = 0
    """For how many hours topics keep a record, at least a week (168); 0: for ever. `explain` and a replay read no
    further back. What says what a day was, and dead letters, stay in any case. `up` sets it, also on topics there are.
    """
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_cafile: Path | None = None


class RedisSettings(Section):
    """Redis or Valkey; without ``url`` an embedded one is started on loopback. The URL may hold a password."""

    url: Annotated[SecretStr, AfterValidator(_redis_address)] = SecretStr("")


class MlflowSettings(Section):
    """The model registry; without ``tracking_uri`` a server on SQLite is started on loopback."""

    tracking_uri: _HttpAddress = ""
    poll_seconds: float = Field(default=5.0, gt=0)


class DagsterSettings(Section):
    """Where a person finds the Dagster UI; empty when none is running."""

    url: _HttpAddress = ""


class LedgerSettings(Section):
    """The append-only promotion ledger, a SQLAlchemy URL; default: SQLite in the home directory."""

    url: SecretStr = SecretStr("")


class SyntheticSettings(Section):
    """The generated market; always labelled SYNTHETIC."""

    instruments: int = Field(default=20, ge=2, le=3000)
    sessions: int = Field(default=30, ge=3, le=1000)
    tick_sessions: int = Field(default=1, ge=1)
    """How many of the last sessions have ticks; at most ``sessions``."""
    first_session: Annotated[_IsoDate, Field(min_length=1)] = "2026-01-05"
    edge_bps: float = Field(default=6.0, ge=0)
    """Size of the planted momentum edge per minute, basis points; 0: none."""
    reversion_bps: float = Field(default=7.0, ge=0)
    """What prices that went too far come back per minute, basis points; 0: none goes too far."""
    breakout_bps: float = Field(default=3.0, ge=0)
    """Drift per minute of prices that left the range of the last hour, basis points; 0: none drifts."""
    seed: int = 7
    volatility_regimes: bool = False
    overnight_gap_bps: float = Field(default=0.0, ge=0, le=2000)
    opening_auction: bool = False
    halts: int = Field(default=0, ge=0)
    """Instruments halted in each session; see `feature_store.sources.synthetic` for all of these."""
    outages: int = Field(default=0, ge=0, le=5)

    @model_validator(mode="after")
    def _ticks_of_sessions_that_there_are(self) -> Self:
        if self.tick_sessions > self.sessions:
            raise ValueError(
                f"tick_sessions {self.tick_sessions} is more than sessions {self.sessions}: generate more sessions, or "
                "fewer of them with ticks"
            )
        return self


class MarketSettings(Section):
    """What comes in, and how it is replayed."""

    source: Literal["synthetic", "files"] = "synthetic"
    bars_file: Path | None = None
    ticks_file: Path | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    """The files' own names of our columns (``time``, ``symbol``, ``open`` …); others go by their usual names."""
    time_format: str = ""
    """How the files write times: a format of `datetime.strptime`, or ``epoch_s``, ``epoch_ms``, ``epoch_us``,
    ``epoch_ns``; default: what they plainly show."""
    timezone: Annotated[str, AfterValidator(_time_zone)] = ""
    """Zone of times that name none; default: UTC where no other reading is left, else Asia/Kolkata."""
    stamp: Literal["", "start", "end"] = ""
    """Whether a bar's time is its ``start`` or its ``end``; default: what the times show, else the start."""
    bar_minutes: int = Field(default=1, ge=1, le=375)
    feed: Literal["ticks", "bars"] = "ticks"
    replay_session: _IsoDate = ""
    """First session to replay, ``YYYY-MM-DD``; default: the last one there is."""
    replay_through: _IsoDate = ""
    """Last session of the range to replay, ``YYYY-MM-DD``; default: ``replay_session``, so that it is one session."""
    follow: bool = False
    """After the range, wait for the next stored session and play it too, and so on."""
    join_at: Annotated[str, AfterValidator(_time_of_day)] = ""
    """Time of day, ``HH:MM`` or ``HH:MM:SS`` IST, at which the feed joins the first session of its range, like one that
    was started late; default: at the open."""
    feed_name: str = Field(default="", max_length=100)
    """Who this feed says that it is; default: the name of the host. Set it where that changes, as in containers."""
    take_over: str = Field(default="", pattern="^[0-9a-f-]*$")
    """Which other feed's market this one may go on with, by the id that its refusal names; that is on the log then."""
    train_through: _IsoDate = ""
    """Last day that models are trained on, ``YYYY-MM-DD``; default: the day before ``replay_session`` or before the
    last session of a generated market, else the last day there is."""
    frame_ms: int = Field(default=1000, ge=10, le=600_000)
    """Event time in one frame of ticks; at ``speed`` 0 it is ten seconds at least, and what is said is the same."""
    corporate_actions: Path | None = None
    """Dated factors of splits and the like (CSV or Parquet: symbol, ex_date, kind, factor); prices stay raw."""
    name: Annotated[str, AfterValidator(_market_name)] = "NSE"
    """Which market the files are of; a store and a model's page name it, whatever the files are called."""
    universe: Path | None = None
    """What instruments are, where their names do not tell it or two of them share a token (CSV or Parquet: symbol, kind
    of equity, etf or index, and maybe instrument_token and tick_size); it wins over what files say."""
    membership: Path | None = None
    """Who was a member of the traded universe when (CSV or Parquet: symbol, from, to); others are not trained on."""
    unexplained_jump: float = Field(default=0.15, gt=0)
    """An open this share away from the previous close that no corporate action explains stops the training."""
    allow_unexplained_jumps: bool = False
    """Train although such jumps are there; the check goes on naming them."""
    speed: float = Field(default=0.0, ge=0)
    """Replay speed, 1 = as it happened, 0 = as fast as the services take it."""
    synthetic: SyntheticSettings = SyntheticSettings()

    @model_validator(mode="after")
    def _the_range_has_a_first_session_and_then_a_last(self) -> Self:
        first, last = self.replay_session, self.replay_through
        if last and not first:
            raise ValueError(
                f"replay_through {last} needs replay_session as well: say which session the range begins with"
            )
        if last and dt.date.fromisoformat(last) < dt.date.fromisoformat(first):
            raise ValueError(
                f"replay_through {last} is before replay_session {first}: a range ends on the day on which it begins, "
                "or later"
            )
        return self

    @model_validator(mode="after")
    def _training_ends_before_the_replay(self) -> Self:
        through, replayed = self.train_through, self.replay_session
        if through and replayed and dt.date.fromisoformat(through) >= dt.date.fromisoformat(replayed):
            raise ValueError(
                f"train_through {through} is not before replay_session {replayed}: models would know the day that they "
                "replay; train through an earlier day, or replay a later session"
            )
        return self


class TradingSettings(AccountConfig):
    """One broker's world."""

    enabled: bool = False


class BrokersSettings(Section):
    """``TRADING__<BROKER>__…``."""

    paper: TradingSettings = TradingSettings(enabled=True)
    zerodha: TradingSettings = TradingSettings()


class SkewSettings(Section):
    """The monitor that computes live feature rows again from the recorded market."""

    instruments: int = Field(default=8, ge=1)
    """How many of a market partition are compared; others every day, chosen by a hash."""


class RuntimeSettings(Section):
    """The one runtime loop."""

    watermark_interval_ms: int = Field(default=1000, ge=1)
    """Between watermarks that no task waits for: each is a transaction, and what is said meanwhile waits for it."""
    commit_interval_ms: int = Field(default=25, ge=1)
    offsets_interval_ms: int = Field(default=1000, ge=1)
    transaction_timeout_ms: int = Field(default=10_000, ge=1000)
    snapshot_interval_seconds: float = Field(default=15.0, ge=1)
    """Between two snapshots of a task's state: a restart handles what came since the last one again."""
    member: str = ""
    """Name in the consumer groups, which no other member may have. Default: one made of host and home, so that
    only a second member of one home needs its own."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Prometheus port on loopback; 0 picks a free one, shown by ``alpha-panda status``."""


class Settings(BaseSettings):
    """All settings of the live side and of the CLI."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        nested_model_default_partial_update=True,
    )

    alpha_panda_home: Path = DEFAULT_HOME
    """State of this machine: Kafka's log, Valkey, MLflow, Dagster, offline store, process files."""
    active_brokers: tuple[Broker, ...] = ("paper",)
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    mlflow: MlflowSettings = MlflowSettings()
    dagster: DagsterSettings = DagsterSettings()
    ledger: LedgerSettings = LedgerSettings()
    market: MarketSettings = MarketSettings()
    strategies: tuple[StrategySpec, ...] = BUILT_IN
    trading: BrokersSettings = BrokersSettings()
    gates: GatesSettings = GatesSettings()
    skew: SkewSettings = SkewSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    environment: Environment = "development"
    preflight: PreflightSettings = PreflightSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()
    processes: ProcessesSettings = ProcessesSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()

    @field_validator("strategies")
    @classmethod
    def _of_one_desk(cls, value: tuple[StrategySpec, ...], info: ValidationInfo) -> tuple[StrategySpec, ...]:
        market = info.data.get("market")  # absent where it is wrong itself
        return value if market is None else of_one_desk(value, market.bar_minutes)

    @model_validator(mode="after")
    def _squared_off_behind_the_last_exit(self) -> Self:
        """Refuse a square-off that would end positions earlier than the label they were opened by."""
        for strategy in self.strategies:
            for broker in strategy.brokers if strategy.product == "MIS" else ():
                minutes = getattr(self.trading, broker).square_off_minutes_before_close
                if minutes > max(strategy.exit_minutes_before_close, strategy.bar_minutes):
                    raise ValueError(
                        f"strategy {strategy.name!r} may hold until {strategy.exit_minutes_before_close} minutes "
                        f"before the close, and the {broker} account squares off {minutes} minutes before it: a "
                        "trade would end earlier than its label. Raise exit_minutes_before_close, or lower "
                        f"trading.{broker}.square_off_minutes_before_close"
                    )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, highest first."""
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, _readable(config_file())),
            TomlConfigSettingsSource(settings_cls, endpoints_file(home_directory())),
        )

    @property
    def store_root(self) -> Path:
        """Root of the offline store."""
        return self.alpha_panda_home / "store"

    @property
    def kept_history(self) -> Path:
        """Folder of the bars that sessions stood on."""
        return self.alpha_panda_home / "kept" / "history"

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the promotion ledger."""
        return self.ledger.url.get_secret_value() or f"sqlite:///{(self.alpha_panda_home / 'ledger.sqlite').absolute()}"

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration that decides what is said, stamped in every output's basis.

        That is the market, the strategies, the accounts and the number of market partitions; not where the home, the
        servers and the files are, nor which stored sessions are replayed and how fast. What is in the files has digests
        of its own.
        """
        said = self.model_dump_json(
            include={"market": True, "strategies": True, "trading": True, "kafka": {"market_partitions"}},
            exclude={"market": _DECIDES_NOTHING},
        )
        return hashlib.sha256(said.encode()).hexdigest()


def home_directory() -> Path:
    """``ALPHA_PANDA_HOME``, needed before settings can be read because the running stack's endpoints are kept there."""
    return Path(os.environ.get("ALPHA_PANDA_HOME") or DEFAULT_HOME)


def config_file() -> Path:
    """Path of the settings file, whether it exists or not.

    It is the one that ``ALPHA_PANDA_CONFIG`` names; else the home's own ``alpha-panda.toml`` (a demo writes one), else
    the one of the working directory.
    """
    named = os.environ.get("ALPHA_PANDA_CONFIG")
    of_home = home_directory() / CONFIG_NAME
    return Path(named) if named else of_home if of_home.exists() else Path(CONFIG_NAME)


def _readable(path: Path) -> Path:
    """Give the path back if it can be read, or if it is only the default and not there.

    Raises
    ------
    SettingsFileError
        If it cannot.
    """
    if not path.exists() and not os.environ.get("ALPHA_PANDA_CONFIG"):
        return path
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        named = " (ALPHA_PANDA_CONFIG names it)" if os.environ.get("ALPHA_PANDA_CONFIG") else ""
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8 text"
        raise SettingsFileError(
            f"the settings file {path}{named} cannot be read: {reason}. Correct it, or do without it: every setting "
            "has a default"
        ) from problem
    return path


def endpoints_file(home: Path) -> Path:
    """Where a running stack writes the addresses it chose (TOML, same keys as the settings)."""
    return home / "run" / "endpoints.toml"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` are command-line options.

    Raises
    ------
    pydantic.ValidationError
        Names each wrong key and what was expected.
    live_services.replaced_settings.ReplacedSetting
        A name of an earlier version is used; says what replaced it.
    """
    file = _readable(config_file())
    written = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    refuse_replaced_names(os.environ, written, file)
    return Settings(**overrides)
