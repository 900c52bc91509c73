from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from models_registry.gates.champion import compare_in_folds, compare_on_later_rows, settled
from models_registry.sidecar import DataLineage, Sidecar
from models_registry.training import OutOfFold
from tests.models_registry_frames import sidecar, spec, trained

THROUGH = "2026-01-16"
LATER = "2026-01-19"
INSTRUMENTS = trained().instruments


def lineage(generated: bool = True, through: str = THROUGH, changed: str = "") -> DataLineage:
    """The sessions of the champion, and one more where ``through`` is later; ``changed`` has other bars."""
    sessions = dict(trained().lineage.sessions)
    sessions |= {through: sessions.get(through, "e" * 64)} | ({changed: "f" * 64} if changed else {})
    return DataLineage(generated=generated, sessions=sessions)


def champion(**changes: Any) -> Sidecar:
    return sidecar().model_copy(update=changes)


def real(one: Sidecar) -> Sidecar:
    assert one.lineage is not None
    return one.model_copy(
        update={"market": "files nse.parquet", "lineage": one.lineage.model_copy(update={"generated": False})}
    )


def elsewhere(share: float, generated: bool = True) -> DataLineage:
    """The champion's dates, of which so many have other bars."""
    sessions = dict(trained().lineage.sessions)
    changed = dict.fromkeys(sorted(sessions)[: round(share * len(sessions))], "f" * 64)
    return DataLineage(generated=generated, sessions=sessions | changed)


def outcome(one: Sidecar | None, found: DataLineage, **changes: Any) -> str | None:
    known = settled(one, "3", spec(**changes), found, INSTRUMENTS)
    return known.outcome if known else None


def test_without_a_champion_there_is_nothing_to_beat() -> None:
    assert outcome(None, lineage()) == "nothing_to_beat"


def test_the_same_recipe_trained_to_a_later_session_has_nothing_to_beat_and_the_verdict_says_so() -> None:
    known = settled(champion(), "3", spec(), lineage(through=LATER), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"
    assert known.how == (
        "the same recipe as champion v3, trained to 2026-01-19 instead of 2026-01-16: the skill checks decide"
    )


def test_sessions_whose_bars_are_others_now_are_counted() -> None:
    known = settled(champion(), "3", spec(), lineage(through=LATER, changed="2026-01-06"), INSTRUMENTS)
    assert known is not None
    assert known.how == (
        "the same recipe as champion v3, trained to 2026-01-19 instead of 2026-01-16, with other bars now in 1 of the "
        "sessions that it was trained on: the skill checks decide"
    )


def test_corrected_bars_of_the_same_days_are_something_new() -> None:
    assert outcome(champion(), lineage(changed="2026-01-06")) == "nothing_to_beat"


@pytest.mark.parametrize(
    "changes", [{"folds": 3}, {"embargo_sessions": 1}, {"buy_quantile": 0.9}, {"sell_quantile": 0.1}]
)
def test_what_does_not_change_the_fit_is_the_same_recipe_and_the_verdict_says_what_it_is(
    changes: dict[str, Any],
) -> None:
    known = settled(champion(), "3", spec(**changes), lineage(), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"
    assert known.how == f"the same recipe as champion v3, with other {next(iter(changes))}: the skill checks decide"


def test_a_feature_of_a_newer_version_is_the_same_recipe_and_the_verdict_says_so() -> None:
    known = settled(champion(recipe_digest="f" * 64), "3", spec(), lineage(), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"
    assert "the same recipe as champion v3, with newer versions of its features" in known.how


def test_the_same_recipe_trained_no_further_is_nothing_new() -> None:
    assert outcome(champion(), lineage()) == "not_better"


@pytest.mark.parametrize("market", ["SYNTHETIC test", "minute_2024-04.parquet"])
def test_the_name_of_a_file_decides_nothing(market: str) -> None:
    renamed = champion(market=market)
    assert outcome(renamed, lineage()) == "not_better"
    assert outcome(renamed, lineage(through=LATER), seed=2) is None  # another recipe must be compared


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"features": ("rsi",)}, {"hyperparameters": {"max_iter": 50}}, {"instruments": ("A",)}]
)
def test_another_recipe_must_be_compared(changes: dict[str, Any]) -> None:
    assert outcome(champion(), lineage(through=LATER), **changes) is None


VERSION_1: dict[str, Any] = {
    "recipe_digest": "",
    "specification": {},
    "label_identity": {},
    "lineage": None,
    "train_through": "",
    "instruments": (),
}


