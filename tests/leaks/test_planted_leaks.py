"""Every planted leak is caught and called by its kind; nothing honest is accused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from feature_store.features.guards import TableFeature
from feature_store.features.library import DECLARED
from feature_store.market.types import MissingColumn
from feature_store.proposals.rules import RULES
from live_services.audit.chains import StrategyChain, own_chain
from live_services.audit.decisions import fills_follow_decisions, reads_no_table
from live_services.audit.findings import AuditReport, LeakKind
from live_services.audit.look_ahead import look_ahead
from tests.account_world import limits
from tests.feature_markets import feature_market
from tests.leaks import planted_in_frames as frames
from tests.leaks import planted_in_knowledge as knowledge
from tests.leaks import planted_in_versions as versions
from tests.live_world import SESSION

SEEDS = (3, 11)
BEFORE, WITHIN = dt.date(2026, 1, 19), dt.date(2026, 1, 12)


def audited(chain: frames.Planted, seed: int, every_bar: bool = False) -> AuditReport:
    market = feature_market(seed, stocks=1, sessions=3, bars_per_session=40)
    ends = np.unique(market.bars.end_ns)[20:]
    cuts = ends if every_bar else np.random.default_rng(seed).permutation(ends)[:24]
    made = own_chain(market.universe, chain.features, bars_of=chain.bars_of, rule=chain.rule, score=chain.score)
    return look_ahead(made, market.bars, market.universe, cuts=cuts, perturbations=3, seed=seed)


# --- in features, bars, rules and scores ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", frames.PLANTED)
def test_a_leak_in_a_frame_is_named_by_its_kind_where_it_is(name: str) -> None:
    planted = frames.PLANTED[name]
    report = audited(planted, seed=3, every_bar=planted.kind is LeakKind.SPARSE_LEAK)
    assert report.verdict == "leaks"
    assert report.kinds() == {planted.kind}
    assert {one.stage for one in report.findings} == {planted.stage}
    found = next(one for one in report.findings if one.column == planted.column)
    assert found.symbol
    assert found.time_ns is not None
    assert found.with_future != found.without_future
    assert found.way_out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "chain",
    [
        frames.Planted(LeakKind.SPARSE_LEAK, "", "", features=frames.HONEST | {"late": frames.late_resample}),
        frames.Planted(LeakKind.SPARSE_LEAK, "", "", bars_of=frames.whole_bars_of_five),
        frames.Planted(LeakKind.SPARSE_LEAK, "", "", rule=frames.honest_entry, score=frames.honest_score),
    ],
    ids=["features", "longer bars", "rule and score"],
)
def test_honest_frames_are_not_accused(chain: frames.Planted, seed: int) -> None:
    report = audited(chain, seed)
    assert report.passed, report.findings


def test_what_reads_a_leak_is_not_accused_of_it_but_the_leak_is() -> None:
    features: dict[str, TableFeature] = {"z": lambda f: (f.close - f.close.mean()) / f.close.std()}
    chain = frames.Planted(LeakKind.SPARSE_LEAK, "", "", features=features, rule=frames.honest_entry)
    report = audited(chain, seed=3)
    assert [(one.kind, one.stage) for one in report.findings] == [(LeakKind.FULL_SAMPLE_STATISTIC, "features")]


def test_another_answer_every_time_is_no_look_ahead() -> None:
    noise: dict[str, TableFeature] = {"noise": lambda f: f.close + np.random.default_rng().random(len(f))}
    report = audited(frames.Planted(LeakKind.SPARSE_LEAK, "", "", features=noise), seed=3)
    assert report.kinds() == {LeakKind.NOT_REPEATABLE}


def test_a_value_that_counts_from_the_first_row_depends_on_where_the_data_begins() -> None:
    market = feature_market(3, stocks=1, sessions=3, bars_per_session=40)
    later = int(market.bars.start_ns[len(market.bars) // 2])
    counted: dict[str, TableFeature] = {"so far": lambda f: f.close.expanding().mean()}
    chain = own_chain(market.universe, counted)
    ends = np.unique(market.bars.end_ns)[20::10]
    assert look_ahead(chain, market.bars, market.universe, cuts=ends).passed
    report = look_ahead(chain, market.bars, market.universe, cuts=ends, later_starts=[later])
    assert report.kinds() == {LeakKind.DEPENDS_ON_START}


def test_without_a_bar_after_a_decision_nothing_is_passed() -> None:
    market = feature_market(3, stocks=1, sessions=1, bars_per_session=5)
    report = look_ahead(own_chain(market.universe, frames.HONEST), market.bars, market.universe)
    assert report.verdict == "too_few"
    assert not report.passed


# --- in labels, folds, fits, choices, side tables, versions and rules -------------------------------------------------

KNOWLEDGE: dict[str, tuple[LeakKind, Callable[[int], AuditReport]]] = {
    "label that reads past its stated end": (
        LeakKind.LABEL_OVERLAPS_TEST, lambda seed: knowledge.label_audit(seed, knowledge.shifted_label)
    ),
    "label that enters at the decision bar": (
        LeakKind.LABEL_BEGINS_EARLY, lambda seed: knowledge.label_audit(seed, knowledge.label_from_the_bar_itself)
    ),
    "folds without a purge": (
        LeakKind.LABEL_OVERLAPS_TEST, lambda seed: knowledge.folds_audit(seed, knowledge.without_purge)
    ),
    "folds without the embargo that was asked for": (
        LeakKind.LABEL_OVERLAPS_TEST,
        lambda seed: knowledge.folds_audit(seed, knowledge.without_embargo),
    ),
    "scaler fitted on all rows": (
        LeakKind.MODEL_SAW_TEST, lambda seed: knowledge.fit_audit(seed, knowledge.scaled_on_all_rows)
    ),
    "folds tested by the model of all rows": (
        LeakKind.MODEL_SAW_TEST, lambda seed: knowledge.fit_audit(seed, knowledge.tested_by_the_model_of_all_rows)
    ),
    "thresholds from the scores they judge": (
        LeakKind.CHOSEN_ON_TEST, lambda seed: knowledge.fit_audit(seed, knowledge.thresholds_of_the_test)
    ),
    "the best candidate of all sessions": (
        LeakKind.CHOSEN_ON_TEST, lambda seed: knowledge.choice_audit(seed, knowledge.best_of_all_sessions)
    ),
    "side table joined by what it is about": (
        LeakKind.SIDE_TABLE_KNOWN_LATER, lambda seed: knowledge.side_audit(seed, knowledge.joined_by_quarter)
    ),
    "model that trades its training span": (
        LeakKind.MODEL_SAW_TEST, lambda seed: knowledge.version_audit(WITHIN)
    ),
    "sidecar whose training ends later than it says": (
        LeakKind.TRAINING_END_UNTRUE,
        lambda seed: knowledge.version_audit(BEFORE, knowledge.says_that_it_ends_earlier(4)),
    ),
    "rule that reads a remembered day": (
        LeakKind.READS_TABLE, lambda seed: knowledge.rule_audit(knowledge.remembered_day)
    ),
    "feature that reads statistics of all data": (
        LeakKind.READS_TABLE, lambda seed: knowledge.feature_audit(knowledge.standardised_by_all_data)
    ),
}  # fmt: skip
HONEST: dict[str, Callable[[int], AuditReport]] = {
    "label": knowledge.label_audit,
    "label with its true end": lambda seed: knowledge.label_audit(seed, knowledge.label_with_its_true_end),
    "walk-forward with its embargo": lambda seed: knowledge.folds_audit(seed, knowledge.walked),
    "combinatorial folds": lambda seed: knowledge.folds_audit(seed, knowledge.combined),
    "fit": knowledge.fit_audit,
    "fit with a search": lambda seed: knowledge.fit_audit(seed, knowledge.searched_fit),
    "fit of a forest": lambda seed: knowledge.fit_audit(seed, knowledge.forest_fit),
    "the best candidate so far": lambda seed: knowledge.choice_audit(seed, knowledge.best_so_far),
    "side table joined as known": lambda seed: knowledge.side_audit(seed, knowledge.joined_as_known),
    "version older than what it trades": lambda seed: knowledge.version_audit(BEFORE),
    "rule of numbers": lambda seed: knowledge.rule_audit(knowledge.honest_rule),
}


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_a_leak_in_what_is_learned_is_named_by_its_kind(name: str) -> None:
    kind, audit = KNOWLEDGE[name]
    report = audit(SEEDS[0])
    assert report.verdict == "leaks"
    assert report.kinds() == {kind}
    assert all(one.what and one.way_out for one in report.findings)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", HONEST)
def test_what_is_learned_honestly_is_not_accused(name: str, seed: int) -> None:
    report = HONEST[name](seed)
    assert report.passed, report.findings


def test_every_feature_and_rule_of_the_platform_reads_no_table() -> None:
    for spec, function in DECLARED:
        assert reads_no_table(spec.name, function, "features").passed
    for rule in RULES.values():
        assert reads_no_table(rule.name, rule.function, "proposals").passed


def test_a_side_table_without_times_is_refused() -> None:
    decisions, reports = knowledge.decisions_and_reports(3)
    with pytest.raises(MissingColumn, match="available_at"):
        knowledge.side_audit_of(decisions, reports.drop(columns="available_at"))


def test_an_embargo_that_is_not_kept_is_found() -> None:
    asked = {"fold_parameters": {"embargo_sessions": 2}}
    embargoed = knowledge.version().model_copy(update=asked | {"folds": ()})
    stored = [str(date.date()) for date in pd.date_range("2026-01-05", "2026-01-20")]
    near, far = (knowledge.version_audit(day, embargoed, stored) for day in (dt.date(2026, 1, 18), BEFORE))
    assert near.kinds() == {LeakKind.LABEL_OVERLAPS_TEST}
    assert far.passed
    folds = knowledge.version_audit(BEFORE, knowledge.version().model_copy(update=asked), stored)
    assert [one.column for one in folds.findings] == [f"fold {one.fold}" for one in knowledge.version().folds]


# --- in versions and fills --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spec", versions.STRATEGIES, ids=lambda spec: spec.name)
def test_an_honest_strategy_passes_with_orders_and_all(spec: versions.StrategySpec, seed: int) -> None:
    report = versions.audited(spec, versions.Honest(), seed, minutes=200 if spec.judged else 60)
    assert report.passed, (report.findings, report.too_few)
    assert all(report.compared.values()), report.compared
    assert report.counts["fills"] > 0


def test_scores_that_are_ranks_in_a_batch_look_ahead() -> None:
    report = versions.audited(versions.STRATEGIES[0], versions.RankedInTheBatch(), 3, minutes=60)
    assert report.kinds() == {LeakKind.SCORE_LOOKS_AHEAD, LeakKind.BATCH_DIFFERS}


def test_a_model_that_remembers_is_named_as_one() -> None:
    report = versions.audited(versions.STRATEGIES[0], versions.RemembersItsCalls(), 3, minutes=60)
    assert LeakKind.NOT_REPEATABLE in report.kinds()


def test_a_version_that_was_trained_on_the_session_is_found_though_nothing_else_leaks() -> None:
    spec = versions.STRATEGIES[0]
    during = versions.trained_until(SESSION.open_ns + 1, knowledge.version())
    report = versions.audited(spec, versions.Honest(), 3, minutes=60, sidecar=during)
    assert report.kinds() == {LeakKind.MODEL_SAW_TEST}


def test_few_decisions_are_a_verdict_of_their_own() -> None:
    rarely = versions.STRATEGIES[2].model_copy(update={"rule_parameters": {"threshold": 3.5}})
    report = versions.audited(rarely, versions.Honest(), 3, minutes=60)
    assert report.verdict == "too_few"
    assert "decisions in 1 sessions" in report.too_few[0]


def test_a_fill_at_the_close_that_was_decided_on_is_no_fill() -> None:
    spec = versions.STRATEGIES[0]
    chain = StrategyChain(spec, versions.session(spec, versions.Honest(), 3, 60), limits())
    events = chain.events(chain.over.bars)
    assert fills_follow_decisions(events).passed
    early = fills_follow_decisions(versions.filled_at_the_close_that_was_decided_on(events))
    assert early.kinds() == {LeakKind.FILL_BEFORE_DECISION}
