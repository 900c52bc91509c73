"""Models change while a session is traded: swaps, refusals, and an announcement that nobody heard."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from live_services.composition import announcer
from live_services.domain.events import (
    Event,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
    SignalGenerated,
    StrategyModelAssigned,
)
from live_services.domain.topics import MODELS_LOADED, MODELS_PROMOTED, MODELS_REFUSED, STRATEGIES_CONTROL
from models_registry.refs import Alias
from models_registry.refusals import GateNotPassed, TamperedModel
from models_registry.registry import Registry
from tests.trading_desk import MODEL, PAPER, RUNNER, STRATEGIES, Desk, OpenDesk, events

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ASKED = 2 * len(STRATEGIES)
"""Who asks the model: each strategy in each of two tasks."""
NEVER = 3600.0
"""Seconds between polls, so that only an announcement is heard."""


class CaughtInBetween(Registry):
    """Changes a file after a promotion has verified it and before the alias moves."""

    def __init__(self, tracking_uri: str, file: Path) -> None:
        super().__init__(tracking_uri)
        self._file = file

    def set_alias(self, name: str, alias: Alias, version: str) -> None:
        flip(self._file)
        super().set_alias(name, alias, version)


def flip(file: Path) -> None:
    value = bytearray(file.read_bytes())
    value[len(value) // 2] ^= 1
    file.write_bytes(bytes(value))


def proposed(desk: Desk, version: str) -> list[SignalGenerated]:
    said = [e for e in desk.events(PAPER.signals_raw) if isinstance(e, SignalGenerated)]
    return [e for e in said if e.model_version == version]


def loaded(desk: Desk, version: str) -> list[Event]:
    return [e for e in desk.events(MODELS_LOADED) if isinstance(e, ModelLoaded) and e.model_version == version]


def refused(desk: Desk, version: str) -> list[ModelRefused]:
    return [e for e in desk.events(MODELS_REFUSED) if isinstance(e, ModelRefused) and e.model_version == version]


def assert_proposals_follow_the_control_records(desk: Desk, versions: Sequence[str]) -> None:
    """Of each strategy on each partition: the assignments in this order, and each proposal by the version before it."""
    said = desk.log()
    for partition, strategy in itertools.product((0, 1), STRATEGIES):
        control = [r for r in said[STRATEGIES_CONTROL.name] if r.partition == partition]
        assigned = [e for e in events(control) if isinstance(e, StrategyModelAssigned) and e.strategy == strategy]
        assert {e.rung for e in assigned} == {"champion"}
        assert [e.model_version for e in assigned] == list(versions)
        assert [e.event_time_ns for e in assigned] == sorted({e.event_time_ns for e in assigned})
        assert assigned[0].event_time_ns == desk.session.open_ns
        raw = events([r for r in said[PAPER.signals_raw.name] if r.partition == partition])
        signals = [e for e in raw if isinstance(e, SignalGenerated) and e.strategy == strategy]
        assert signals
        for signal in signals:
            # A bar that ends at the instant of the swap was decided by the version before.
            standing = [e for e in assigned if e.event_time_ns < signal.event_time_ns][-1]
            assert signal.model_version == standing.model_version
            assert signal.feature_schema_hash == standing.feature_schema_hash


def test_versions_are_swapped_refused_and_found_while_a_session_is_traded(open_desk: OpenDesk) -> None:
    desk, versions = open_desk.desk, open_desk.versions
    first, second, third = versions.champion, versions.successor, versions.failed_gate
    registry, tell = desk.registry, []
    announce = announcer(desk.settings, tell.append)
    tampered = desk.stored_file(third, "flat.npz")
    whole = tampered.read_bytes()
    try:
        with desk.trading(speed=100, poll_seconds=NEVER):
            desk.until(lambda: len(proposed(desk, first)) > 0)

            # A second version is promoted and announced.
            desk.promote(second, announce=announce)
            desk.until(lambda: len(loaded(desk, second)) == ASKED)
            desk.until(lambda: len(proposed(desk, second)) > 0)

            # A version whose gate said no needs an override, and one that was changed is not even promoted.
            with pytest.raises(GateNotPassed, match="did not pass the champion gate"):
                desk.promote(third, override=None)
            flip(tampered)
            with pytest.raises(TamperedModel, match=r"flat\.npz"):
                desk.promote(third)
            tampered.write_bytes(whole)

            # Changed behind the promotion's back it is refused, and what runs goes on.
            desk.promote(third, registry=CaughtInBetween(registry.tracking_uri, tampered), announce=announce)
            desk.until(lambda: len(refused(desk, third)) == ASKED)
            for event in refused(desk, third):
                assert "flat.npz" in event.reason
                assert event.running_version == second
            went_on = len(proposed(desk, second))
            desk.until(lambda: len(proposed(desk, second)) > went_on)

            # A runner that starts now follows the log: the version of before, not the one behind the alias.
            desk.configure(speed=100, poll_seconds=1.0)
            runner = desk.kill(RUNNER)
            went_on = len(proposed(desk, second))
            desk.until(lambda: desk.is_back(RUNNER, runner) and len(proposed(desk, second)) > went_on)

            # An alias that was moved by hand names a version that ran here and passed; it is refused all the same.
            registry.set_alias(MODEL, "champion", first)
            desk.until(lambda: len(refused(desk, first)) == ASKED)
            assert all("ledger" in event.reason for event in refused(desk, first))
            went_on = len(proposed(desk, second))
            desk.until(lambda: len(proposed(desk, second)) > went_on)

            # Nobody announces that it was promoted after all; the poll finds it.
            ran_first = len(proposed(desk, first))
            desk.promote(first)
            desk.until(lambda: len(loaded(desk, first)) == 2 * ASKED)
            desk.until(lambda: len(proposed(desk, first)) > ran_first)

            assert desk.watermark_ns(PAPER.signals_raw) < desk.session.close_ns, "the session was over before the test"
            assert_proposals_follow_the_control_records(desk, (first, second, first))
            announced = [e for e in desk.events(MODELS_PROMOTED) if isinstance(e, ModelPromoted)]
            assert [e.model_version for e in announced] == [second, third]
            assert tell == []
    finally:
        tampered.write_bytes(whole)
        desk.promote(first)  # for the tests behind this one
