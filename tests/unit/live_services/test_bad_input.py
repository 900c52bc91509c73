"""What a stranger gets wrong: each time one message that names the place and the way out, and exit code 1."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from feature_store.sources.arrivals import read_market
from feature_store.sources.mappings import ColumnMapping
from live_services.__main__ import app
from live_services.cli.errors import did_you_mean
from live_services.cli.market_options import market_settings
from live_services.cli.progress import file_progress
from live_services.demo.market_files import look_at
from live_services.demo.run import STRATEGIES, DemoOptions, configuration_toml
from live_services.domain.events import event_or_none
from live_services.failures import CommandFailed
from live_services.machine.kafka_jars import JarUnavailable, PinnedJar, ensure_jars
from live_services.machine.orphans import orphans, stop_orphans
from live_services.machine.supervision import Supervisor
from live_services.next_steps import next_steps, program
from live_services.settings import config_file, load_settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def _fails(*arguments: str) -> str:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.output.count("error:") == 1
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KAFKA__BOOTSTRAP_SERVERS", "kafka-1", "kafka.bootstrap_servers: write HOST:PORT"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:1,,b:2", "kafka.bootstrap_servers: write HOST:PORT"),
        ("MLFLOW__TRACKING_URI", "sqlite:///x", "mlflow.tracking_uri: write the address of a server"),
        ("DAGSTER__URL", "localhost", "dagster.url: write the address of a server"),
        ("REDIS__URL", "sekret-host", "redis.url: write redis://HOST:PORT/0"),
        ("MARKET__REPLAY_SESSION", "yesterday", "market.replay_session: write a date as YYYY-MM-DD"),
        ("MARKET__NAME", "SYNTHETIC 12ab34cd", "market.name: write the exchange's market, such as NSE"),
        ("MARKET__SYNTHETIC__FIRST_SESSION", "soon", "market.synthetic.first_session: write a date"),
        ("MARKET__SPED", "1", "market.sped: there is no such setting; did you mean speed?"),
        ("MARKET__SYNTHETIC__EDGE", "1", "market.synthetic.edge: there is no such setting; did you mean"),
        ("DAGSTER__XYZ", "1", "dagster.xyz: there is no such setting; there are url"),
    ],
)
def test_a_wrong_setting_names_its_key_what_to_write_and_where_it_was_set(monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    message = _fails("config", "show")
    key, _, what = told.partition(": ")
    assert f"{key} (from environment {name}): {what}" in message
    assert "sekret" not in message


def test_a_misspelt_section_in_the_environment_is_warned_of(monkeypatch):
    monkeypatch.setenv("MARKT__SPEED", "1")
    result = runner.invoke(app, ["config", "show"])
    assert result.exit_code == 0
    assert "did you mean MARKET__SPEED?" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[kafka", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (None, "cannot be read: No such file"),
        (b'[[strategies]]\nnam = "x"\n', "): there is no such setting; did you mean name?"),
    ],
)
def test_a_settings_file_that_cannot_be_used_is_named(tmp_path, monkeypatch, content, told):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(path))
    message = _fails("config", "show")
    assert told in message
    assert str(path) in message


def test_a_home_reads_its_own_settings_file(tmp_path):
    (tmp_path / "alpha-panda.toml").touch()
    assert config_file() == Path("alpha-panda.toml")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "alpha-panda.toml").touch()
    assert config_file() == tmp_path / "home" / "alpha-panda.toml"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("models", "promote", "momentum", "1", "--alias", "boss"), "choose one of challenger, champion, live"),
        (("models", "promote", "momentum", "one"), "a version is a number"),
        (("models", "show", "momentum", "newest"), "a version is a number"),
        (("models", "promote", "momentum", "1", "--override", " "), "--override: give the reason"),
        (("demo", "--override-gate", ""), "--override-gate: give the reason"),
        (("topics", "tail", "paper.order.filed"), "did you mean paper.orders.filled"),
        (("explain", "--broker", "bitcoin"), "choose one of paper, zerodha"),
    ],
)
def test_a_wrong_argument_names_those_there_are(monkeypatch, arguments, told):
    monkeypatch.setenv("MLFLOW__TRACKING_URI", "http://127.0.0.1:9")
    assert told in _fails(*arguments)


def test_a_disk_that_is_too_full_for_kafka_stops_up_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("live_services.machine.embedded.MIN_FREE_BYTES", 2**62)
    message = _fails("up")
    assert "MB free; Kafka needs" in message
    assert "ALPHA_PANDA_HOME" in message
    assert not Supervisor(tmp_path / "home").running


def test_a_changed_jar_that_cannot_be_fetched_again_is_said_to_be_changed(tmp_path):
    jar = PinnedJar("org.x", "y", "1", "0" * 64)
    jar.path(tmp_path / "maven").parent.mkdir(parents=True)
    jar.path(tmp_path / "maven").write_bytes(b"not what was pinned")

    def no_network(jar: PinnedJar, repository: Path) -> None:
        raise JarUnavailable(f"{jar} could not be fetched into {repository}")

    with pytest.raises(
        JarUnavailable, match=r"pins by its SHA-256, so it was removed\. org\.x:y:1 could not be fetched"
    ):
        ensure_jars(tmp_path, (jar,), fetch=no_network)
    assert not jar.path(tmp_path / "maven").exists()


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("SYN01", ["SYN011", "TCS"], "did you mean SYN011?"),
        ("syn011", ["SYN011", "TCS"], "did you mean SYN011?"),
        ("x", ["a", "b"], "there are a, b"),
        ("qqqq", [f"A{k}" for k in range(50)], ""),
        ("x", [], ""),
    ],
)
def test_near_names_are_offered(name, known, said):
    assert did_you_mean(name, known) == said


def test_what_can_be_typed_in_a_message_names_the_home_that_is_in_use_unless_it_is_the_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/alpha-panda"])
    said = " ".join(runner.invoke(app, ["models", "list"]).output.split())
    assert "start one with `.venv/bin/alpha-panda --home home up`" in said
    monkeypatch.delenv("ALPHA_PANDA_HOME")
    said = " ".join(runner.invoke(app, ["models", "list"]).output.split())
    assert "start one with `.venv/bin/alpha-panda up`" in said


def test_what_is_no_event_does_not_stop_a_person_who_looks_back():
    assert [event_or_none(value) for value in (b"\xff\x00", b"", b'{"a": 1}', b"[]")] == [None] * 4


# --- the demo's own files -----------------------------------------------------------------------------------------


def _bars(sessions: int = 8, minutes: int = 1) -> pd.DataFrame:
    days = pd.bdate_range("2025-01-06", periods=sessions)
    times = [
        t
        for d in days
        for t in pd.date_range(d + pd.Timedelta("9h15min"), periods=375 // minutes, freq=f"{minutes}min")
    ]
    frame = pd.DataFrame(
        {"timestamp": times, "symbol": "AAA", "open": 100.0, "high": 101.0, "low": 99.0, "close": 100.0}
    )
    return frame.assign(volume=1000)


def _ticks(day: str, *symbols: str) -> pd.DataFrame:
    times = pd.date_range(f"{day} 09:15:01", periods=100, freq="1s")
    parts = [pd.DataFrame({"timestamp": times, "symbol": s, "ltp": 100.0, "volume": np.arange(100)}) for s in symbols]
    return pd.concat(parts)


@pytest.mark.parametrize(
    ("bars", "told"),
    [
        (_bars().drop(columns="close"), "no column 'close'"),
        (_bars().iloc[:0], "columns but no rows"),
        (_bars().assign(close=np.nan), "none of its 3,000 rows can be used: 3,000 not_a_number (first: row 1)"),
        (_bars(sessions=1), "0 sessions lie before 2025-01-06"),
        (_bars(sessions=5), "4 sessions (2025-01-06, 2025-01-07, 2025-01-08, 2025-01-09) lie before 2025-01-10"),
        (
            _bars(sessions=7),
            "which is replayed, of which 2 only warm the features up; training momentum needs at least 6",
        ),
        (_bars(minutes=60), "bars of 60 minutes are 7 in a session; a label looks 20 bars ahead inside the session"),
    ],
)
def test_bars_that_cannot_be_traded_are_refused_before_anything_starts(tmp_path, bars, told):
    bars.to_parquet(tmp_path / "bars.parquet")
    message = _fails("demo", "--bars", "bars.parquet")
    assert told in message
    assert "bars.parquet" in message
    assert not (tmp_path / ".alpha-panda").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "is empty (0 bytes)"), (b"PAR1 and no more", "cannot be read"), (b"a,b\n1,2\n", "cannot be read")],
)
def test_files_that_are_no_parquet_are_refused_before_anything_starts(tmp_path, content, told):
    (tmp_path / "bars.parquet").write_bytes(content)
    assert told in _fails("demo", "--bars", "bars.parquet")


@pytest.mark.parametrize(
    ("ticks", "told"),
    [
        (_ticks("2025-01-02", "AAA"), "0 sessions lie before 2025-01-02, the last session of ticks.parquet"),
        (_ticks("2025-01-16", "ZZZ"), "none of its 100 rows can be used: 100 unknown_symbol"),
    ],
)
def test_ticks_that_do_not_go_with_the_bars_are_refused(tmp_path, ticks, told):
    _bars().to_parquet(tmp_path / "bars.parquet")
    ticks.to_parquet(tmp_path / "ticks.parquet")
    assert told in _fails("demo", "--bars", "bars.parquet", "--ticks", "ticks.parquet")


def test_rows_that_cannot_be_used_are_counted_with_their_row_and_where_they_are_kept(tmp_path):
    bars = _bars()
    bars.loc[4, "close"] = np.nan
    bars.loc[[8, 9], "low"] = -1.0
    bars.to_csv(tmp_path / "bars.csv", index=False)
    _ticks("2025-01-16", "AAA", "ZZZ").to_parquet(tmp_path / "ticks.parquet")
    told: list[str] = []
    look_at(tmp_path / "bars.csv", tmp_path / "ticks.parquet", Path("store/quarantine"), STRATEGIES, told.append)
    text = "\n".join(told)
    assert "3 rows cannot be used: 2 non_positive_price (first: row 9), 1 not_a_number (first: row 5)" in text
    assert "store/quarantine/bars.parquet" in text
    assert "100 rows cannot be used: 100 unknown_symbol (first: row 101)" in text
    assert "store/quarantine/ticks.parquet" in text


def test_the_reading_of_a_file_is_shown_in_a_terminal_and_nothing_elsewhere(tmp_path):
    _bars(sessions=9).to_parquet(tmp_path / "bars.parquet")
    for terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=terminal, width=80)
        progress = file_progress(console)
        look_at(tmp_path / "bars.parquet", None, Path("q"), STRATEGIES, lambda _: None, progress=progress)
        assert ("Reading bars.parquet" in shown.getvalue()) is terminal
        assert ("100%" in shown.getvalue()) is terminal


def test_a_file_of_nothing_but_indices_is_refused_by_the_demo(tmp_path):
    _bars(sessions=9).assign(symbol="NIFTY_50").drop_duplicates("timestamp").to_csv(tmp_path / "bars.csv", index=False)
    with pytest.raises(CommandFailed, match=r"bars\.csv holds nothing but indices, which are never traded"):
        look_at(tmp_path / "bars.csv", None, Path("q"), STRATEGIES, lambda _: None)


def test_a_table_of_ones_own_says_in_the_demo_what_instruments_are(tmp_path):
    _bars(sessions=9).assign(symbol="NIFTY_50").drop_duplicates("timestamp").to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "what.csv").write_text("symbol,kind\nNIFTY_50,etf\n")
    stated, told = {"universe": str(tmp_path / "what.csv")}, []
    look_at(tmp_path / "bars.csv", None, Path("q"), STRATEGIES, told.append, stated=stated)
    options = DemoOptions(home=tmp_path / "home", bars=tmp_path / "bars.csv", market=stated)
    assert f'universe = "{tmp_path / "what.csv"}"' in configuration_toml(options)


@pytest.mark.parametrize("option", ["--universe", "--corporate-actions"])
def test_a_wrong_table_is_refused_by_the_demo_before_anything_starts(tmp_path, option):
    _bars(sessions=9).to_parquet(tmp_path / "bars.parquet")
    assert f"{option}: there is no file" in _fails("demo", "--bars", "bars.parquet", option, "nowhere.csv")
    (tmp_path / "table.csv").write_text("symbol,what\nAAA,one\n")
    assert "table.csv" in _fails("demo", "--bars", "bars.parquet", option, "table.csv")


def test_daily_bars_are_refused_by_the_demo(tmp_path):
    days = _bars()
    days["timestamp"] = days["timestamp"].dt.normalize()
    days.drop_duplicates(["timestamp", "symbol"]).to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(CommandFailed, match=r"bars\.parquet has one bar a session.*give bars of minutes"):
        look_at(tmp_path / "bars.parquet", None, Path("q"), STRATEGIES, lambda _: None)


def test_bars_of_five_minutes_are_traded_as_such(tmp_path):
    _bars(sessions=14, minutes=5).to_parquet(tmp_path / "bars.parquet")
    files = look_at(tmp_path / "bars.parquet", None, Path("q"), STRATEGIES, lambda _: None)
    options = DemoOptions(home=tmp_path / "home", bars=tmp_path / "bars.parquet")
    assert "bar_minutes = 5\n" in configuration_toml(options, files)


def test_bars_of_half_a_minute_are_traded_as_minutes(tmp_path):
    bars = _bars(sessions=14)
    later = bars.assign(timestamp=bars["timestamp"] + pd.Timedelta("30s"))
    pd.concat([bars, later]).sort_values("timestamp").to_parquet(tmp_path / "bars.parquet")
    told: list[str] = []
    files = look_at(tmp_path / "bars.parquet", None, Path("q"), STRATEGIES, told.append)
    assert files.bar_minutes == 1
    assert "bars.parquet has bars of 30 seconds; this demo makes minutes of them" in told


def test_bars_that_make_no_minute_are_refused_in_a_sentence(tmp_path):
    bars = _bars(sessions=14)
    since_open = bars["timestamp"] - bars["timestamp"].dt.normalize() - pd.Timedelta("9h15min")
    bars.assign(timestamp=bars["timestamp"] + since_open / 2)[since_open < pd.Timedelta("250min")].to_csv("bars.csv")
    message = _fails("demo", "--bars", "bars.csv")
    assert "bars.csv has bars of 90 seconds, which make no bars of one minute; give bars of one minute" in message
    assert "or of whole minutes (from these you can make 3)" in message


def test_a_file_whose_times_cannot_be_read_is_no_empty_market(tmp_path):
    bars = _bars(sessions=3)
    bars.assign(timestamp=bars["timestamp"].dt.strftime("%d-%m-%Y %H:%M")).to_csv("bars.csv", index=False)
    message = _fails("demo", "--bars", "bars.csv")
    assert "times cannot be read; the first is '06-01-2025 09:15' (row 1, column 'timestamp')" in message
    assert (
        'give --time-format "%d-%m-%Y %H:%M" or --time-format "%m-%d-%Y %H:%M" (setting market.time_format)' in message
    )
    assert "They are not written as '%Y%m%d'." in _fails("demo", "--bars", "bars.csv", "--time-format", "%Y%m%d")


def test_what_a_file_does_not_state_is_told(tmp_path):
    bars = _bars(sessions=14)
    bars.assign(timestamp=bars["timestamp"] - pd.Timedelta("5h30min")).to_csv("bars.csv", index=False)
    told: list[str] = []
    look_at(Path("bars.csv"), None, Path("q"), STRATEGIES, told.append)
    assert any("times without a zone are read as UTC" in line for line in told)


def test_a_strangers_file_goes_in_with_one_option(tmp_path, monkeypatch):
    bars = _bars(sessions=14).rename(columns={"symbol": "ticker"})
    prices = {name: bars[name] + 0.0123 for name in ("open", "high", "low", "close")}
    times = bars["timestamp"].dt.strftime("%d-%m-%Y %H:%M")
    path = tmp_path / "mein Depot 𝔸.csv"  # beyond the BMP, which JSON writes as two surrogates and TOML does not read
    bars.assign(timestamp=times, **prices).to_csv(path, index=False, float_format="%.4f")
    stated = market_settings(time_format="%d-%m-%Y %H:%M")
    files = look_at(path, None, Path("q"), STRATEGIES, lambda _: None, stated=stated)
    configuration = tmp_path / "demo.toml"
    options = DemoOptions(home=tmp_path / "home", bars=path, market=stated)
    configuration.write_text(configuration_toml(options, files), encoding="utf-8")
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(configuration))
    settings = load_settings()
    assert settings.market.bars_file == path
    assert settings.market.time_format == "%d-%m-%Y %H:%M"
    market = settings.market
    mapping = ColumnMapping.stated(market.columns, market.time_format, market.timezone, market.stamp)
    arrival = read_market(market.bars_file, market.ticks_file, mapping=mapping)
    assert len(arrival.sessions) == 14
    assert arrival.quarantined == {}
    universe, table = arrival.bars[arrival.sessions[0]]
    assert [instrument.symbol for instrument in universe.instruments] == sorted(set(bars["ticker"]))
    assert table.close[0] == round(float(prices["close"].iloc[0]), 4)


# --- what comes after ---------------------------------------------------------------------------------------------


def test_the_next_commands_name_the_program_as_it_was_called(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    for called, shown in (
        (".venv/bin/alpha-panda", ".venv/bin/alpha-panda"),
        (str(tmp_path / ".venv/bin/alpha-panda"), ".venv/bin/alpha-panda"),
        ("/opt/x y/alpha-panda", "'/opt/x y/alpha-panda'"),
        ("/somewhere/live_services/__main__.py", f"{sys.executable} -m live_services"),
    ):
        monkeypatch.setattr(sys, "argv", [called])
        assert program() == shown
    monkeypatch.setattr(sys, "argv", [".venv/bin/alpha-panda"])
    commands = [command for command, _ in next_steps(tmp_path / "home", STRATEGIES, running=False)]
    assert commands == [
        ".venv/bin/alpha-panda demo --bars FILE",
        "cp -n home/alpha-panda.toml . && printf '\\n[[strategies]]\\nname = \"mine\"\\n' >> alpha-panda.toml",
        ".venv/bin/alpha-panda up",
        ".venv/bin/alpha-panda --home home up",
    ]


def test_the_second_strategy_of_the_next_commands_is_one_when_they_are_copied(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "alpha-panda.toml").write_text(configuration_toml(DemoOptions(home=tmp_path / "home")))
    (_, (command, then), (_, what), _) = next_steps(tmp_path / "home", STRATEGIES, running=False)
    subprocess.run(command, shell=True, check=True)
    assert "edit ./alpha-panda.toml" in then
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", "alpha-panda.toml")
    jobs = [strategy.training_job for strategy in load_settings().strategies]
    assert jobs == ["train_momentum", "train_mean_reversion", "train_breakout", "train_mine"]
    assert all(job in what for job in jobs)


def test_what_a_killed_supervisor_left_is_found_by_its_home_and_stopped(tmp_path):
    socket = tmp_path / "supervisor.sock"
    mark = {"SUPERVISOR_SERVER_URL": f"unix://{socket}", "SUPERVISOR_PROCESS_NAME": "kafka"}
    code = "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | mark) as left:
        try:
            assert [p.pid for p in orphans(socket)] == [left.pid]
            assert orphans(tmp_path / "another.sock") == ()
            assert stop_orphans(socket) == "kafka"
            assert orphans(socket) == ()
        finally:
            left.kill()
    assert stop_orphans(socket) == ""
