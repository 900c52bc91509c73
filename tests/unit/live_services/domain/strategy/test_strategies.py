"""Strategies of one desk: what goes together, and what a person reads when it does not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from live_services.cli.main import app
from live_services.domain.strategy.checks import WrongStrategy, stored_schema, strategy_schema
from live_services.settings import Settings
from live_services.settings_report import describe_error, report
from models_registry.specification import NOT_OF_THE_MODEL, RUNG_OF_BROKER, StrategySpec, by_model, model_differences

MADE_BY = sorted(StrategySpec.model_fields.keys() - NOT_OF_THE_MODEL - {"bar_minutes"})
RULE = {"rule": "stretch", "rule_parameters": {}}
OTHER = {
    "features": ["rsi"],
    "holding_bars": 5,
    "exit_minutes_before_close": 30,
    "estimator": "logistic_regression",
    "hyperparameters": {"max_iter": 50},
    "seed": 8,
    "folds": 5,
    "embargo_sessions": 1,
    "buy_quantile": 0.9,
    "sell_quantile": 0.1,
    "search_tries": 3,
    "instruments": ["AAA"],
}
OF_A_RULE = {
    "rule": "donchian_break",
    "rule_parameters": {"threshold": 1.0},
    "stop_volatility": 2.0,
    "target_volatility": 2.0,
    "accept_quantile": 0.9,
}
TRADED = {
    "sizing": "volatility_target",
    "notional_per_trade_inr": 5e5,
    "volatility_target_inr": 500.0,
    "risk_per_trade_inr": 500.0,
    "last_entry_minutes_before_close": 60,
    "brokers": ["zerodha", "paper"],
    "priority": 1,
    "product": "CNC",
    "stop_bps": 50.0,
    "target_bps": 100.0,
}


@pytest.fixture(autouse=True)
def settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ALPHA_PANDA_HOME", "ALPHA_PANDA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "alpha-panda.toml"


def _wrong(strategies, **market) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(strategies=strategies, market=market)
    return describe_error(caught.value)


def test_strategies_stand_side_by_side_each_with_its_own_model():
    settings = Settings(strategies=[{"name": "trend"}, {"name": "reversal", "holding_bars": 5}])
    assert [(s.name, s.model, s.training_job) for s in settings.strategies] == [
        ("trend", "trend", "train_trend"),
        ("reversal", "reversal", "train_reversal"),
    ]
    assert settings.digest != Settings(strategies=[{"name": "trend"}]).digest


def test_every_strategy_is_on_the_desks_clock():
    settings = Settings(market={"bar_minutes": 5}, strategies=[{"name": "a"}, {"name": "b", "bar_minutes": 5}])
    assert [strategy.bar_minutes for strategy in settings.strategies] == [5, 5]


def test_another_clock_is_refused_with_the_way_out():
    text = _wrong([{"name": "a"}, {"name": "b", "bar_minutes": 5}], bar_minutes=1)
    assert "strategy 'b' is on bars of 5 minutes and market.bar_minutes is 1" in text
    assert "set market.bar_minutes" in text
    assert "trend_slope@5m" in text


def test_two_strategies_of_one_name_are_refused():
    assert "two strategies are named 'a': give each a name of its own" in _wrong([{"name": "a"}, {"name": "a"}])


def test_a_desk_without_a_strategy_is_refused():
    assert "add a table [[strategies]]" in _wrong([])


def test_two_strategies_may_ask_one_model_if_they_differ_only_in_how_they_trade_it():
    one = {"name": "small", "model": "m"}
    settings = Settings(strategies=[one, {"name": "large", "model": "m", **TRADED}])
    assert {name: spec.name for name, spec in by_model(settings.strategies).items()} == {"m": "small"}
    assert TRADED.keys() == NOT_OF_THE_MODEL - {"name", "model"}


@pytest.mark.parametrize("name", MADE_BY)
def test_one_model_that_two_would_make_differently_is_refused_with_what_differs(name):
    base, other = ({"model": "m"}, OTHER) if name in OTHER else ({"model": "m", **RULE}, OF_A_RULE)
    text = _wrong([{**base, "name": "a"}, {**base, "name": "b", name: other[name]}])
    assert f"the model 'm' is asked by 'a' and by 'b', which differ in {name};" in text
    assert "give 'b' a model of its own (model = \"b\")" in text


def test_specifications_that_differ_name_every_field():
    one, other = StrategySpec(name="a"), StrategySpec(name="b", seed=1, folds=2)
    assert model_differences(one, other) == ("seed", "folds")


@pytest.mark.parametrize(
    "model", ["m@champion", "m@live", "m@chmpion", "m@", "models:/m", "models:/m@champion", "models:/m/3", "m/3"]
)
def test_a_model_is_named_without_its_alias_because_the_broker_gives_the_rung(model):
    text = _wrong([{"name": "a", "model": model}])
    assert (
        'strategies.0.model (from default): leave alias, version and models:/ out and write model = "m", because the '
        f"broker gives the rung (paper: champion, zerodha: live) (it is {model!r})"
    ) in text


def test_each_account_asks_its_own_rung_of_the_model():
    spec = StrategySpec(name="trend", brokers=("paper", "zerodha"))
    assert [str(spec.ref(RUNG_OF_BROKER[broker])) for broker in spec.brokers] == ["trend@champion", "trend@live"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"brokers": []}, "a strategy trades on some account: name paper or zerodha, or take the strategy out"),
        ({"brokers": ["paper", "zerodha", "paper"]}, "name each once; paper is there more than once"),
        ({"brokers": ["papr"]}, "strategies.0.brokers.0 (from default): Input should be 'paper' or 'zerodha'"),
        ({"product": "mis"}, "strategies.0.product (from default): Input should be 'MIS' or 'CNC'"),
        ({"stop_bps": 0}, "strategies.0.stop_bps (from default): Input should be greater than 0"),
        ({"stop_bps": float("nan")}, "strategies.0.stop_bps (from default): Input should be a finite number"),
        ({"target_bps": 10_000}, "strategies.0.target_bps (from default): Input should be less than 10000"),
        ({"stopp_bps": 5}, "strategies.0.stopp_bps (from default): there is no such setting; did you mean stop_bps?"),
    ],
)
def test_what_a_strategy_cannot_trade_by_is_refused_by_its_key(setting, said):
    assert said in _wrong([{"name": "a", **setting}])


def test_a_strategy_trades_on_paper_intraday_and_without_barriers_unless_it_says_so():
    spec = StrategySpec(name="a")
    assert (spec.brokers, spec.product, spec.priority, spec.stop_bps, spec.target_bps) == (
        ("paper",),
        "MIS",
        0,
        None,
        None,
    )


def test_the_specification_of_a_sidecar_is_read_without_how_it_was_traded():
    recorded = StrategySpec(name="a", seed=3).model_dump(mode="json") | {"model": "m@champion", "stop_bps": -1.0}
    assert StrategySpec.of_model(recorded) == StrategySpec(name="a", seed=3)
    with pytest.raises(ValidationError):
        StrategySpec.of_model(recorded | {"seeds": 3})
    with pytest.raises(ValidationError):
        StrategySpec.of_model({})


@pytest.mark.parametrize("name", ["my-model", "v1.2", "live", "1st", "@champion", "m:1"])
def test_a_model_that_no_asset_can_be_named_after_is_refused(name):
    text = _wrong([{"name": "a", "model": name}])
    assert "strategies.0.model" in text
    assert repr(name) in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('features = ["momentum", "rsy"]', "features of 'mine': no feature is named 'rsy'; did you mean rsi?"),
        ('features = ["rsi@7s"]', "features of 'mine': rsi@7s:"),
        (
            "hyperparameters = {max_itr = 50}",
            "hist_gradient_boosting has no hyperparameter 'max_itr'; did you mean",
        ),
        ("hyperparameters = {random_state = 1}", "random_state cannot be set: set seed instead"),
        (
            'estimator = "logistic_regression"\nhyperparameters = {max_bins = 9}',
            "logistic_regression has no hyper",
        ),
    ],
)
def test_a_name_that_there_is_not_is_found_by_config_show_and_before_up_starts_anything(settings_file, line, told):
    settings_file.write_text(f'[[strategies]]\nname = "momentum"\n[[strategies]]\nname = "mine"\n{line}\n')
    shown = CliRunner().invoke(app, ["config", "show"])
    assert shown.exit_code == 1
    assert told in " ".join(shown.output.split())
    assert "strategies.1.name" in shown.output  # what is set stands there all the same
    started = CliRunner().invoke(app, ["up"])
    assert started.exit_code == 1
    assert told in " ".join(started.output.split())
    home = settings_file.parent / ".alpha-panda"
    assert [path.name for path in home.iterdir()] == ["logs"], "what was refused is told, and nothing else was begun"
    assert (home / "logs" / "preflight_summary.json").exists()


def test_each_value_of_a_strategy_names_its_origin(settings_file, monkeypatch):
    settings_file.write_text('[[strategies]]\nname = "mine"\nholding_bars = 5\nhyperparameters = {max_iter = 50}\n')
    lines = {line.key: line for line in report({"market": {"bar_minutes": 3}})}
    assert lines["strategies.0.holding_bars"].origin == "file alpha-panda.toml"
    assert lines["strategies.0.hyperparameters"].value == "max_iter = 50"
    assert (lines["strategies.0.bar_minutes"].value, lines["strategies.0.bar_minutes"].origin) == (
        "3",
        "market.bar_minutes",
    )
    assert lines["strategies.0.seed"].origin == "default"
    monkeypatch.setenv("STRATEGIES", '[{"name": "other"}]')
    lines = {line.key: line for line in report({})}
    assert lines["strategies.0.name"].origin == "environment STRATEGIES"
    assert lines["strategies.0.holding_bars"].origin == "default"  # lists are not merged


def test_the_store_keeps_what_any_strategy_asks_once(settings_file):
    asked = [{"name": "a", "features": ["rsi", "trend_slope@5m"]}, {"name": "b", "features": ["momentum", "rsi"]}]
    assert set(stored_schema(Settings(strategies=asked).strategies).names) == {"rsi", "trend_slope@5m", "momentum"}


def test_a_square_off_before_a_strategys_last_exit_is_refused_and_one_of_delivered_shares_is_not():
    late = {"name": "late", "exit_minutes_before_close": 2}
    with pytest.raises(
        ValidationError, match="'late' may hold until 2 minutes before the close, and the paper account"
    ):
        Settings(strategies=(late,))
    Settings(strategies=(late | {"product": "CNC"},))
    Settings(strategies=(late,), trading={"paper": {"enabled": True, "square_off_minutes_before_close": 2}})


def test_a_strategy_picks_features_in_order_and_a_wrong_name_gets_its_neighbour() -> None:
    chosen = StrategySpec(name="momentum", features=("trend_slope@5m", "rsi"))
    assert strategy_schema(chosen).names == ("trend_slope@5m", "rsi")
    with pytest.raises(WrongStrategy, match=r"'momentum': .*did you mean .*rsi"):
        strategy_schema(StrategySpec(name="momentum", features=("rssi",)))
    with pytest.raises(WrongStrategy, match="90s"):
        strategy_schema(StrategySpec(name="momentum", features=("rsi@90s",)))
    assert "momentum" in strategy_schema(StrategySpec(name="momentum")).names


def test_a_feature_in_capitals_is_answered_with_its_name_in_small_letters() -> None:
    with pytest.raises(ValueError, match=r"'Rsi' is not how a feature is named: small letters.*; did you mean 'rsi'\?"):
        StrategySpec(name="momentum", features=("Rsi",))


@pytest.mark.parametrize("wrong", [("rsi", "rsi"), ("RSI",), ("rsi@",), ("",)])
def test_a_list_of_features_that_cannot_be_one_is_refused_with_the_settings(wrong: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="features"):
        StrategySpec(name="momentum", features=wrong)
