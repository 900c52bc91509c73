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
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.kafka import EventProducer, topic_configs
from live_services.adapters.letters import LetterDecisions
from live_services.composition import SERVICES
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import (
    EVENT_CLASSES,
    AccountDifferenceAccepted,
    AccountOpened,
    AnswersCommands,
    Command,
    CommandRefused,
    DeadLetter,
    DeadLetterDecided,
    Event,
    FeatureSkewMeasured,
    FeedStarted,
    MarketGap,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    PnlSnapshot,
    RecordHandedIn,
    RecordTaken,
    SessionOpened,
    SignalGenerated,
    SignalRejected,
    SignalShadowed,
    SignalValidated,
    StrategiesConfigured,
    StrategiesDifferenceAccepted,
    StrategiesStopped,
    StrategiesSummarized,
    StrategyHistoryUsed,
    StrategyModelAssigned,
    TradingStateChanged,
    TradingStateCommanded,
    TradingSwitched,
    Watermark,
    headers_of,
    topic_of,
    value_of,
)
from live_services.domain.frames import FRAME_TOPICS, encode_tick_frame
from live_services.domain.limits import AccountConfig
from live_services.domain.log import TaskId
from live_services.domain.sequence import STAMP_HEADER
from live_services.domain.sequence import Stamp as Numbered
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
from live_services.preflight import kafka as kafka_checks
from live_services.runtime.chain import Chain
from live_services.runtime.merge import Source
from live_services.runtime.received import Received
from live_services.runtime.task import TaskRun
from live_services.services.account import account_chain
from live_services.settings import KafkaSettings
from models_registry.specification import Broker, StrategySpec
from tests.account_world import Account
from tests.live_world import SESSION, UNIVERSE, signal, ticks, validated

ROOT = Path(__file__).parents[2]
PACKAGES = ("feature_store", "models_registry", "live_services", "dagster_project")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
KAFKA_ADAPTER = ROOT / "live_services" / "adapters" / "kafka.py"
FEED_PRODUCER = KAFKA_ADAPTER.with_name("feed_producer.py")
LETTERS_ADAPTER = KAFKA_ADAPTER.with_name("letters.py")
LOOP = ROOT / "live_services" / "runtime" / "loop.py"
COMMITTING = LOOP.with_name("committing.py")
TAKEOVER = LOOP.with_name("takeover.py")
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


PREFLIGHT = {(Path(kafka_checks.__file__), name) for name in ("clock_skew_ms", "_versions")}
"""It has a broker stamp an empty record on a topic that nobody reads, and asks for its versions: no event is sent."""


def test_records_are_sent_in_two_functions_of_the_kafka_adapter_only() -> None:
    senders = {(path, name) for path, name in places("send", "send_and_wait", "send_batch")}
    assert senders - PREFLIGHT == {(KAFKA_ADAPTER, "commit_together"), (KAFKA_ADAPTER, "produce")}


def test_producers_are_made_by_the_kafka_adapter_only() -> None:
    makers = places("AIOKafkaProducer")
    assert makers - PREFLIGHT == {(KAFKA_ADAPTER, "transactional_producer"), (KAFKA_ADAPTER, "__init__")}
    other = {"confluent_kafka", "kafka", "faststream", "quixstreams"}
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {m.split(".")[0] for m in modules} & other, path


def test_transactions_are_committed_by_the_runtime_the_feed_and_decisions_and_carry_typed_things_only() -> None:
    assert places("commit_together", "transactional_producer") == {
        (COMMITTING, "commit"),
        (TAKEOVER, "start"),
        (FEED_PRODUCER, "flush"),
        (FEED_PRODUCER, "__init__"),
        (LETTERS_ADAPTER, "decide"),
        (LETTERS_ADAPTER, "__init__"),
    }
    (commit,) = calls(parsed(COMMITTING), "commit_together")
    assert ast.unparse(commit.args[1]) == "records"
    made = "records = ((o.topic, o.partition, value_of(o.event), o.headers) for o in outputs)"
    assert made in COMMITTING.read_text()


