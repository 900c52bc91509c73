"""The evidence on leaks, of a model that was just trained; `validation.plausibility` says what is asked. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.market.types import MINUTE_NS
from models_registry.flat import load_flat
from models_registry.validation.pairing import paired_rows
from models_registry.validation.plausibility import Plausibility, plausibility

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.training import TrainedModel


def plausibility_of(trained: TrainedModel, frame: TrainingFrame) -> Plausibility:
    """Look whether the skill of a model looks like a leak; ``frame`` is what it was just trained on."""
    width = len(frame.schema.names)
    rows, of_frame = paired_rows(trained.oof.decision_ns, trained.oof.instrument, frame.decision_ns, frame.instrument)
    return plausibility(
        trained.oof.part(rows),
        frame.X[of_frame],
        frame.schema.names,
        {fold.number: load_flat(fold.arrays, fold.algorithm, width) for fold in trained.fold_models},
        bar_ns=trained.spec.bar_minutes * MINUTE_NS,
        seed=trained.spec.seed,
        events=trained.spec.judged,
    )
