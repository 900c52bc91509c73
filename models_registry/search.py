"""A small search of hyperparameters that sees no row by which a model is judged; pure.

It looks at the training rows of walk-forward's first fold alone: the sessions of the first block, without those of the
embargo. Every out-of-fold row of `training.train` lies behind them, so that what was chosen has not seen it. Inside the
block an inner walk-forward says how well a try foretells: the weighted log loss of its out-of-fold rows. The lowest is
chosen, the specification as it stands among them. Each try is a look at data: the caller records it as a trial.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models_registry.estimators.families import FAMILIES
from models_registry.estimators.family import Span
from models_registry.specification import StrategySpec
from models_registry.training import Rows, fit_rows, import_estimators, usable_rows
from models_registry.validation.splitters import Fold, NotEnoughSessions, WalkForward, dates_of, sessions_needed
from models_registry.validation.statistics import log_loss
from models_registry.validation.uniqueness import row_weights

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

    from feature_store.offline.training_frames import TrainingFrame

MOST_TRIES: Final = 8
"""More would fit the few sessions of the first block instead of the market."""
_INNER_FOLDS: Final = 2  # three test as many sessions of nine, with half as many fits again
_DRAWN_AT_RANDOM: Final = 4  # tries before the sampler leans on what it was told; Optuna's own 10 would leave it none

Hyperparameters = dict[str, bool | int | float]


@dataclass(frozen=True)
class Try:
    """One set of hyperparameters, and how well it foretold."""

    number: int
    """From 1, which is the specification as it stands."""
    hyperparameters: Hyperparameters
    """Laid over the family's defaults: those of the specification and those that were tried."""
    value: float
    """Weighted log loss in nats of the inner out-of-fold rows; lower is better."""
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """What a search chose, and all that it looked at."""

    chosen: Hyperparameters
    """What the specification's hyperparameters should be; they as they are, if nothing was better or searched."""
    tries: tuple[Try, ...]


def search(
    frame: TrainingFrame,
    spec: StrategySpec,
    *,
    tries: int,
    told: Callable[[str], object],
    clock: Callable[[], float] = time.perf_counter,
) -> SearchResult:
    """Try hyperparameters on the sessions of the first walk-forward training block, and choose the best.

    Equal rows of that block, specification and number of tries give an equal choice, whatever later sessions hold.
    Runs on one thread.

    Parameters
    ----------
    frame : TrainingFrame
        As `training.train` takes it.
    spec : StrategySpec
        Its folds and embargo cut the first block; its own hyperparameters stay as they are, what its family names
        besides is searched.
    tries : int
        Sets to try, at most 8, the specification as it stands among them; 0 searches nothing.
    told : callable
        Hears after each try what it found and how long the rest will take.
    clock : callable
        Seconds that go on evenly, for what a try took.

    Raises
    ------
    ValueError
        For another number of tries.
    UntrainableFrame
        As `training.train`.
    NotEnoughSessions
        If the first block has too few sessions for an inner walk-forward.
    """
    if not 0 <= tries <= MOST_TRIES:
        raise ValueError(f"a search has 0 to {MOST_TRIES} tries, not {tries}")
    if tries == 0:
        return SearchResult(dict(spec.hyperparameters), ())
    from threadpoolctl import threadpool_limits

    import_estimators()
    block, folds = _first_block(usable_rows(frame), spec)
    space = {
        name: span for name, span in FAMILIES[spec.estimator].search_space().items() if name not in spec.hyperparameters
    }
    done: list[Try] = []
    with threadpool_limits(1), _quiet():
        for hyperparameters, tell in _suggested(spec, space, len(block.up), tries):
            begun = clock()
            value = _value(block, folds, spec.model_copy(update={"hyperparameters": hyperparameters}))
            tell(value)
            done.append(Try(len(done) + 1, hyperparameters, value, clock() - begun))
            told(_progress(done, tries if space else 1))
    return SearchResult(_best(done).hyperparameters, tuple(done))


def _best(done: list[Try]) -> Try:
    return min(done, key=lambda one: one.value)  # the earliest of equal ones


def _progress(done: list[Try], tries: int) -> str:
    last, best = done[-1], _best(done)
    left = (tries - last.number) * sum(one.seconds for one in done) / len(done)
    rest = f"about {left:.0f} s left" if last.number < tries else f"chosen: {_words(best)}"
    return f"try {last.number} of {tries} ({_words(last)}): log loss {last.value:.5f}, best {best.value:.5f}; {rest}"


