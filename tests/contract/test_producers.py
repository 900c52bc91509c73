"""What may write to Kafka and Redis, and how: read from the sources and from the declarations themselves."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic_core import PydanticUndefined

from live_services import services
from live_services.adapters.kafka import EventProducer, FeedProducer, headers_of, topic_configs, value_of
from live_services.composition import SERVICES
from live_services.domain.account.config import AccountConfig
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import (
    EVENT_CLASSES,
    BarValues,
    DeadLetter,
    Event,
    ExitTerms,
    MarketGap,
    SignalGenerated,
    Watermark,
    topic_of,
)
from live_services.domain.frames import FRAME_TOPICS, encode_tick_frame
from live_services.domain.log import TaskId
from live_services.domain.topics import (
    BROKERS,
    MARKET_TICKS,
    SHARED_TOPICS,
    Topic,
    all_topics,
    broker_topics,
    consumer_group,
    transactional_id,
)
from live_services.runtime.merge import Source
from live_services.runtime.task import Received, TaskRun
from live_services.services.account import account_chain
from models_registry.specification import Broker
from tests.live_world import OPEN, SESSION, UNIVERSE, ticks

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
    assert senders == {(KAFKA_ADAPTER, "commit_together"), (KAFKA_ADAPTER, "produce")}


def test_producers_are_made_by_the_kafka_adapter_only() -> None:
    makers = places("AIOKafkaProducer")
    assert makers == {(KAFKA_ADAPTER, "transactional_producer"), (KAFKA_ADAPTER, "__init__")}
    other = {"confluent_kafka", "kafka", "faststream", "quixstreams"}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {m.split(".")[0] for m in modules} & other, path


def test_transactions_are_committed_by_the_runtime_and_the_feed_and_carry_typed_things_only() -> None:
    places_of = places("commit_together", "transactional_producer")
    assert {(path, name) for path, name in places_of if path != RUNTIME} == {
        (KAFKA_ADAPTER, "flush"),
        (KAFKA_ADAPTER, "__init__"),
    }
    (commit,) = calls(parsed(RUNTIME), "commit_together")
    assert ast.unparse(commit.args[1]) == "records"
    assert "records = [(o.topic, o.partition, value_of(o.event), _headers(o)) for o in outputs]" in RUNTIME.read_text()


@pytest.mark.parametrize(
    ("producer", "offered"),
    [
        (EventProducer, {"produce": ["Event", "int"]}),
        (
            FeedProducer,
            {
                "say": ["Event"],
                "say_on": ["Topic", "int", "Watermark | MarketGap"],
                "say_frame": ["Topic", "int", "EncodedFrame"],
                "flush": [],
            },
        ),
    ],
)
def test_a_producer_takes_typed_things_only(producer: type[object], offered: dict[str, list[str]]) -> None:
    found = {
        name: [p.annotation for p in list(inspect.signature(function).parameters.values())[1:]]
        for name, function in inspect.getmembers(producer, inspect.isfunction)
        if not name.startswith("_")
    }
    assert found == offered


def test_the_market_and_its_sessions_are_written_by_the_feed_only() -> None:
    assert {path.name for path, _ in places("FeedProducer")} == {"market_feed.py"}
    shared = [t for t in SHARED_TOPICS if t.name.startswith("market.")]
    assert {t.name for t in shared} == {"market.sessions", *(t.name for t in FRAME_TOPICS.values())}


# --- topics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", all_topics(), ids=lambda topic: topic.name)
def test_a_topic_and_its_dead_letters_keep_every_record(topic: Topic) -> None:
    for name in (topic.name, topic.dlq):
        config = topic_configs(name)
        assert config["cleanup.policy"] == "delete", "records have no keys to be compacted by"
        assert (config["retention.ms"], config["retention.bytes"]) == ("-1", "-1")
    frame, letter = (int(topic_configs(name)["max.message.bytes"]) for name in (topic.name, topic.dlq))
    assert letter > frame * 4 / 3, "a letter holds a record in base64"


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


def value_for(name: str, annotation: Any) -> Any:
    """Give some value for a field of an event, by its type."""
    if name == "event_time_ns":
        return OPEN + 60 * 10**9
    if get_origin(annotation) is Union:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if get_origin(annotation) in (tuple, dict):
        return get_origin(annotation)()
    bar = BarValues(start_ns=0, end_ns=1, open=1.0, high=1.0, low=1.0, close=1.0, volume=1, tick_count=1)
    made = {str: name, str | None: None, int: 1, float: 1.0, bool: False, BarValues: bar}
    return made[annotation] if annotation in made else ExitTerms(expiry_ns=OPEN + 10**12)


def sample(event_class: type[Event], broker: Broker) -> Event:
    """One event of a type, of this broker where there is a choice."""
    fields = {n: value_for(n, f.annotation) for n, f in event_class.model_fields.items() if f.is_required()}
    choice = get_args(event_class.model_fields["broker"].annotation)
    said = get_args(event_class.model_fields["event_type"].annotation)[0]
    return event_class(**(fields | {"event_type": said, "broker": broker if broker in choice else "shared"}))


def samples(broker: Broker) -> dict[type[Event], Event]:
    """One event of every type that has a topic of its own."""
    return {cls: sample(cls, broker) for cls in EVENT_CLASSES if cls.TOPIC is not None}


def test_every_event_type_but_what_is_placed_by_its_producer_has_a_topic() -> None:
    assert set(samples("paper")) == set(EVENT_CLASSES) - {Watermark, MarketGap, DeadLetter}


@pytest.mark.parametrize("broker", BROKERS)
def test_every_event_goes_to_one_topic_of_its_own_world(broker: Broker) -> None:
    for event in samples(broker).values():
        topic = topic_of(event)
        assert topic in all_topics((broker,))
        assert topic.scope == event.broker


def test_two_types_share_a_topic_only_where_a_task_keeps_its_control_records() -> None:
    by_topic: dict[Topic, set[str]] = {}
    for event in samples("paper").values():
        by_topic.setdefault(topic_of(event), set()).add(event.event_type)
    assert {topic.name for topic, types in by_topic.items() if len(types) > 1} == {"strategies.control"}


def test_every_topic_has_events_or_frames_for_it() -> None:
    written = {topic_of(event) for broker in BROKERS for event in samples(broker).values()}
    gateways = {broker_topics(broker).gateway_events for broker in BROKERS}  # declared for a gateway to come
    assert written | set(FRAME_TOPICS.values()) | gateways == set(all_topics())


@pytest.mark.parametrize("event_class", [Watermark, MarketGap, DeadLetter])
def test_what_is_placed_by_its_producer_has_no_topic_of_its_own(event_class: type[Event]) -> None:
    with pytest.raises(KeyError):
        topic_of(sample(event_class, "paper"))


def test_a_watermark_names_the_universe_of_its_session_where_a_reader_finds_it_without_reading() -> None:
    event = watermark(MARKET_TICKS, 0, SESSION, OPEN, UNIVERSE.digest)
    assert dict(headers_of(event))["universe_digest"].decode() == UNIVERSE.digest


# --- worlds -------------------------------------------------------------------------------------------------------


def test_topics_and_dead_letter_topics_have_names_of_their_own() -> None:
    names = [name for topic in all_topics() for name in (topic.name, topic.dlq)]
    assert len(names) == len(set(names))
    for broker in BROKERS:
        assert all(t.name.startswith(f"{broker}.") and t.scope == broker for t in broker_topics(broker))


def test_consumer_groups_and_transactional_ids_are_unique_for_each_service_and_broker() -> None:
    pairs = [(e.name, scope) for e in SERVICES for scope in (("shared",) if e.scope == "shared" else BROKERS)]
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
    hosted = sorted(name for entry in SERVICES for name in entry.services)
    assert sorted([*found, "market_feed", "{broker}_trading"]) == hosted
    assert len(set(hosted)) == len(hosted)


def test_groups_are_named_in_one_place() -> None:
    literal = [
        (path.relative_to(ROOT), keyword.value)
        for path in SOURCES
        for call in calls(parsed(path), "AIOKafkaConsumer")
        for keyword in call.keywords
        if keyword.arg == "group_id" and ast.unparse(keyword.value) != "self._group"
    ]
    assert literal == []
    assert "self._group = consumer_group(chain.name, chain.scope)" in RUNTIME.read_text()


def account(broker: Broker) -> TaskRun:
    """The task of an account, at the open of a session."""
    chain = account_chain(broker, MARKET_TICKS, AccountConfig(), Stamp())
    sources = [Source(i.topic.name, 0, rank) for rank, i in enumerate(chain.inputs) if i.role == "gating"]
    starts = {(source.topic, source.partition): 0 for source in sources}
    run = TaskRun(chain, TaskId(chain.name, broker, 0), sources, {UNIVERSE.digest: UNIVERSE}.get, starts=starts)
    for item in gating(run):
        run.receive(received(item, watermark(item, 0, SESSION, OPEN, UNIVERSE.digest), 0))
    return run


def gating(run: TaskRun) -> list[Topic]:
    known = {topic.name: topic for topic in all_topics()}
    return [known[source.topic] for source in run.sources]


def letters_of(run: TaskRun) -> list[DeadLetter]:
    for item in gating(run):
        run.receive(received(item, watermark(item, 0, SESSION, SESSION.close_ns, UNIVERSE.digest), 2))
    run.step()
    return [o.event for o in run.take_outputs() if isinstance(o.event, DeadLetter)]


def received(topic: Topic, event: Event, offset: int, **headers: str) -> Received:
    said = dict(headers_of(event)) | {name: value.encode() for name, value in headers.items()}
    return Received(topic.name, 0, offset, None, value_of(event), tuple(said.items()))


@pytest.mark.parametrize("header", BROKERS)
@pytest.mark.parametrize("broker", BROKERS)
def test_a_record_of_another_broker_is_a_dead_letter_whatever_its_header_says(broker: Broker, header: Broker) -> None:
    (other,) = set(BROKERS) - {broker}
    run = account(broker)
    raw = broker_topics(broker).signals_raw
    assert raw in gating(run)
    run.receive(received(raw, sample(SignalGenerated, other), 1, broker=header))
    (letter,) = letters_of(run)
    assert (letter.topic, letter.offset) == (raw.name, 1)
    assert other in letter.failure


def test_a_frame_on_a_topic_of_a_broker_is_a_dead_letter() -> None:
    run, raw = account("paper"), broker_topics("paper").signals_raw
    frame = encode_tick_frame(ticks((0, 1, 100.0)), UNIVERSE, 0, OPEN + 2 * 10**9, SESSION)
    run.receive(Received(raw.name, 0, 1, None, frame.value, tuple(frame.headers)))
    assert [letter.topic for letter in letters_of(run)] == [raw.name]


def test_an_event_of_a_broker_on_the_market_is_a_dead_letter() -> None:
    run = account("paper")
    run.receive(received(MARKET_TICKS, sample(SignalGenerated, "paper"), 1))
    assert [letter.topic for letter in letters_of(run)] == [MARKET_TICKS.name]
