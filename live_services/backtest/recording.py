"""What was tried and what was looked at, told to the table of trials: no backtest is free of charge.

A configuration is all that makes profits differ from another's on the same sessions: the recipe of the model, how it is
measured and cut, how it is traded, the account, the fills. The version's number does not stand in it: to train again is
no other configuration. The training writes its candidate by the same function, so a backtest of a version as it was
judged is no new try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from models_registry.specification import NOT_OF_THE_MODEL, StrategySpec
from models_registry.trials import HoldoutLook, Trial, TrialTable

if TYPE_CHECKING:
    from live_services.domain.limits import AccountConfig

_NO_DIFFERENCE: Final = frozenset({"name", "model", "brokers", "priority", "search_tries"})
"""Fields that a strategy's own profits do not depend on when it trades alone; what a search chose stands in the
hyperparameters."""


def configuration(
    recipe_digest: str,
    made: Mapping[str, Any],
    traded: StrategySpec,
    account: AccountConfig,
    *,
    fills: str = "bars",
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Give a configuration as plain values.

    Parameters
    ----------
    recipe_digest : str
        Of the recipe, with the versions of its features and its rule.
    made : mapping
        The specification that the model was made by, as its sidecar has it.
    traded : StrategySpec
        The strategy as it trades.
    account : AccountConfig
    fills : {"bars", "ticks"}
    thresholds : mapping, optional
        Those that a person set; the model's own follow from its recipe and data.
    """
    how = traded.model_dump(mode="json", include=set(NOT_OF_THE_MODEL - _NO_DIFFERENCE))
    return {
        "recipe_digest": recipe_digest,
        "made": {name: value for name, value in made.items() if name not in NOT_OF_THE_MODEL | _NO_DIFFERENCE},
        "traded": how,
        "thresholds": dict(thresholds or {}),
        "account": account.model_dump(mode="json"),
        "fills": fills,
    }


@dataclass(frozen=True)
class Recorders:
    """Who is told of looks at the hold-out and of what was tried; None: nobody."""

    look: Callable[[HoldoutLook], object] | None = None
    trial: Callable[[Trial], object] | None = None

    @classmethod
    def of(cls, url: str) -> Recorders:
        """Tell the table of trials beside the ledger, by its SQLAlchemy URL."""
        table = TrialTable(url)
        return cls(table.look, table.record)
