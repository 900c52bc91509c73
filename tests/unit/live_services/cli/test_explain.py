from __future__ import annotations

import io
from collections import defaultdict

import pytest
from live_services.domain.engine import EngineConfig, assignments_at_open, run_session
from rich.console import Console

from live_services.cli.explain import BrokenChain, Explanation, UnknownOrder, explain_order, render
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, OrderFilled, OrderSubmitted, topic_of
from live_services.domain.topics import Topic
from models_registry.refs import GateResult
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec
from tests.live_world import SESSION, UNIVERSE, loaded_model, random_walk

MODEL = loaded_model()
EVENTS = run_session(
    random_walk(3, minutes=25, per_minute=20, seed=4),
    SESSION,
    assignments_at_open(SESSION, {"momentum": MODEL}),
    EngineConfig(UNIVERSE, (StrategySpec(name="momentum"),), stamp=Stamp("digest", "c0ffee")),
)
ORDER = next(event for event in EVENTS if isinstance(event, OrderSubmitted))


def sidecar(name: str, version: str, **changes: object) -> Sidecar:
    fields: dict[str, object] = {
        "model_name": name,
        "algorithm": "hist_gradient_boosting",
        "market": "SYNTHETIC test market",
        "bar_clock": "time:60s",
        "feature_schema": (),
        "feature_schema_hash": MODEL.identity.feature_schema_hash,
        "training_data_digest": "feedface" * 8,
        "training_start_ns": SESSION.open_ns,
        "training_end_ns": SESSION.close_ns,
        "training_rows": 1234,
        "label": "forward return",
        "label_horizon_bars": 10,
        "buy_threshold": 0.6,
        "sell_threshold": 0.4,
        "folds": (),
        "metrics": {},
        "gate": GateResult(rung="champion", checks=()),
        "feature_distributions": (),
        "artifact_sha256": {},
        "git_commit": "0123abc",
        "library_versions": {},
        "seed": 1,
        "created_by": "dagster run 42",
        "created_at_ns": SESSION.open_ns,
        "run_url": "http://dagster/runs/42",
    }
    return Sidecar.model_validate(fields | changes)


class Log:
    def __init__(self, events: tuple[Event, ...] = EVENTS, without: str = "") -> None:
        self.topics: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.event_type != without:
                self.topics[topic_of(event).name].append(event)

    def __call__(self, topic: Topic) -> list[Event]:
        return self.topics[topic.name]


def drawn(explanation: Explanation) -> str:
    out = io.StringIO()
    Console(file=out, width=300).print(render(explanation))
    return out.getvalue()


def test_an_order_is_followed_back_to_its_signal_model_and_training_data() -> None:
    found = explain_order(ORDER.order_id, Log(), sidecar)
    assert found.order == ORDER
    assert found.signal.event_id == found.validated.signal_id == ORDER.signal_id
    assert isinstance(found.outcome, OrderFilled)
    assert found.sidecar.training_rows == 1234
    assert found.stages_agree


def test_the_first_characters_of_an_id_are_enough() -> None:
    assert explain_order(ORDER.order_id[:13], Log(), sidecar).order == ORDER


def test_the_tree_shows_every_link() -> None:
    text = drawn(explain_order(ORDER.order_id, Log(), sidecar))
    links = (ORDER.order_id, "filled", "no_pyramiding", "momentum =", "ticks", "version 1", "feedface", "1234 rows")
    for shown in (*links, "http://dagster/runs/42", "0123abc", "c0ffee", "IST"):
        assert shown in text


def test_a_closing_order_says_that_time_closed_it_and_what_had_opened_it() -> None:
    closing = next(e for e in EVENTS if isinstance(e, OrderSubmitted) and e.intent == "close")
    found = explain_order(closing.order_id, Log(), sidecar)
    assert found.opened is not None
    assert (found.opened.intent, found.opened.symbol) == ("open", closing.symbol)
    opened = f"opened at {found.opened.score:.6f} against {found.opened.threshold:.6f}"
    assert f"momentum closed at its horizon of 10 minutes; {opened}" in drawn(found)
    cut_short = found.model_copy(update={"sidecar": sidecar("momentum", "1", label_horizon_bars=30)})
    assert f"closed at the last exit before the session's close; {opened}" in drawn(cut_short)
    assert "closed by time; what opened it is not on the log" in drawn(found.model_copy(update={"opened": None}))


def test_an_order_without_an_end_is_pending() -> None:
    found = explain_order(ORDER.order_id, Log(without="order.filled"), sidecar)
    assert found.outcome is None


def test_an_unknown_order_names_orders_that_there_are() -> None:
    with pytest.raises(UnknownOrder, match="The newest are"):
        explain_order("nope", Log(), sidecar)
    with pytest.raises(UnknownOrder, match="no orders yet"):
        explain_order("nope", Log(()), sidecar)


@pytest.mark.parametrize(
    ("without", "link"), [("signal.validated", "validated signal"), ("signal.generated", "raw signal")]
)
def test_a_broken_chain_names_the_missing_link(without: str, link: str) -> None:
    with pytest.raises(BrokenChain) as caught:
        explain_order(ORDER.order_id, Log(without=without), sidecar)
    assert caught.value.link == link


def test_a_sidecar_that_is_gone_or_of_another_registry_is_a_broken_chain() -> None:
    def gone(name: str, version: str) -> Sidecar:
        raise LookupError("no such version")

    for source in (gone, lambda name, version: sidecar(name, version, feature_schema_hash="other")):
        with pytest.raises(BrokenChain, match="sidecar"):
            explain_order(ORDER.order_id, Log(), source)
