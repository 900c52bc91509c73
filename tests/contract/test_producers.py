"""What may write to Kafka and Redis, and how: read from the sources and from the declarations themselves."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic_core import PydanticUndefined

from live_services import services
from live_services.composition import SERVICES
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    EVENT_CLASSES,
    DeadLetter,
    Event,
    FeatureSkewMeasured,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
    OrderCancelled,
    OrderRejected,
    OrderSubmitted,
    SignalRejected,
    StrategyHistoryUsed,
    StrategyModelAssigned,
    Watermark,
    event_id,
    topic_of,
)
from live_services.domain.frames import FRAME_TOPICS, encode_tick_frame
from live_services.domain.log import TaskId
from live_services.domain.topics import (
    BROKERS,
    MARKET_TICKS,
    Topic,
    all_topics,
    broker_topics,
    consumer_group,
    transactional_id,
)
from live_services.runtime.merge import Source
from live_services.runtime.service import Service
from live_services.runtime.task import Received, TaskRun
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import PortfolioManager
from live_services.services.risk_manager import RiskManager
from live_services.settings import RiskSettings
from models_registry.specification import Broker
from tests.live_world import SESSION, UNIVERSE, filled, signal, snapshot, ticks, validated

ROOT = Path(__file__).parents[2]
PACKAGES = ("feature_store", "models_registry", "live_services", "dagster_project")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
KAFKA_ADAPTER = ROOT / "live_services" / "adapters" / "kafka.py"
RUNTIME = ROOT / "live_services" / "runtime" / "loop.py"
KEYS = ROOT / "live_services" / "domain" / "keys.py"


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def named(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.Call) and named(n.func) in names)


def places(*names: str) -> set[tuple[Path, str]]:
    """Files and innermost functions in which something of that name is called."""
    return {(path, where) for path in SOURCES for where in callers(parsed(path), "module", names)}


def callers(node: ast.AST, inside: str, names: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = node.name
    if isinstance(node, ast.Call) and named(node.func) in names:
        yield inside
    for child in ast.iter_child_nodes(node):
        yield from callers(child, inside, names)


# --- who writes to Kafka ------------------------------------------------------------------------------------------


def test_records_are_sent_in_two_functions_of_the_kafka_adapter_only() -> None:
    senders = {(path, name) for path, name in places("send", "send_and_wait", "send_batch")}
    assert senders == {(KAFKA_ADAPTER, "commit_together"), (KAFKA_ADAPTER, "_send")}


def test_producers_are_made_by_the_kafka_adapter_only() -> None:
    makers = places("AIOKafkaProducer")
    assert makers == {(KAFKA_ADAPTER, "transactional_producer"), (KAFKA_ADAPTER, "__init__")}
    other = {"confluent_kafka", "kafka", "faststream", "quixstreams"}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {m.split(".")[0] for m in modules} & other, path


def test_transactions_are_committed_by_the_runtime_only_and_carry_events_only() -> None:
    assert {path for path, _ in places("commit_together", "transactional_producer")} == {RUNTIME}
    (commit,) = calls(parsed(RUNTIME), "commit_together")
    assert ast.unparse(commit.args[1]) == "records"
    assert "records = [(o.topic, o.partition, value_of(o.event), _headers(o)) for o in outputs]" in RUNTIME.read_text()


def test_the_event_producer_takes_typed_things_only() -> None:
    from live_services.adapters.kafka import EventProducer

    offered = {name for name, _ in inspect.getmembers(EventProducer, inspect.isfunction) if not name.startswith("_")}
    assert offered == {"produce", "produce_watermark", "produce_frame", "flush"}
    assert list(inspect.signature(EventProducer.produce).parameters) == ["self", "event", "partition"]
    assert inspect.signature(EventProducer.produce).parameters["event"].annotation == "Event"
    assert inspect.signature(EventProducer.produce_frame).parameters["frame"].annotation == "EncodedFrame"


# --- events -------------------------------------------------------------------------------------------------------


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_every_concrete_event_is_one_that_can_be_decoded() -> None:
    leaves = {cls for cls in subclasses(Event) if not cls.__subclasses__()}
    assert leaves == set(EVENT_CLASSES)


@pytest.mark.parametrize("event_class", EVENT_CLASSES, ids=lambda cls: cls.__name__)
def test_an_event_names_its_type_by_a_literal_and_its_broker_cannot_be_left_out(event_class: type[Event]) -> None:
    event_type, broker = event_class.model_fields["event_type"], event_class.model_fields["broker"]
    assert get_origin(event_type.annotation) is Literal
    assert len(get_args(event_type.annotation)) == 1
    scopes = get_args(broker.annotation)
    assert set(scopes) <= {"shared", *BROKERS}
    if broker.default is not PydanticUndefined:
        assert scopes == (broker.default,), "a default is allowed only where there is no choice"
    assert event_class.model_config["frozen"]
    assert event_class.model_config["extra"] == "forbid"


def test_no_two_events_have_the_same_type() -> None:
    types = [get_args(cls.model_fields["event_type"].annotation)[0] for cls in EVENT_CLASSES]
    assert len(types) == len(set(types))
    assert not set(types) & set(FRAME_TOPICS)


def changed(event: Event, event_class: type[Event], **fields: Any) -> Event:
    kept = {k: v for k, v in event.model_dump().items() if k in event_class.model_fields and k != "event_type"}
    return event_class(event_type=get_args(event_class.model_fields["event_type"].annotation)[0], **(kept | fields))


def samples(broker: Broker) -> dict[type[Event], Event]:
    """One event of every type that has a topic of its own, of this broker where there is a choice."""
    fill = filled(0, 60, "BUY", 10, 100.0)
    said = {"strategy": "momentum", "model_name": "m", "model_version": "1", "feature_schema_hash": "h", "reason": "r"}
    model = said | {"alias": "champion", "task": "t", "artifact_sha256": "a", "running_version": None}
    history = {"session_date": "2026-01-05", "sessions": (), "digest": "d", "today_until_ns": 0, "today_digest": ""}
    history |= {"broken": False}
    skew = {"session_date": "2026-01-05", "partition": 0, "rows_equal": 1, "rows_different": 0, "rows_unverified": 0}
    skew |= {"history_digest": "d", "differences": ()}
    shared = {"broker": "shared", "model_name": "m", "model_version": "1", "alias": "champion", "reason": "r"}
    events = [
        signal(),
        validated(),
        changed(validated(), SignalRejected, rule="r", limit="l", observed="o"),
        changed(fill, OrderSubmitted, reference_price=1.0),
        fill,
        changed(fill, OrderRejected, reason="r"),
        changed(fill, OrderCancelled, reason="r"),
        snapshot(60, {0: 10}),
        changed(signal(), StrategyModelAssigned, **said),
        changed(signal(), StrategyHistoryUsed, **history),
        changed(signal(), FeatureSkewMeasured, **skew),
        changed(signal(), ModelPromoted, **shared, previous_version=None, promoted_by="p"),
        changed(signal(), ModelLoaded, **{k: v for k, v in model.items() if k in ModelLoaded.model_fields}),
        changed(signal(), ModelRefused, **{k: v for k, v in model.items() if k in ModelRefused.model_fields}),
    ]
    return {
        type(e): e if e.broker == "shared" else type(e).model_validate(e.model_dump() | {"broker": broker})
        for e in events
    }


def test_every_event_type_but_watermarks_and_dead_letters_has_a_topic() -> None:
    assert set(samples("paper")) == set(EVENT_CLASSES) - {Watermark, DeadLetter}


@pytest.mark.parametrize("broker", BROKERS)
def test_every_event_goes_to_one_topic_of_its_own_world(broker: Broker) -> None:
    announcements = (ModelLoaded, ModelRefused)  # of a broker's runner, to whoever follows the models
    topics = {cls: topic_of(event) for cls, event in samples(broker).items()}
    of_a_task = {topics.pop(StrategyHistoryUsed), topics[StrategyModelAssigned]}
    assert len(of_a_task) == 1, "a task reads its control records from one topic"
    assert len(set(topics.values())) == len(topics), "two types on one topic"
    for cls, topic in topics.items():
        assert topic in all_topics((broker,))
        expected = "shared" if cls in (ModelPromoted, *announcements) else broker
        assert topic.scope == expected, cls


def test_every_topic_has_events_or_frames_for_it() -> None:
    written = {topic_of(event) for broker in BROKERS for event in samples(broker).values()}
    assert written | set(FRAME_TOPICS.values()) == set(all_topics())


def test_watermarks_and_dead_letters_have_no_topic_of_their_own() -> None:
    fields = signal().model_dump(include={"broker", "event_id", "correlation_id", "causation_id", "event_time_ns"})
    mark = Watermark(**fields, session_date="2026-01-05", session_open_ns=1, session_close_ns=2)
    with pytest.raises(KeyError):
        topic_of(mark)


# --- worlds -------------------------------------------------------------------------------------------------------


def test_topics_and_dead_letter_topics_have_names_of_their_own() -> None:
    names = [name for topic in all_topics() for name in (topic.name, topic.dlq)]
    assert len(names) == len(set(names))
    for broker in BROKERS:
        assert all(t.name.startswith(f"{broker}.") and t.scope == broker for t in broker_topics(broker))


def test_consumer_groups_and_transactional_ids_are_unique_for_each_service_and_broker() -> None:
    names = {name for entry in SERVICES for name in entry.hosts}
    pairs = [(name, broker) for name in sorted(names) for broker in BROKERS]
    groups = [consumer_group(*pair) for pair in pairs]
    identities = [transactional_id(*pair, partition) for pair in pairs for partition in range(12)]
    assert len(set(groups)) == len(groups)
    assert len(set(identities)) == len(identities)
    assert not set(groups) & set(identities)


def test_every_service_module_names_its_services_differently() -> None:
    modules = sorted(Path(services.__file__).parent.glob("*.py"))
    found = [
        node.value.value
        for path in modules
        for cls in parsed(path).body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.Assign) and named(node.targets[0]) == "name" and isinstance(node.value, ast.Constant)
    ]
    assert sorted([*found, "market_feed"]) == sorted(name for entry in SERVICES for name in entry.hosts)


def test_groups_are_named_in_one_place() -> None:
    literal = [
        (path.relative_to(ROOT), keyword.value)
        for path in SOURCES
        for call in calls(parsed(path), "AIOKafkaConsumer")
        for keyword in call.keywords
        if keyword.arg == "group_id" and ast.unparse(keyword.value) != "self._group"
    ]
    assert literal == []
    assert "self._group = consumer_group(service.name, service.scope)" in RUNTIME.read_text()


SERVICES_OF_A_BROKER = (
    lambda: RiskManager(RiskSettings(), Stamp()),
    lambda: PaperTrading(UNIVERSE, MARKET_TICKS, 3.0, Stamp()),
    lambda: PortfolioManager(UNIVERSE, MARKET_TICKS, 60),
)


def task_of(service: Service[Any]) -> TaskRun[Any]:
    sources = [Source(i.topic.name, 0, rank, i.role) for rank, i in enumerate(service.inputs) if i.role != "control"]
    starts = {(source.topic, source.partition): 0 for source in sources}
    return TaskRun(service, TaskId(service.name, service.scope, 0), sources, UNIVERSE, starts=starts)


def received(topic: Topic, event: Event, offset: int, **headers: str) -> Received:
    said = {"event_type": event.event_type, "broker": event.broker} | headers
    sent = tuple((name, value.encode()) for name, value in said.items())
    return Received(topic.name, 0, offset, None, event.model_dump_json().encode(), sent)


@pytest.mark.parametrize("build", SERVICES_OF_A_BROKER, ids=["risk", "trading", "portfolio"])
def test_a_record_of_another_broker_is_a_dead_letter_whatever_its_header_says(build: Any) -> None:
    service = build()
    mine = {topic_of(e): e for e in samples("paper").values()}
    theirs = {type(e): e for e in samples("zerodha").values()}
    asked = [i.topic for i in service.inputs if i.topic in mine]
    assert asked
    for topic in asked:
        foreign = theirs[type(mine[topic])]
        for header in ("zerodha", "paper"):
            run = task_of(service)
            for item in service.inputs:
                run.receive(_watermark(item.topic, SESSION.open_ns, 0))
            run.receive(received(topic, foreign, 1, broker=header))
            for item in service.inputs:
                if item.role == "gating" and item.topic != topic and item.topic in mine:
                    run.receive(
                        received(item.topic, mine[item.topic], 1)
                    )  # what comes before it on a lagged input is due
            for item in service.inputs:
                run.receive(_watermark(item.topic, SESSION.close_ns, 2))
            run.step()
            letters = [o.event for o in run.take_outputs() if isinstance(o.event, DeadLetter)]
            assert [(letter.topic, letter.offset) for letter in letters] == [(topic.name, 1)]
            assert "zerodha" in letters[0].failure


def test_a_frame_on_a_topic_of_a_broker_is_a_dead_letter() -> None:
    service = RiskManager(RiskSettings(), Stamp())
    run = task_of(service)
    for item in service.inputs:
        run.receive(_watermark(item.topic, SESSION.open_ns, 0))
    frame = encode_tick_frame(ticks((0, 1, 100.0)), UNIVERSE, 0, SESSION.open_ns + 2 * 10**9, SESSION)
    raw = service.inputs[0].topic
    run.receive(Received(raw.name, 0, 1, None, frame.value, tuple(frame.headers)))
    for item in service.inputs:
        run.receive(_watermark(item.topic, SESSION.close_ns, 2))
    run.step()
    assert run.dead_letters == 1


def _watermark(topic: Topic, at_ns: int, offset: int) -> Received:
    identity = event_id("watermark", topic.name, at_ns)
    event = Watermark(
        broker=topic.scope,
        event_id=identity,
        correlation_id=identity,
        causation_id=identity,
        event_time_ns=at_ns,
        session_date=SESSION.date.isoformat(),
        session_open_ns=SESSION.open_ns,
        session_close_ns=SESSION.close_ns,
    )
    return received(topic, event, offset)


# --- Redis --------------------------------------------------------------------------------------------------------


def test_keys_of_redis_are_spelt_in_one_module() -> None:
    offenders = [
        (path.relative_to(ROOT), node.lineno)
        for path in SOURCES
        if path != KEYS
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("alpha-panda:")
    ]
    assert offenders == []


def test_what_is_read_from_and_written_to_redis_has_a_key_from_that_module() -> None:
    commands = {"get", "set", "setex", "hset", "hget", "delete", "expire", "scan_iter", "publish", "xadd"}
    for path in SOURCES:
        tree = parsed(path)
        if not any(
            isinstance(n, ast.Import) and any(a.name.startswith("redis") for a in n.names) for n in ast.walk(tree)
        ):
            continue
        for call in calls(tree, *commands):
            if call.args and isinstance(call.func, ast.Attribute) and named(call.func.value).endswith("client"):
                assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr), (path, ast.unparse(call))


def test_keys_of_two_brokers_never_meet() -> None:
    from live_services.domain import keys

    made = [
        key
        for scope in BROKERS
        for key in (keys.portfolio(scope), *(keys.task_health(scope, n, p) for n in ("a", "b") for p in (0, 1)))
    ]
    assert len(made) == len(set(made))
    assert all(key.startswith("alpha-panda:") and key.split(":")[1] in BROKERS for key in made)
