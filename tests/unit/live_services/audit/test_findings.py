"""A report says whether it leaks, whether there was enough to look at, and what to do."""

from __future__ import annotations

import json

from live_services.audit.findings import WAY_OUT, AuditReport, Finding, LeakKind, joined


def leak(time_ns: int, column: str = "x") -> Finding:
    kind = LeakKind.FEATURE_LOOKS_AHEAD
    return Finding(kind, "prefix", "features", column, "it moves", "AAA", time_ns, 1.0, float("nan"))


def test_every_kind_of_leak_has_a_way_out() -> None:
    assert set(WAY_OUT) == set(LeakKind)


def test_a_leak_weighs_more_than_too_little_and_too_little_is_no_pass() -> None:
    few = AuditReport("s", {"prefix": 5}, too_few=("two decisions",))
    assert (few.verdict, few.passed) == ("too_few", False)
    assert AuditReport("s", {"prefix": 5}, (leak(1),), ("two decisions",)).verdict == "leaks"
    assert AuditReport("s", {"prefix": 5}).passed
    assert AuditReport("s", {"prefix": 0}).verdict == "too_few"


def test_joined_reports_add_up_and_keep_the_first_row_of_each_leak() -> None:
    parts = [
        AuditReport("a", {"prefix": 5}, (leak(20), leak(30, "y")), counts={"bars": 2}),
        AuditReport("b", {"prefix": 7, "label": 1}, (leak(10),), notes=("said",), counts={"bars": 3}),
    ]
    whole = joined("s", parts)
    assert (whole.compared, whole.counts, whole.notes) == ({"prefix": 12, "label": 1}, {"bars": 5}, ("said",))
    assert [(one.column, one.time_ns) for one in whole.findings] == [("x", 10), ("y", 30)]


def test_a_record_is_json_and_says_where_and_what_to_do() -> None:
    record = json.loads(json.dumps(AuditReport("s", {"prefix": 5}, (leak(1_767_584_700 * 10**9),)).record()))
    (found,) = record["findings"]
    assert (found["kind"], found["symbol"], found["without_future"]) == ("feature looks ahead", "AAA", None)
    assert found["time"] == "2026-01-05 09:15:00 IST"
    assert found["way_out"]