def _words(one: Try) -> str:
    if one.number == 1:
        return "as specified"
    return ", ".join(f"{name} {value}" for name, value in one.hyperparameters.items())


# --- the rows ---------------------------------------------------------------------------------------------------------


def _first_block(rows: Rows, spec: StrategySpec) -> tuple[Rows, tuple[Fold, ...]]:
    """Cut out what the first fold trains on, weigh it by itself, and cut it into folds of its own."""
    outer = _folds(rows, spec.folds, spec.embargo_sessions)[1]
    columns = (field.name for field in dataclasses.fields(Rows) if field.name not in {"weight", "dropped"})
    block = dataclasses.replace(rows, **{name: getattr(rows, name)[outer.train] for name in columns})
    weight = row_weights(block.instrument, block.decision_ns, block.label_end_ns, block.day)
    block = dataclasses.replace(block, weight=weight)
    sessions = len(np.unique(block.day))
    folds = min(_INNER_FOLDS, (sessions - 1) // (1 + spec.embargo_sessions) - 1)
    if folds < 1:
        raise NotEnoughSessions(
            f"the search of {spec.name!r} has the {sessions} sessions that the first fold trains on, at least "
            f"{sessions_needed(1, spec.embargo_sessions)} are needed: give more sessions, fewer folds, or no tries"
        )
    return block, _folds(block, folds, spec.embargo_sessions)[1:]


def _folds(rows: Rows, folds: int, embargo_sessions: int) -> tuple[Fold, ...]:
    return WalkForward(folds, embargo_sessions).split(rows.decision_ns, rows.label_end_ns, rows.day)


def _value(block: Rows, folds: tuple[Fold, ...], spec: StrategySpec) -> float:
    scores = []
    for fold in folds:
        begins, ends = dates_of(fold.test_days[[0, -1]])
        model = fit_rows(spec, block, fold.train, f"the training rows of the search's fold for {begins} to {ends}")
        scores.append(model.score(block, fold.test))
    test = np.concatenate([fold.test for fold in folds])
    return log_loss(np.concatenate(scores), block.up[test], block.weight[test])


# --- what is tried ----------------------------------------------------------------------------------------------------


def _suggested(
    spec: StrategySpec, space: Mapping[str, Span], rows: int, tries: int
) -> Iterator[tuple[Hyperparameters, Callable[[float], object]]]:
    """Give hyperparameters and who hears of their value, one after another; the specification's own come first."""
    study, distributions = _study(spec.seed), {name: _distribution(span) for name, span in space.items()}
    yield dict(spec.hyperparameters), lambda value: _tell_of_own(study, _own(spec, space, rows), distributions, value)
    for _ in range(tries - 1 if space else 0):
        trial = study.ask(distributions)
        tried = {name: _rounded(value) for name, value in trial.params.items()}
        yield spec.hyperparameters | tried, lambda value, trial=trial: study.tell(trial, value)  # type: ignore[misc]


def _study(seed: int) -> Study:
    import optuna

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_DRAWN_AT_RANDOM)
    return optuna.create_study(sampler=sampler, direction="minimize")


def _distribution(span: Span) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(span.low, int) and isinstance(span.high, int):
        return IntDistribution(span.low, span.high, log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


def _own(spec: StrategySpec, space: Mapping[str, Span], rows: int) -> Hyperparameters | None:
    """Give the specification's values of what is searched, or None if one is none that the sampler could draw."""
    family = FAMILIES[spec.estimator]
    values = family.hyperparameters(family.build(spec.seed, rows, spec.hyperparameters))
    within = all(isinstance(values[k], int | float) and span.low <= values[k] <= span.high for k, span in space.items())
    return {name: values[name] for name in space} if within else None


def _tell_of_own(
    study: Study, own: Hyperparameters | None, distributions: dict[str, BaseDistribution], value: float
) -> None:
    from optuna.trial import create_trial

    if own is not None:
        study.add_trial(create_trial(params=own, distributions=distributions, value=value))


def _rounded(value: int | float) -> int | float:
    """Three digits: a person reads them, and a search of eight tries knows no more."""
    return value if isinstance(value, int) else float(f"{value:.3g}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs each try; whoever asked hears by ``told``."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
