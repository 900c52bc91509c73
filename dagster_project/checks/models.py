"""What is checked of each model's training set and of the fitted model; all of it stops the run."""

from typing import Any

import dagster as dg

from dagster_project.candidates import Candidate
from dagster_project.checks.results import check_result, nothing_to_look_at
from dagster_project.desk import Desk
from dagster_project.failures import expected_failures
from dagster_project.model_keys import ModelKeys
from dagster_project.resources import OfflineStoreResource
from feature_store.market.types import MarketDataError, ist_text
from live_services.settings import Settings


def model_checks(keys: ModelKeys) -> tuple[dg.AssetChecksDefinition, ...]:
    """Make the checks of one model."""
    return _labels_end_before_replay(keys), _training_ends_before_replay(keys), _packed_model_equals_trained(keys)


def _labels_end_before_replay(keys: ModelKeys) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=keys.training_set,
        blocking=True,
        description="Labels end after their decision, the same day, before the held-out session opens.",
    )
    def labels_end_before_replay(
        settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource], frame: Any
    ) -> dg.AssetCheckResult:
        """Check every label of the training set."""
        from feature_store.labels.quality import labels_end_in_time

        with expected_failures(MarketDataError):
            held_out = Desk(offline.store(), settings).held_out_session()
        opens = held_out.open_ns if held_out else None
        return check_result(labels_end_in_time(frame.decision_ns, frame.label_end_ns, opens))

    return labels_end_before_replay


def _training_ends_before_replay(keys: ModelKeys) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=keys.fitted,
        blocking=True,
        description="No training row knows anything of the session that is held out for the replay.",
    )
    def training_ends_before_replay(
        settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource], candidate: Candidate
    ) -> dg.AssetCheckResult:
        """Compare the last label's end with the open of the session that is held out."""
        with expected_failures(MarketDataError):
            held_out = Desk(offline.store(), settings).held_out_session()
        end_ns = candidate.trained.training_end_ns
        if held_out is None:
            return nothing_to_look_at(
                f"trained to {ist_text(end_ns)}, and no session is held out (market.replay_session); a model that "
                "knows a session is refused when that one is replayed"
            )
        return dg.AssetCheckResult(
            passed=end_ns <= held_out.open_ns,
            description=f"trained to {ist_text(end_ns)}; held out: {held_out.date}",
        )

    return training_ends_before_replay


def _packed_model_equals_trained(keys: ModelKeys) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=keys.fitted,
        blocking=True,
        description="The packed model that live code runs says what the trained one says.",
    )
    def packed_model_equals_trained(candidate: Candidate) -> dg.AssetCheckResult:
        """Read the parity that was measured when the model was packed."""
        parity = candidate.parity
        return dg.AssetCheckResult(
            passed=parity.holds,
            description=f"{parity.rows:,} rows, largest difference {parity.largest_difference:.3g}",
            metadata={"allowed_difference": parity.allowed_difference, "bit_equal": parity.bit_equal},
        )

    return packed_model_equals_trained