@pytest.mark.parametrize("changes", [{}, VERSION_1])
def test_a_champion_of_another_label_is_not_loaded_and_nothing_to_beat(changes: dict[str, Any]) -> None:
    known = settled(champion(**changes), "3", spec(holding_bars=5), lineage(), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"
    assert "something else than this strategy trades (horizon_bars is 10 there and 5 here)" in known.how


def test_a_version_1_champion_on_another_clock_has_another_label() -> None:
    known = settled(champion(**VERSION_1, bar_clock="time:300s"), "3", spec(), lineage(), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"


def test_a_champion_of_version_1_must_be_compared() -> None:
    assert outcome(champion(**VERSION_1), lineage()) is None


def test_generated_data_never_replaces_a_model_of_real_data() -> None:
    assert outcome(real(champion()), lineage(through=LATER)) == "not_better"
    older = real(champion()).model_copy(update={"lineage": None})
    assert outcome(older, lineage(through=LATER)) == "not_better"


def test_real_data_replaces_a_model_of_generated_data_without_a_comparison() -> None:
    assert outcome(champion(), lineage(generated=False)) == "nothing_to_beat"


# --- another market ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2], ids=["same recipe", "another recipe"])
def test_a_champion_of_a_market_of_another_seed_is_nothing_to_beat_and_the_verdict_says_so(seed: int) -> None:
    known = settled(champion(), "3", spec(seed=seed), elsewhere(1.0), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"
    assert known.how == (
        "champion v3 is of another market, with other bars in 12 of 12 sessions: the skill checks decide"
    )


@pytest.mark.parametrize(("share", "found"), [(0.25, None), (0.5, "nothing_to_beat"), (0.75, "nothing_to_beat")])
def test_another_recipe_is_compared_as_long_as_most_of_the_shared_sessions_are_equal(
    share: float, found: str | None
) -> None:
    assert outcome(champion(), elsewhere(share), seed=2) == found


def test_a_champion_of_none_of_these_instruments_is_of_another_market() -> None:
    known = settled(champion(instruments=("ELSE",)), "3", spec(), lineage(), INSTRUMENTS)
    assert known is not None
    assert known.outcome == "nothing_to_beat"
    assert "is of another market, with none of these instruments" in known.how


def test_without_a_shared_date_the_instruments_tell_whether_the_market_is_another() -> None:
    dates = DataLineage(generated=True, sessions={"2026-03-02": "a" * 64})
    assert outcome(champion(), dates, seed=2) is None
    assert outcome(champion(instruments=(INSTRUMENTS[0], "ELSE", "WHERE")), dates, seed=2) == "nothing_to_beat"


def test_generated_data_of_another_market_does_not_replace_real_data_either() -> None:
    assert outcome(real(champion(instruments=("ELSE",))), elsewhere(1.0)) == "not_better"


# --- comparing scores ---------------------------------------------------------------------------------------------


def rows(skill: float, sessions: int = 12, seed: int = 0) -> OutOfFold:
    """Decisions of a market that is the same for every skill, scored with so much of it."""
    n = sessions * 200
    up = (np.random.default_rng(5).random(n) < 0.5).astype(np.float64)
    noise = np.random.default_rng([seed, 9]).normal(size=n)
    day = np.repeat(np.arange(20_000, 20_000 + sessions), 200)
    decision_ns = day * 86_400_000_000_000 + np.tile(np.repeat(np.arange(50), 4), sessions) * 60_000_000_000
    return OutOfFold(
        score=1.0 / (1.0 + np.exp(-(skill * (up - 0.5) + 0.3 * noise))),
        up=up,
        forward_return=(up - 0.5) * 1e-3,
        side=np.ones(n, dtype=np.int8),
        decision_ns=decision_ns,
        label_end_ns=decision_ns + 600_000_000_000,
        instrument=np.tile(np.arange(4, dtype=np.int32), 50 * sessions),
        day=day,
        weight=np.ones(n),
        base_rate=np.full(n, 0.5),
        gain=(up - 0.5) * np.where(np.arange(n) % 2, 2.0, 1.0),
        base_gain=np.zeros(n),
        fold=np.ones(n, dtype=np.int64),
    )


def test_a_better_recipe_is_seen_and_a_worse_one_is_not() -> None:
    better = compare_in_folds(rows(0.6), rows(0.2, seed=1), "3")
    assert better.outcome == "compared"
    assert better.lower_bound > 0.0
    assert (better.rows, better.sessions) == (2_400, 12)
    assert compare_in_folds(rows(0.2), rows(0.6, seed=1), "3").lower_bound < 0.0


def test_equal_scores_are_not_better() -> None:
    same = compare_in_folds(rows(0.4), rows(0.4), "3")
    assert same.improvement == 0.0
    assert not same.lower_bound > 0.0


def test_only_decisions_that_both_made_are_compared_whatever_their_order() -> None:
    theirs = rows(0.2, seed=1)
    some = theirs.part(np.random.default_rng(0).permutation(len(theirs.score))[:1_000])
    found = compare_in_folds(rows(0.6), some, "3")
    assert found.rows == 1_000
    assert found == compare_in_folds(rows(0.6), some.part(np.lexsort((some.instrument, some.decision_ns))), "3")


def test_without_a_decision_in_common_nothing_is_compared() -> None:
    theirs = rows(0.2)
    elsewhere = dataclasses.replace(theirs, instrument=theirs.instrument + np.int32(10))
    assert compare_in_folds(rows(0.6), elsewhere, "3").outcome == "not_comparable"


def later(trained_through_day: int, embargo_sessions: int = 0) -> Any:
    return compare_on_later_rows(
        rows(0.6),
        rows(0.2, seed=1),
        "3",
        trained_through_day=trained_through_day,
        embargo_sessions=embargo_sessions,
        minimum_sessions=5,
    )


def test_a_registered_model_is_compared_on_sessions_later_than_its_training() -> None:
    found = later(20_003)
    assert (found.outcome, found.sessions, found.rows) == ("compared", 8, 1_600)
    assert later(20_003, embargo_sessions=2).sessions == 6


def test_too_few_later_sessions_cannot_be_compared_and_the_way_out_is_said() -> None:
    found = later(20_006, embargo_sessions=1)
    assert found.outcome == "not_comparable"
    assert "4 sessions of the test are later than its training, at least 5 are needed" in found.how
