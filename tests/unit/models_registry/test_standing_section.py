import pytest

from models_registry.ledger_entries import LedgerEntry
from models_registry.standing_section import with_standing

PAGE = "momentum, logistic regression on NSE. The champion gate did not pass.\n\nTrained on 5 rows.\n\n| a | b |"
HOUR = 3600 * 10**9


def entry(number, version, **changes):
    values = {
        "at_ns": 1_768_970_000 * 10**9 + number * HOUR,
        "model_name": "momentum",
        "alias": "champion",
        "from_version": None,
        "to_version": version,
        "action": "promote",
        "by": "asha",
        "reason": "better",
        "number": number,
    }
    return LedgerEntry(**(values | changes))


def test_the_page_says_who_overruled_the_gate_and_why_under_its_first_paragraph():
    page = with_standing(PAGE, [entry(1, "1", override=True, action="override", reason="a\ntrial")], "1")
    first, comment, line, *rest = page.split("\n\n")
    assert (first, comment) == (PAGE.partition("\n")[0], "<!-- what the promotion ledger says -->")
    assert line == (
        "**Is champion** **against its gate**: it was put on this rung by asha on 2026-01-21 11:03:20 IST. Reason: a "
        "trial (ledger entry 1)"
    )
    assert rest[1] == "Trained on 5 rows."


def test_a_version_that_was_replaced_or_came_back_or_stands_on_two_rungs_says_so():
    history = [entry(1, "1"), entry(2, "2", alias="challenger"), entry(3, "2"), entry(4, "1", action="rollback")]
    assert "**Was champion**" in with_standing(PAGE, history[:3], "1")
    assert "until asha on 2026-01-21 13:03:20 IST put v2 there" in with_standing(PAGE, history[:3], "1")
    second = with_standing(PAGE, history[:3], "2")
    assert "**Is challenger**" in second
    assert "**Is champion**" in second
    assert "it was brought back to this rung by asha" in with_standing(PAGE, history, "1")


@pytest.mark.parametrize("page", [PAGE, "one paragraph", ""])
def test_the_section_is_replaced_however_often_it_is_written_and_nothing_else_is(page):
    first = with_standing(page, [entry(1, "1")], "1")
    assert with_standing(first, [entry(1, "1")], "1") == first
    other = with_standing(first, [entry(1, "1"), entry(2, "2")], "1")
    assert other.count("what the promotion ledger says") == 2
    assert with_standing(other, [], "1") == page


def test_a_long_reason_is_cut_between_words_because_a_page_has_little_room():
    page = with_standing(PAGE, [entry(1, "1", reason="word " * 400)], "1")
    assert "word word… (ledger entry 1)" in page
    assert len(page) < len(PAGE) + 500


@pytest.mark.parametrize("phase", ["intent", "undone", "observed", "noted"])
def test_what_is_no_promotion_is_not_said(phase):
    assert with_standing(PAGE, [entry(1, "1", phase=phase)], "1") == PAGE
