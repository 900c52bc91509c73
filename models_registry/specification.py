"""What a strategy is: the specification that its model is trained by, and that the desk trades by.

It is data, from ``[[strategies]]`` in ``alpha-panda.toml``. Assets, jobs, sensors, commands and the model loader are
made from it, and the sidecar of every version carries it as it was at the fit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models_registry.refs import Alias, ModelRef

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from feature_store.labels.barrier_return import BarrierReturn
    from feature_store.labels.forward_return import ForwardReturn
    from feature_store.proposals.rules import Proposer

Estimator = Literal["hist_gradient_boosting", "random_forest", "logistic_regression"]
ESTIMATORS: Final[tuple[Estimator, ...]] = get_args(Estimator)

Broker = Literal["paper", "zerodha"]
Product = Literal["MIS", "CNC"]
"""Kite's word for what a position is: MIS is squared off on its day, CNC is delivered."""
Sizing = Literal["fixed", "volatility_target", "risk_per_trade"]
"""How many shares a trade has: for a sum of money, for a spread of its outcome, or for a loss at its stop."""
RUNG_OF_BROKER: Final[Mapping[Broker, Alias]] = {"paper": "champion", "zerodha": "live"}
"""Which version of a strategy's model an account runs: the paper account tries out what real money may come to run."""

NOT_OF_THE_MODEL: Final = frozenset(
    {
        "name",
        "model",
        "sizing",
        "notional_per_trade_inr",
        "volatility_target_inr",
        "risk_per_trade_inr",
        "last_entry_minutes_before_close",
        "brokers",
        "priority",
        "product",
        "stop_bps",
        "target_bps",
    }
)
"""Fields in which two strategies that ask one model may differ: they decide how it is traded, not what it is."""

_OF_RULES: Final = ("rule_parameters", "stop_volatility", "target_volatility")
_NAME: Final = r"^[a-z][a-z0-9_]*$"
_MODEL_NAME: Final = r"[A-Za-z][A-Za-z0-9_]*"
_REFERENCE: Final = r"(models:/+)?(?P<name>[^@/]+)([@/].*)?"
TRAIN_ALL: Final = "train_all"
"""The name of the job that trains every model of a desk."""
_RESERVED: Final = frozenset({"live", "all"})  # `live_model` is what the desk runs, `train_all` trains every model
_FEATURE: Final = r"[a-z][a-z0-9_]*(@[a-z0-9]+)?"


