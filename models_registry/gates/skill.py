"""The skill gate: whether a version may become champion, as named checks with what they saw and what they asked for.

Pure. *Skill* asks for a ranking better than chance and a likelihood better than the base rate, out of sample, with
clean walk-forward folds and an exact packed form, and warns when the model was trained on bars of another source than
it trades on. It says nothing about profit: the *economics* gate of the ``live`` rung is not built yet, so ``live``
needs a named override.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models_registry.refs import FoldResult, GateCheck, GateResult, bars_in_words
from models_registry.sidecar import Sidecar

if TYPE_CHECKING:
    from models_registry.packing import Parity
    from models_registry.training import TrainedModel

SYNTHETIC = "SYNTHETIC"


@dataclass(frozen=True)
class SkillLimits:
    """What the skill gate asks for."""

    minimum_auc_lower_bound: float = 0.5
    maximum_auc: float = 0.95
    """Nothing ranks next minutes' returns this well; a score that does has seen the label."""
    minimum_test_rows: int = 5_000
    minimum_test_sessions: int = 5


def skill_gate(
    trained: TrainedModel,
    parity: Parity,
    *,
    market: str,
    bar_source: str,
    trades_on: str,
    champion: Sidecar | None = None,
    champion_version: str | None = None,
    limits: SkillLimits | None = None,
) -> GateResult:
    """Judge a trained model for the ``champion`` rung.

    Parameters
    ----------
    trained : TrainedModel
        Walk-forward results, out of fold.
    parity : Parity
        From ``packing.parity``: how the packed model compares with the estimator.
    market : str
        Where the data came from; a champion of another market was measured on something else.
    bar_source : str
        What made the bars that it was trained on, as `TrainingFrame.bar_source` says.
    trades_on : str
        What will make the bars that it decides on, in the same words. Another source is a warning and does not block:
        `feature_store.bars.comparison` says whether the bars themselves differ.
    champion : Sidecar, optional
        The sidecar of the version that holds the alias now.
    champion_version : str, optional
        Its version, for the text, and for ``promote``: another champion by then makes the verdict stale.
    limits : SkillLimits, optional
        What is asked for.
    """
    asked = limits or SkillLimits()
    metrics = trained.metrics
    return GateResult(
        rung="champion",
        judged_against=champion_version,
        checks=(
            _finite(metrics),
            _enough_rows(metrics, asked),
            _no_leak(trained.folds),
            _better_than_chance(metrics, asked),
            _plausible(metrics, asked),
            _better_than_naive(metrics),
            _better_than_champion(metrics, market, champion, champion_version),
            _packed_parity(parity),
            _same_bar_source(bar_source or "unknown", trades_on),
        ),
    )


def _finite(metrics: dict[str, float]) -> GateCheck:
    bad = sorted(name for name, value in metrics.items() if not math.isfinite(value))
    return GateCheck(
        name="finite_metrics",
        passed=not bad and bool(metrics),
        observed="all finite" if not bad else f"not finite: {', '.join(bad)}",
        required="every metric is a number",
    )


def _enough_rows(metrics: dict[str, float], asked: SkillLimits) -> GateCheck:
    rows, sessions = metrics.get("rows", 0.0), metrics.get("test_sessions", 0.0)
    return GateCheck(
        name="enough_test_rows",
        passed=rows >= asked.minimum_test_rows and sessions >= asked.minimum_test_sessions,
        observed=f"{rows:.0f} rows in {sessions:.0f} sessions",
        required=f"≥ {asked.minimum_test_rows} out-of-fold rows in ≥ {asked.minimum_test_sessions} sessions",
    )


def _no_leak(folds: tuple[FoldResult, ...]) -> GateCheck:
    leaking = [fold.fold for fold in folds if fold.train_end_ns > fold.test_start_ns]
    overlapping = [
        after.fold for before, after in itertools.pairwise(folds) if before.test_end_ns > after.test_start_ns
    ]
    observed = "every training label ends before its test begins"
    if leaking:
        observed = f"training labels reach into the test of folds {leaking}"
    elif overlapping:
        observed = f"tests of folds {overlapping} overlap the ones before"
    elif not folds:
        observed = "no folds"
    return GateCheck(
        name="no_leak",
        passed=bool(folds) and not leaking and not overlapping,
        observed=observed,
        required="train end ≤ test start in every fold, tests in order",
    )


def _better_than_chance(metrics: dict[str, float], asked: SkillLimits) -> GateCheck:
    bound = metrics.get("auc_lower_bound", math.nan)
    return GateCheck(
        name="auc_above_chance",
        passed=bound > asked.minimum_auc_lower_bound,
        observed=f"AUC {metrics.get('auc', math.nan):.4f}, 95 % lower bound {bound:.4f}",
        required=f"lower bound > {asked.minimum_auc_lower_bound} (bootstrap-t over sessions, Efron & Tibshirani 1993)",
    )


def _plausible(metrics: dict[str, float], asked: SkillLimits) -> GateCheck:
    observed = metrics.get("auc", math.nan)
    return GateCheck(
        name="auc_plausible",
        passed=observed <= asked.maximum_auc,
        observed=f"AUC {observed:.4f}",
        required=f"≤ {asked.maximum_auc}: a higher one means that a feature has seen the label",
    )


def _better_than_naive(metrics: dict[str, float]) -> GateCheck:
    ours, naive = metrics.get("log_loss", math.nan), metrics.get("naive_log_loss", math.nan)
    return GateCheck(
        name="log_loss_below_naive",
        passed=ours < naive,
        observed=f"log loss {ours:.6f}",
        required=f"< {naive:.6f}, the loss of always saying the training base rate",
    )


def _better_than_champion(
    metrics: dict[str, float], market: str, champion: Sidecar | None, version: str | None
) -> GateCheck:
    name, ours = "auc_above_champion", metrics.get("auc", math.nan)
    observed = f"AUC {ours:.4f} on {market}"
    if champion is None:
        return GateCheck(name=name, passed=True, observed=observed, required="no champion to beat")
    who = f"champion v{version}" if version else "the champion"
    if champion.market != market:
        # Figures of two markets cannot be compared; but invented data must never push out a model of real data.
        generated = market.startswith(SYNTHETIC) and not champion.market.startswith(SYNTHETIC)
        required = f"{who} was measured on {champion.market}: not comparable"
        if generated:
            required += "; generated data does not replace it"
        return GateCheck(name=name, passed=not generated, observed=observed, required=required)
    theirs = champion.metrics.get("auc", math.nan)
    return GateCheck(
        name=name,
        passed=ours > theirs,
        observed=f"{observed}, the same as {who}" if ours == theirs else observed,
        required=f"> {theirs:.4f}, the out-of-fold AUC {who} was registered with",
    )


def _same_bar_source(bar_source: str, trades_on: str) -> GateCheck:
    same = bar_source == trades_on != "unknown"
    return GateCheck(
        name="bar_source",
        passed=same,
        observed=f"trained on {bars_in_words(bar_source)}"
        + ("" if same else f", trades on {bars_in_words(trades_on)}"),
        required=f"{bars_in_words(trades_on)}, as it trades on; another source is a warning: compare the bars",
        blocking=False,
    )


def _packed_parity(parity: Parity) -> GateCheck:
    return GateCheck(
        name="packed_parity",
        passed=parity.holds,
        observed="bit-equal" if parity.bit_equal else f"differs by up to {parity.largest_difference:.3g}",
        required=f"≤ {parity.allowed_difference:g} from the estimator on {parity.rows} rows",
    )
