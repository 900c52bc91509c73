"""What assets, sensors and jobs are handed: the offline store, the registry, the ledger, the announcer, the settings.

Environments differ in this table only. Nothing connects before it is used. What may hold a password (ledger URL, Kafka)
is a plain object, because the UI shows the configuration of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.failures import expected_failures
from live_services.settings import KafkaSettings

if TYPE_CHECKING:
    from feature_store.offline.store import OfflineStore
    from models_registry.ledger import PromotionLedger
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry
    from models_registry.trials import TrialTable


@dataclass(frozen=True)
class OfflineStoreResource:
    """Market data, bars and features as Parquet files, one per session."""

    root: str

    def store(self) -> OfflineStore:
        """Open the store."""
        from feature_store.offline.store import OfflineStore

        return OfflineStore(Path(self.root))


@dataclass(frozen=True)
class MlflowResource:
    """The model registry; dagster-mlflow would hold pandas back to 2.3."""

    tracking_uri: str

    def registry(self) -> Registry:
        """Open the registry.

        Raises
        ------
        dagster.Failure
            If no address is set.
        """
        from models_registry.registry import Registry

        if not self.tracking_uri:
            raise dg.Failure(
                "No MLflow server is set: start everything with `alpha-panda up`, or name a server of your own in "
                "MLFLOW__TRACKING_URI or under [mlflow] in alpha-panda.toml, then reload this code location.",
                allow_retries=False,
            )
        with expected_failures(ValueError):
            return Registry(self.tracking_uri)


@dataclass(frozen=True)
class LedgerResource:
    """The append-only promotion ledger, and the table of trials beside it."""

    url: str

    def ledger(self) -> PromotionLedger:
        """Open the ledger, and create its file where it is a file."""
        from models_registry.ledger import PromotionLedger

        return PromotionLedger(self.url)

    def trials(self) -> TrialTable:
        """Open the table of trials beside it."""
        from models_registry.trials import TrialTable

        return TrialTable(self.url)


@dataclass(frozen=True)
class PromotionAnnouncer:
    """Tells the live side that an alias moved. A nudge: live services poll the ledger anyway."""

    kafka: KafkaSettings

    def announce(self, record: PromotionRecord) -> str | None:
        """Publish ``models.promoted``; give the reason if Kafka is absent or silent, None if it was published."""
        from live_services.adapters.promotions import announce_promotion

        return announce_promotion(self.kafka, record)

    def logging_to(self, log: Logger) -> Callable[[PromotionRecord], None]:
        """Give what announces, and says in a log if it could not."""

        def announce(record: PromotionRecord) -> None:
            why_not = self.announce(record)
            if why_not is not None:
                log.warning(
                    f"models.promoted was not published ({why_not}). The promotion stands: live services find it by "
                    "their own poll."
                )

        return announce