@pytest.mark.parametrize(
    ("producer", "offered"),
    [
        (EventProducer, {"produce": ["Event", "int"]}),
        (
            FeedProducer,
            {
                "say": ["Event", "Stamp | None"],
                "say_on": ["Topic", "int", "Event", "Stamp | None"],
                "say_frame": ["Topic", "int", "EncodedFrame", "Stamp | None"],
                "flush": [],
            },
        ),
        (LetterDecisions, {"made": [], "decide": ["Sequence[DeadLetterDecided]", "RecordHandedIn | None"]}),
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
        config = topic_configs(KafkaSettings(), name)
        assert config["cleanup.policy"] == "delete", "records have no keys to be compacted by"
        assert (config["retention.ms"], config["retention.bytes"]) == ("-1", "-1")
    frame, letter = (int(topic_configs(KafkaSettings(), name)["max.message.bytes"]) for name in (topic.name, topic.dlq))
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


def changed(event: Event, event_class: type[Event], **fields: Any) -> Event:
    kept = {k: v for k, v in event.model_dump().items() if k in event_class.model_fields and k != "event_type"}
    return event_class(event_type=get_args(event_class.model_fields["event_type"].annotation)[0], **(kept | fields))


def samples(broker: Broker) -> dict[type[Event], Event]:
    """One event of every type that has a topic of its own, of this broker where there is a choice."""
    account = Account().say(signal())
    account.market(ticks((0, 61, 100.0))).close()
    (fill,) = account.of(OrderFilled)
    said = {"strategy": "momentum", "rung": "champion", "model_name": "m", "model_version": "1", "reason": "r"}
    model = said | {"feature_schema_hash": "h", "task": "t", "artifact_sha256": "a", "running_version": None}
    history = {"session_date": "2026-01-05", "sessions": (), "digest": "d", "today_until_ns": 0, "today_digest": ""}
    history |= {"broken": False}
    skew = {"session_date": "2026-01-05", "partition": 0, "rows_equal": 1, "rows_different": 0, "rows_unverified": 0}
    skew |= {"history_digest": "d", "differences": ()}
    strategies = {"strategies": (StrategySpec(name="momentum"),), "bar_minutes": 1, "brokers": ("paper",)}
    configured = {"session_date": "2026-01-05", "config": strategies, "config_digest": "d", "git_commit": "c"}
    accepted: dict[str, Any] = {"session_date": "2026-01-05", "task": "t", "outputs_digest": "d", "reason": "r"}
    accepted |= {"taken_as_said": {"paper.signals.raw": 7}, "accepted_by": "desk", "accepted_at_ns": SESSION.open_ns}
    summary = {"session_date": "2026-01-05", "task": "t", "strategies": (), "brokers": ()}
    shared = {"broker": "shared"}
    promoted = shared | {"model_name": "m", "model_version": "1", "alias": "champion", "reason": "r"}
    commanded: dict[str, Any] = {"reason": "r", "commanded_by": "desk", "commanded_at_ns": SESSION.open_ns}
    decided = {"letter_id": "l", "letter_topic": "t", "action": "dropped", "decided_by": "desk", "reason": "r"}
    decided |= {"decided_at_ns": SESSION.open_ns}
    scope = {"strategy": None, "flatten": False, "since_ns": SESSION.open_ns}
    hours = {"session_date": "2026-01-05", "session_open_ns": SESSION.open_ns, "session_close_ns": SESSION.close_ns}
    told = hours | {"universe_digest": UNIVERSE.digest, "instruments": UNIVERSE.instruments}
    feeding = {"name": "n", "home": "h", "store": "s", "feed": "ticks", "frame_ms": 1000, "partitions": 1}
    feeding |= {"plays": "p", "last_session": ""}
    halt = changed(signal(), TradingStateCommanded, broker=broker, **commanded, state="HALTED")
    events = [
        *(signal(), validated(), fill, *account.of(AccountOpened, TradingSwitched, OrderSubmitted)),
        *account.of(OrderCancelled, PnlSnapshot),
        changed(validated(), SignalRejected, rule="r", limit="l", observed="o"),
        changed(fill, OrderRejected, why="r"),
        changed(signal(), SignalShadowed, **shared, rung="challenger"),
        changed(signal(), SessionOpened, **shared, **told),
        changed(signal(), FeedStarted, **shared, **feeding),
        changed(signal(), StrategyModelAssigned, **shared, **said, feature_schema_hash="h"),
        changed(signal(), StrategyHistoryUsed, **shared, **history),
        changed(signal(), StrategiesSummarized, **shared, **summary),
        changed(signal(), StrategiesConfigured, **shared, **configured),
        changed(signal(), StrategiesDifferenceAccepted, **shared, **accepted),
        changed(signal(), AccountDifferenceAccepted, **accepted),
        changed(signal(), FeatureSkewMeasured, **shared, **skew),
        halt,
        changed(signal(), RecordHandedIn, **commanded, letter_id="l", record=halt),
        changed(signal(), TradingStateChanged, in_force={**commanded, "state": "HALTED", **scope}, command_offset=3),
        changed(signal(), StrategiesStopped, **shared, reason="r"),
        changed(signal(), RecordTaken, letter_id="l"),
        changed(signal(), CommandRefused, refusal="r"),
        changed(signal(), DeadLetterDecided, **shared, **decided),
        changed(signal(), ModelPromoted, **promoted, previous_version=None, promoted_by="p"),
        changed(signal(), ModelLoaded, **shared, **{k: v for k, v in model.items() if k in ModelLoaded.model_fields}),
        changed(signal(), ModelRefused, **shared, **{k: v for k, v in model.items() if k in ModelRefused.model_fields}),
    ]
    return {
        type(e): e if e.broker == "shared" else type(e).model_validate(e.model_dump() | {"broker": broker})
        for e in events
    }


WITHOUT_TOPIC = {Watermark, MarketGap, DeadLetter}


def test_every_event_type_but_what_the_runtime_and_the_feed_place_has_a_topic() -> None:
    assert set(samples("paper")) == set(EVENT_CLASSES) - WITHOUT_TOPIC


@pytest.mark.parametrize("broker", BROKERS)
def test_every_event_goes_to_one_topic_of_its_own_world(broker: Broker) -> None:
    found = samples(broker)
    topics = {cls: topic_of(event) for cls, event in found.items()}
    others = (StrategiesConfigured, StrategyHistoryUsed, StrategiesStopped, StrategiesDifferenceAccepted)
    of_a_task = {topics[StrategyModelAssigned], *(topics.pop(one) for one in others)}
    assert len(of_a_task) == 1, "a task reads its control records from one topic"
    for bases, topic in (
        ((AnswersCommands, TradingSwitched, AccountDifferenceAccepted), "control"),
        ((Command,), "commands"),
    ):
        of_a_broker = {topics.pop(cls) for cls in [*topics] if issubclass(cls, bases)}
        assert of_a_broker == {getattr(broker_topics(broker), topic)}
    assert topics.pop(FeedStarted) == topics[SessionOpened], "a feed says who it is where it tells its sessions"
    assert len(set(topics.values())) == len(topics), "two types on one topic"
    for cls, topic in topics.items():
        assert topic in all_topics((broker,))
        assert topic.scope == found[cls].broker, cls


def test_every_topic_has_events_or_frames_for_it() -> None:
    written = {topic_of(event) for broker in BROKERS for event in samples(broker).values()}
    of_gateways = {broker_topics(broker).gateway_events for broker in BROKERS}  # none is built so far
    assert written | set(FRAME_TOPICS.values()) | of_gateways == set(all_topics())


def test_a_watermark_has_no_topic_of_its_own() -> None:
    with pytest.raises(KeyError):
        topic_of(watermark(MARKET_TICKS, 0, SESSION, SESSION.open_ns, UNIVERSE.digest))


def test_a_watermark_names_the_universe_of_its_session_where_a_reader_finds_it_without_reading() -> None:
    event = watermark(MARKET_TICKS, 0, SESSION, SESSION.open_ns, UNIVERSE.digest)
    assert dict(headers_of(event))["universe_digest"].decode() == UNIVERSE.digest


# --- worlds -------------------------------------------------------------------------------------------------------


def test_topics_and_dead_letter_topics_have_names_of_their_own() -> None:
    names = [name for topic in all_topics() for name in (topic.name, topic.dlq)]
    assert len(names) == len(set(names))
    for broker in BROKERS:
        assert all(t.name.startswith(f"{broker}.") and t.scope == broker for t in broker_topics(broker))


def test_consumer_groups_and_transactional_ids_are_unique_for_each_process_and_broker() -> None:
    pairs = [(entry.name, broker) for entry in SERVICES for broker in BROKERS]
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
    assert sorted([*found, "market_feed"]) == sorted(
        name for entry in SERVICES for name in entry.services if "{" not in name
    )


def test_groups_are_named_in_one_place() -> None:
    literal = [
        (path.relative_to(ROOT), keyword.value)
        for path in SOURCES
        for call in calls(parsed(path), "AIOKafkaConsumer")
        for keyword in call.keywords
        if keyword.arg == "group_id" and ast.unparse(keyword.value) != "self._group"
    ]
    assert literal == []
    assert "self._group = consumer_group(chain.name, chain.scope)" in LOOP.read_text()


def account_task() -> tuple[Chain, TaskRun]:
    chain = account_chain("paper", MARKET_TICKS, AccountConfig(), Stamp())
    sources = [Source(i.topic.name, 0, rank) for rank, i in enumerate(chain.inputs) if i.role == "gating"]
    starts = {(source.topic, source.partition): 0 for source in sources}
    known = {UNIVERSE.digest: UNIVERSE}
    return chain, TaskRun(chain, TaskId(chain.name, "paper", 0), sources, known.get, starts=starts)


def received(topic: Topic, event: Event, offset: int, **headers: str) -> Received:
    sent = dict(headers_of(event)) | {name: value.encode() for name, value in headers.items()}
    return Received(topic.name, 0, offset, None, value_of(event), tuple(sent.items()))


def letters_of(record: Received) -> list[DeadLetter]:
    """Give the dead letters of an account's task that reads one record, and everything around it."""
    chain, run = account_task()
    gating = [one.topic for one in chain.inputs if one.role == "gating"]
    for at_ns, offset in ((SESSION.open_ns, 0), (SESSION.close_ns, 2)):
        for topic in gating:
            stamp = {STAMP_HEADER: Numbered(topic.writer, SESSION.open_ns, offset // 2).header[1].decode()}
            mark = watermark(topic, 0, SESSION, at_ns, UNIVERSE.digest)
            run.receive(received(topic, mark, offset, **(stamp if topic.writer else {})))
        if offset == 0:
            run.receive(record)
    run.step()
    return [o.event for o in run.take_outputs() if isinstance(o.event, DeadLetter)]


@pytest.mark.parametrize("header", ["zerodha", "paper"])
def test_a_record_of_another_broker_is_a_dead_letter_whatever_its_header_says(header: str) -> None:
    raw = broker_topics("paper").signals_raw
    (letter,) = letters_of(received(raw, samples("zerodha")[SignalGenerated], 1, broker=header))
    assert (letter.topic, letter.offset) == (raw.name, 1)
    assert "zerodha" in letter.failure


@pytest.mark.parametrize("kind", [OrderFilled, SignalValidated, PnlSnapshot])
def test_what_the_account_says_itself_is_a_dead_letter_where_it_consumes(kind: type[Event]) -> None:
    (letter,) = letters_of(received(broker_topics("paper").signals_raw, samples("paper")[kind], 1))
    assert "belongs on" in letter.failure


def test_a_frame_on_a_topic_of_a_broker_is_a_dead_letter() -> None:
    frame = encode_tick_frame(ticks((0, 1, 100.0)), UNIVERSE, 0, SESSION.open_ns + 2 * 10**9, SESSION)
    raw = broker_topics("paper").signals_raw
    for header, told in (("shared", "header broker 'shared'"), ("paper", "it belongs on market.ticks")):
        headers = tuple((dict(frame.headers) | {"broker": header.encode()}).items())
        (letter,) = letters_of(Received(raw.name, 0, 1, None, frame.value, headers))
        assert told in letter.failure


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
        for key in (
            keys.portfolio(scope),
            keys.pipeline_findings(scope),
            *(keys.task_health(scope, n, p) for n in ("a", "b") for p in (0, 1)),
        )
    ]
    assert len(made) == len(set(made))
    assert all(key.startswith("alpha-panda:") and key.split(":")[1] in BROKERS for key in made)