class StrategySpec(BaseModel):
    """One strategy: what it looks at, what it foretells, how its model is fitted, and how it trades."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: Annotated[str, Field(pattern=_NAME)]
    """Unique on a desk."""
    model: str = ""
    """The model it asks, by its name in the registry; default: the strategy's name. A model is made one way. Which
    version answers is the broker's to say (`RUNG_OF_BROKER`)."""

    # --- what its model is ---
    features: tuple[str, ...] = ()
    """Names of features, in order (``trend_slope@5m`` is one on five-minute bars); empty: every feature that is finite
    on any source."""
    bar_minutes: int = Field(default=1, ge=1, le=375)
    """The clock it decides on; the desk's ``market.bar_minutes``, which is one for all strategies so far."""
    rule: str = ""
    """What proposes a side on an event (`feature_store.proposals`), for the model to judge; empty: the model itself
    says the side, at every bar."""
    rule_parameters: dict[str, float] = Field(default_factory=dict)
    """Laid over the rule's own."""
    stop_volatility: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    """Of a strategy with a rule: distance of the stop from the opening fill, in volatilities of the holding as they are
    at the decision; its label and its trades end by it."""
    target_volatility: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    """Distance of the target, as the stop's."""
    holding_bars: int = Field(default=10, ge=1)
    """Horizon of the label and of a trade: so many bars times the bar's length, of session time."""
    exit_minutes_before_close: int = Field(default=10, ge=1)
    """Nothing is held any longer: a label that would end later is none, and its decision opens nothing."""
    estimator: Estimator = "hist_gradient_boosting"
    hyperparameters: dict[str, bool | int | float] = Field(default_factory=dict)
    """Passed to the estimator over its defaults, by scikit-learn's names."""
    seed: int = 7
    folds: int = Field(default=4, ge=1)
    """Walk-forward test blocks; sessions are cut into one more."""
    embargo_sessions: int = Field(default=0, ge=0)
    """Sessions left out between the training and the test of a fold."""
    buy_quantile: float = Field(default=0.98, gt=0.5, lt=1.0)
    """Quantile of out-of-fold scores from which on it opens long."""
    sell_quantile: float = Field(default=0.02, gt=0.0, lt=0.5)
    """Quantile of out-of-fold scores up to which it opens short."""
    accept_quantile: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Of a strategy with a rule: the quantile of out-of-fold scores from which on a proposal is accepted."""
    search_tries: int = Field(default=0, ge=0, le=8)
    """Sets of hyperparameters that are tried in the first training block before the fit; each is a trial."""
    instruments: tuple[str, ...] = ()
    """Symbols it is about; empty: every tradable one. It is trained on what was a member (``market.membership``, if a
    table is named) and trades all of them, members or not."""

    # --- how it trades ---
    sizing: Sizing = "fixed"
    """``fixed``: for `notional_per_trade_inr`. ``volatility_target``: so many that the standard deviation of the
    outcome over the holding is `volatility_target_inr`. ``risk_per_trade``: so many that the stop loses
    `risk_per_trade_inr`. The last two never for more than `notional_per_trade_inr`."""
    notional_per_trade_inr: float = Field(default=100_000.0, gt=0)
    volatility_target_inr: float = Field(default=250.0, gt=0)
    risk_per_trade_inr: float = Field(default=250.0, gt=0)
    last_entry_minutes_before_close: int = Field(default=20, ge=1)
    brokers: tuple[Broker, ...] = ("paper",)
    """The brokers on whose accounts it trades, each apart from the others."""
    priority: int = 0
    """Whose entries are judged first where several come at one instant: 1 before 2; equal ones by name."""
    product: Product = "MIS"
    stop_bps: float | None = Field(default=None, gt=0, lt=10_000, allow_inf_nan=False)
    """Loss, from the opening fill's price, at which a position is closed; None: no stop."""
    target_bps: float | None = Field(default=None, gt=0, lt=10_000, allow_inf_nan=False)
    """Gain, from the opening fill's price, at which a position is closed; None: no target."""

    @field_validator("model")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if (named := re.fullmatch(_REFERENCE, value)) and named["name"] != value:
            rungs = ", ".join(f"{broker}: {rung}" for broker, rung in RUNG_OF_BROKER.items())
            raise ValueError(
                f'leave alias, version and models:/ out and write model = "{named["name"]}", because the broker gives '
                f"the rung ({rungs})"
            )
        if value and (not re.fullmatch(_MODEL_NAME, value) or value in _RESERVED):
            raise ValueError(
                f"assets and a job are named after the model, and cannot be named after {value!r}: write a letter, "
                f"then letters, digits and underscores, and not {' or '.join(sorted(_RESERVED))}"
            )
        return value

    @field_validator("brokers")
    @classmethod
    def _of_some_broker(cls, value: tuple[Broker, ...]) -> tuple[Broker, ...]:
        if not value:
            raise ValueError(
                f"a strategy trades on some account: name {' or '.join(RUNG_OF_BROKER)}, or take the strategy out"
            )
        return value

    @field_validator("features")
    @classmethod
    def _named_as_features_are(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(_FEATURE, name):
                small = name.strip().lower()
                raise ValueError(
                    f"{name!r} is not how a feature is named: small letters, digits and underscores, and @5m after it "
                    f"for bars of five minutes{f'; did you mean {small!r}?' if re.fullmatch(_FEATURE, small) else ''}"
                )
        return value

    @field_validator("features", "instruments", "brokers")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(f"name each once; {', '.join(twice)} is there more than once")
        return value

    @model_validator(mode="before")
    @classmethod
    def _own_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") and not values.get("model"):
            values = values | {"model": values["name"]}
        if isinstance(values, dict) and values.get("rule"):
            barriers = {name: 1.0 for name in ("stop_volatility", "target_volatility") if values.get(name) is None}
            values = values | barriers
        return values

    @model_validator(mode="after")
    def _of_one_kind(self) -> StrategySpec:
        if not self.rule:
            wrong = [name for name in _OF_RULES if name in self.model_fields_set and getattr(self, name)]
            if wrong:
                raise ValueError(
                    f'{", ".join(wrong)} belongs to a strategy with a rule: name one (rule = "donchian_break"), or '
                    "leave it out; without a rule the model says the side, and stop_bps and target_bps end a trade"
                )
        elif self.stop_bps is not None or self.target_bps is not None:
            raise ValueError(
                f"stop_bps or target_bps beside the rule {self.rule!r}: what labelled a trade ends it, so give "
                "stop_volatility and target_volatility instead"
            )
        if self.sizing == "risk_per_trade" and not (self.rule or self.stop_bps is not None):
            raise ValueError("sizing risk_per_trade asks for a stop: give stop_bps, or a rule")
        return self

    @classmethod
    def of_model(cls, recorded: Mapping[str, Any]) -> StrategySpec:
        """Read what a sidecar carries, as far as it made the model: how it was traded then may not be allowed now.

        Raises
        ------
        ValueError
            If this code has no such strategy any more.
        """
        beside = NOT_OF_THE_MODEL - {"name"}
        return cls.model_validate({field: value for field, value in recorded.items() if field not in beside})

    def ref(self, rung: Alias) -> ModelRef:
        """Give the model it asks on a rung."""
        return ModelRef(name=self.model, alias=rung)

    @property
    def model_name(self) -> str:
        """The name of its model in the registry."""
        return self.model

    @property
    def training_job(self) -> str:
        """The name of the job that trains its model."""
        return f"train_{self.model_name}"

    @property
    def judged(self) -> bool:
        """Whether its model judges the proposals of a rule."""
        return bool(self.rule)

    def proposer(self) -> Proposer | None:
        """Give the rule with its parameters; None where the model says the side itself.

        Raises
        ------
        ValueError
            If there is no such rule or parameter; the message names near ones.
        """
        from feature_store.proposals.rules import proposer

        return proposer(self.rule, self.rule_parameters) if self.rule else None

    def feature_schema(self) -> FeatureSchema:
        """Give the features its model is trained on, as a schema: what its rule and barriers ask stands in it too.

        Raises
        ------
        feature_store.features.schema.UnknownFeature
            If a feature has no declaration, or its clock does not fit; the message names near ones.
        ValueError
            If there is no such rule.
        """
        from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
        from feature_store.labels.barrier_return import VOLATILITY

        names = self.features or MOMENTUM_FEATURES
        if asks := self.proposer():
            names = tuple(dict.fromkeys((*names, *asks.rule.features, VOLATILITY)))
        return feature_schema(names, self.bar_minutes)

    def label(self) -> ForwardReturn | BarrierReturn:
        """Give what its model foretells."""
        from feature_store.labels.barrier_return import BarrierReturn

        if self.stop_volatility is None or self.target_volatility is None:
            return self.holding_label()
        return BarrierReturn(
            self.holding_bars,
            self.bar_minutes,
            self.exit_minutes_before_close,
            stop_volatility=self.stop_volatility,
            target_volatility=self.target_volatility,
        )

    def holding_label(self) -> ForwardReturn:
        """Give the return over its holding of every bar, whatever would have ended a trade before: what is stored."""
        from feature_store.labels.forward_return import ForwardReturn

        return ForwardReturn(self.holding_bars, self.bar_minutes, self.exit_minutes_before_close)

    def recipe(self) -> dict[str, Any]:
        """Give what decides what is fitted, apart from the data: equal data and equal recipes give equal scores.

        Features stand in it as the schema's columns, with parameters and versions. Folds, embargo and quantiles do not:
        they decide how it is measured and where its thresholds lie.
        """
        asks = self.proposer()
        searched = {"search_tries": self.search_tries} if self.search_tries else {}
        return (
            ({"proposals": asks.identity()} if asks else {})
            | searched
            | {
                "feature_schema_hash": self.feature_schema().hash,
                "label": self.label().identity(),
                "estimator": self.estimator,
                "hyperparameters": dict(sorted(self.hyperparameters.items())),
                "seed": self.seed,
                "instruments": list(self.instruments),
            }
        )

    def recipe_digest(self) -> str:
        """SHA-256 of the recipe's canonical JSON."""
        text = json.dumps(self.recipe(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def of_one_desk(strategies: Sequence[StrategySpec], bar_minutes: int) -> tuple[StrategySpec, ...]:
    """Give strategies as one desk has them: side by side, on its clock.

    Parameters
    ----------
    strategies : sequence of StrategySpec
    bar_minutes : int
        The desk's clock; a strategy that names none takes it.

    Raises
    ------
    ValueError
        If there is none, if two have one name, if one names another clock, or if two ask one model that they
        would make differently; says what to do.
    """
    if not strategies:
        raise ValueError("there is no strategy: add a table [[strategies]] with a name, or leave strategies out")
    names = [strategy.name for strategy in strategies]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two strategies are named {twice[0]!r}: give each a name of its own")
    for strategy in strategies:
        if "bar_minutes" in strategy.model_fields_set and strategy.bar_minutes != bar_minutes:
            raise ValueError(
                f"strategy {strategy.name!r} is on bars of {strategy.bar_minutes} minutes and market.bar_minutes is "
                f"{bar_minutes}; a desk has one clock: set market.bar_minutes, leave bar_minutes out of the strategy, "
                f"and put a feature on longer bars by its name (trend_slope@{strategy.bar_minutes}m)"
            )
    desk = tuple(strategy.model_copy(update={"bar_minutes": bar_minutes}) for strategy in strategies)
    first: dict[str, StrategySpec] = {}
    for strategy in desk:
        other = first.setdefault(strategy.model_name, strategy)
        if different := model_differences(other, strategy):
            raise ValueError(
                f"the model {strategy.model_name!r} is asked by {other.name!r} and by {strategy.name!r}, which differ "
                f"in {', '.join(different)}; a model is made one way: give {strategy.name!r} a model of its own "
                f'(model = "{strategy.name}") or make them equal'
            )
    return desk


def model_differences(one: StrategySpec, other: StrategySpec) -> tuple[str, ...]:
    """Name the fields in which two specifications would make two models: of the recipe, its folds or its thresholds."""
    return tuple(
        name
        for name in StrategySpec.model_fields
        if name not in NOT_OF_THE_MODEL and getattr(one, name) != getattr(other, name)
    )


def by_model(strategies: Sequence[StrategySpec]) -> dict[str, StrategySpec]:
    """Give, for each model that strategies ask, the first that asks it; the others would make the same."""
    found: dict[str, StrategySpec] = {}
    for strategy in strategies:
        found.setdefault(strategy.model_name, strategy)
    return found
