"""A task as a snapshot has it, and back; what the snapshot does not hold is read again from the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from live_services.domain.clock import read_session
from live_services.domain.snapshot import CorruptSnapshot, Tree
from live_services.runtime.control import control_behind
from live_services.runtime.failures import RuntimeFailure
from live_services.runtime.task import TaskRun


def written_task(run: TaskRun) -> Tree:
    """Write down what a successor goes on from; it belongs to the positions that were asked for just before.

    None outside a session, while running again, and for a chain that keeps no state.
    """
    if not run.live or run.session is None or run._state is None or run.opening is not None:
        return None
    states = run._chain.snapshot(run._state)
    if states is None:
        return None
    session = run.session
    return {
        "session": (session.date.isoformat(), session.open_ns, session.close_ns),
        "universe_digest": run._reception.digest_of(session),
        "now_ns": run.now_ns,
        "promised_ns": run._promised_ns,
        "forwarded_ns": run._forwarded_ns,
        "controls": run._controls,
        "answered": run._answered,
        "records_handled": run.records_handled,
        "outputs": [(topic, kind, count) for (topic, kind), count in run.outputs.items()],
        "open_offsets": [(*key, offset) for key, offset in run._open_offsets.items()],
        "not_in_force": sorted(run._not_in_force),
        "failures": [*run._state.failures.items()],
        "silenced": sorted(run._state.silenced),
        "letters": run._letters.snapshot(),
        "said": run.said.snapshot(),
        "inputs": run.merge.snapshot(),
        "states": states,
    }


def restore_task(run: TaskRun, kept: Mapping[str, Any]) -> None:
    """Let a new task go on where a snapshot was taken.

    Raises
    ------
    CorruptSnapshot
        If it cannot be read, or its universe was never told here.
    RuntimeFailure
        If the session cannot be run again from its open either.
    """
    try:
        session, digest = read_session(*kept["session"]), kept["universe_digest"]
        run._reception.know(session, digest)
        run.session, run.now_ns = session, kept["now_ns"]
        run._promised_ns, run._forwarded_ns = kept["promised_ns"], kept["forwarded_ns"]
        run._controls, run._answered = kept["controls"], kept["answered"]
        run._control = control_behind(run._control, run._controls, run.now_ns)
        run.records_handled = kept["records_handled"]
        run.outputs.update({(topic, kind): count for topic, kind, count in kept["outputs"]})
        run._open_offsets = {(topic, partition): offset for topic, partition, offset in kept["open_offsets"]}
        run._letters.restore(kept["letters"])
        run.said.restore(kept["said"])
        run.read_from = run.merge.restore(kept["inputs"], run.now_ns)
        run._starts |= run.read_from
        run._state = run._chain.restore(session, run._universe_of(session), run.task, kept["states"])
        run._state.failures.update(dict(kept["failures"]))
        run._state.silenced.update(kept["silenced"])
        run._not_in_force.update(kept["not_in_force"])
    except RuntimeFailure:
        raise
    except Exception as damage:  # whatever a state that other code wrote makes a service meet
        raise CorruptSnapshot(f"the snapshot of {run.task} cannot be read: {damage!r}") from damage
