"""A strategy desk as a snapshot has it, and back: the models are named by version, and come back through the loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from feature_store.features.engine import FeatureEngine
from feature_store.market.types import Bars
from live_services.domain.log import LogPosition
from live_services.domain.snapshot import Tree
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.loaded_model import LoadedModel, RuleFailures
from live_services.domain.strategy.newest_rows import NewestRows
from live_services.domain.written import fields_of, read_rows, read_tables, written_rows, written_tables

ModelOf = Callable[[str, str, str], LoadedModel]
"""``(strategy, model name, version)`` → the version as the strategy asks it."""


def written_desk(desk: StrategyDesk) -> Tree:
    """Write a desk down; what was written of it before becomes this, so nobody may read that any more."""
    for schema, engine in desk._engines.items():
        desk._written[schema] = engine.snapshot(desk._written.get(schema))
    return {
        "decided_ns": desk.decided_ns,
        "failures": [[*key, failed.rows, failed.first] for key, failed in desk.failures.items()],
        "opens": list(desk._opens),
        "kept_sessions": desk._kept_sessions,
        "builder": desk._builder.snapshot(),
        "bars": desk._bars.snapshot(),
        "waiting": written_tables([Bars.concatenate(desk._waiting)] if desk._waiting else []),
        "frames": written_rows([at.topic, at.partition, at.offset, *times] for at, *times in desk._frames),
        "assignments": [
            [one.strategy, one.rung, one.effective_ns, *_version(one.model)]
            for asked in desk._asked.values()
            for one in asked.assignments
        ],
        "features": [
            {"schema": schema, "engine": desk._written[schema], "newest": newest.snapshot()}
            for schema, newest in desk._newest.items()
        ],
    }


def make_ready_to_write(desk: StrategyDesk) -> None:
    """Copy the features' state of new engines now: whoever starts one waits anyway, for the bars of its history."""
    for schema in desk._engines.keys() - desk._written.keys():
        desk._written[schema] = desk._engines[schema].snapshot()


def restore_desk(desk: StrategyDesk, kept: Tree, model_of: ModelOf) -> None:
    """Let a new desk of the same opening go on where a snapshot was taken.

    Raises
    ------
    feature_store.features.engine.StateMismatch
        If the features are of another universe, code, or of other corporate actions.
    KeyError
        If it is of other strategies.
    """
    there = fields_of(kept)
    desk.decided_ns = there["decided_ns"]
    desk.failures = {(name, rung): RuleFailures(rows, first) for name, rung, rows, first in there["failures"]}
    desk._opens, desk._kept_sessions = list(there["opens"]), there["kept_sessions"]
    desk._builder.restore(there["builder"])
    desk._bars.restore(there["bars"])
    desk._waiting = read_tables(there["waiting"])
    desk._frames = deque((LogPosition(*at), first, last) for *at, first, last in read_rows(there["frames"]))
    for strategy, rung, effective_ns, name, version in there["assignments"]:
        model = model_of(strategy, name, version) if version is not None else None
        desk._asked[strategy, rung].assignments.append(Assignment(effective_ns, strategy, model, rung))
    schemas = {model.schema.hash: model.schema for asked in desk._asked.values() for model in asked.models}
    for features in there["features"]:
        schema = schemas[features["schema"]]
        engine = desk._engines[schema.hash] = FeatureEngine(schema, desk._universe, desk._actions)
        engine.restore(features["engine"])
        desk._written[schema.hash] = features["engine"]
        newest = desk._newest[schema.hash] = NewestRows(schema, desk._universe, desk._own)
        newest.restore(features["newest"])


def _version(model: LoadedModel | None) -> tuple[Any, Any]:
    return (None, None) if model is None else (model.identity.model_name, model.identity.model_version)
