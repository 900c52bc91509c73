"""What must hold between the training set and the session that is replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.market.types import ist_day, ist_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from feature_store.market.checks import CheckResult


def labels_end_in_time(
    decision_ns: NDArray[np.int64], label_end_ns: NDArray[np.int64], replay_open_ns: int | None
) -> CheckResult:
    """A label ends after its decision, on the same IST day, and before the replayed session opens.

    Parameters
    ----------
    decision_ns, label_end_ns : ndarray of int64, shape (n,)
        Of the rows that are trained on.
    replay_open_ns : int or None
        None if nothing is replayed.
    """
    from feature_store.market.checks import CheckResult

    backwards = int((label_end_ns <= decision_ns).sum())
    overnight = int((ist_day(decision_ns - 1) != ist_day(label_end_ns - 1)).sum())
    late = int((label_end_ns > replay_open_ns).sum()) if replay_open_ns is not None else 0
    details: dict[str, int | float | str] = {
        "labels": len(decision_ns),
        "not_after_decision": backwards,
        "over_night": overnight,
        "inside_replay": late,
        "last_ends": ist_text(int(label_end_ns.max())) if len(label_end_ns) else "",
        "replay_opens": ist_text(replay_open_ns) if replay_open_ns is not None else "nothing is replayed",
    }
    return CheckResult("labels_end_in_time", backwards == overnight == late == 0 and len(decision_ns) > 0, details)
