"""Sections of the settings that say how a desk is run: what is checked, watched, logged, traced and restarted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from live_services.domain.histograms import checked_buckets

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
Environment = Literal["development", "testing", "production"]
"""Which policy preflight follows; real money always follows production's."""


class Section(BaseModel):
    """A part of the settings: frozen, and with no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PreflightSettings(Section):
    """Below which a machine is not fit to run a desk."""

    min_free_disk_mb: int = Field(default=1024, ge=1)
    min_free_memory_mb: int = Field(default=512, ge=1)
    max_clock_skew_ms: int = Field(default=2000, ge=1)
    """Between this machine's clock and the Kafka broker's."""


class MonitoringSettings(Section):
    """Metrics, and what the pipeline validator calls late, behind or stuck."""

    prometheus_buckets: dict[str, tuple[Annotated[float, Field(gt=0)], ...]] = {}
    """Upper bounds of a histogram's buckets by its name, ascending, in its unit; others have their defaults."""
    interval_seconds: float = Field(default=5.0, gt=0)
    """Between two looks of the pipeline validator."""
    no_recent_data_seconds: float = Field(default=30.0, gt=0)
    high_latency_ms: float = Field(default=1000.0, gt=0)
    consumer_lag_records: int = Field(default=5000, ge=1)
    stuck_seconds: float = Field(default=60.0, gt=0)

    @field_validator("prometheus_buckets")
    @classmethod
    def _of_histograms_that_exist(cls, value: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        checked_buckets(value)
        return value


class LoggingSettings(Section):
    """Log files of the channels, in ``{home}/logs``."""

    level: Level = "INFO"
    max_mb: int = Field(default=20, ge=1)
    """At which a channel's file is rotated."""
    backups: int = Field(default=5, ge=0)
    third_party_seconds: float = Field(default=1.0, ge=0)
    """The same line of a library is written at most once in so many seconds."""


class TracingSettings(Section):
    """OpenTelemetry; off, it costs nothing."""

    enabled: bool = False
    endpoint: str = Field(default="http://127.0.0.1:4318/v1/traces", pattern=r"^https?://")
    """OTLP over HTTP."""
    sample_ratio: float = Field(default=0.05, ge=0, le=1)
    """Share of the market's frames that are traced, each with every proposal and order that comes of it."""


class ProcessesSettings(Section):
    """How processes are brought back."""

    restart_limit: int = Field(default=5, ge=0)
    """So many restarts in a row, without anything committed in between, are tried before a process stays down."""
    backoff_seconds: float = Field(default=1.0, gt=0)
    """Before the first restart; doubled with each further one."""
    backoff_max_seconds: float = Field(default=60.0, gt=0)
    stall_seconds: float = Field(default=30.0, gt=0)
    """A process whose loop has not turned for so long ends itself."""


class DeadLettersSettings(Section):
    """When records that cannot be handled stop a stage."""

    flood_letters: int = Field(default=100, ge=1)
    """So many within ``flood_seconds`` of event time halt the stage."""
    flood_seconds: float = Field(default=60.0, gt=0)
