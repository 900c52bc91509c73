from models_registry.description import LONGEST_PAGE, ROOM_FOR_STANDING, describe, shortened, with_plots
from models_registry.pictures import EQUITY_PLOT, SCORES_PLOT
from models_registry.refs import GateCheck, GateResult
from models_registry.sidecar import DataLineage
from tests.models_registry_frames import FAILED_GATE, gate, sidecar

SECTIONS = [
    "What it bets on",
    "Verdict",
    "Against the champion",
    "Equity in sessions that no model had seen",
    "What its scores are worth",
    "Tries",
    "Walk-forward folds",
    "Period and data",
    "Identity",
]
SHOWN = (EQUITY_PLOT, SCORES_PLOT)


def shown(text):
    """Give what MLflow shows: its tables need an entity at the end of a cell to keep columns apart."""
    return text.replace("&emsp;|", " |")


def titles(text):
    return [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]


def test_the_page_tells_its_story_in_order_and_ids_come_last():
    text = describe(sidecar(), shown=SHOWN)
    assert titles(text) == SECTIONS
    assert "What live reads is `" in text.partition("### Identity")[2]
    assert sidecar().training_data_digest[:12] not in text.partition("### Identity")[0]
    assert "http" not in text


def test_columns_are_kept_apart_where_the_interface_has_no_padding():
    rows = [line for line in describe(sidecar()).splitlines() if line.startswith("| ")]
    assert rows
    assert all(row.count("&emsp;|") == row.count("|") - 2 for row in rows)


def test_the_page_begins_with_the_verdicts_in_plain_words():
    first = describe(sidecar()).partition("\n")[0]
    assert first.startswith("momentum says the side at every bar, by hist gradient boosting on a SYNTHETIC market. ")
    assert "Paper: passed. Money: refused, " in first
    assert not set("|*`#") & set(first)


def test_a_refused_version_says_why_in_words_and_what_was_seen():
    text = describe(sidecar(gate_result=FAILED_GATE))
    assert "Paper: refused, its ranking is not shown to be better than chance." in text.partition("\n")[0]
    assert "**Paper (champion): refused**, 0 of 1 checks hold.\n* ✗ **its ranking is not shown" in text
    assert "to be better than chance**: 0.49\n" in text


def test_a_check_that_has_no_words_is_told_by_its_name_and_further_reasons_are_counted():
    checks = tuple(GateCheck(name=f"own_check_{k}", passed=False, observed="no", required="yes") for k in range(3))
    first = describe(sidecar(gate_result=GateResult(rung="champion", checks=checks))).partition("\n")[0]
    assert "Paper: refused, own check 0 and 2 reasons more." in first


def test_a_model_of_another_bar_source_is_warned_of_in_its_verdict():
    text = describe(sidecar(gate_result=gate(bar_source="vendor")))
    warning = "⚠ **it trades on other bars than it was trained on**: trained on a vendor's bars, trades on bars built"
    assert warning in text.partition("### Against")[0]


def test_candidate_and_champion_stand_side_by_side_and_are_compared_on_the_same_rows():
    text = shown(describe(sidecar(), sidecar(), "3"))
    assert "| out of fold | candidate | champion v3 |" in text
    assert "On the same rows: no champion to beat." in text
    assert "| bps a trade, net | 3.50 | 3.50 |" in text
    alone = shown(describe(sidecar()))
    assert "No version was champion when it was judged." in alone
    assert "| out of fold | candidate |\n" in alone


def test_a_champion_of_other_sessions_is_said_not_to_compare_whatever_its_file_is_called():
    said = "on other sessions or instruments"
    renamed = sidecar().model_copy(update={"market": "files nse.parquet"})
    assert said not in describe(sidecar(), renamed, "1")
    lineage = DataLineage(generated=True, sessions={"2026-01-05": "f" * 64})
    assert said in describe(sidecar(), sidecar().model_copy(update={"lineage": lineage}), "1")


def test_tries_looks_and_folds_are_told():
    text = shown(describe(sidecar()))
    assert "1 configuration tried under this name. Sharpe ratio" in text
    assert "The sessions after 2026-01-16 had never been looked at." in text
    assert "| fold | tested | rows | AUC | trades | net bps a trade |" in text
    looked = sidecar()
    looked = looked.model_copy(update={"metrics": looked.metrics | {"holdout_looks": 2.0, "configurations_tried": 7.0}})
    assert "had been looked at 2 times." in describe(looked)
    assert "7 configurations tried under this name, which count as 1.0 independent ones." in describe(looked)


def test_where_the_market_came_from_stands_once_and_short_on_the_page():
    files = {f"minute_{day}.parquet": "f" * 64 for day in range(60)}
    text = describe(sidecar().model_copy(update={"market": "NSE", "market_details": {"files": files}}))
    assert text.startswith("momentum says the side at every bar, by hist gradient boosting on NSE. ")
    assert "The market: files 60 (the first minute_0.parquet)." in text
    assert "f" * 20 not in text


def test_the_page_says_what_the_thresholds_were_taken_from():
    origin = sidecar().thresholds_from
    said = f"the quantiles 0.98 and 0.02 of what fold 4 leaned on {origin.rows} rows of"
    assert said in describe(sidecar())
    assert "quantiles" not in describe(sidecar().model_copy(update={"thresholds_from": None}))


def test_plots_get_their_addresses_where_the_page_names_them():
    page = with_plots(describe(sidecar(), shown=SHOWN), {EQUITY_PLOT: "get?equity", SCORES_PLOT: "get?scores"})
    assert page.index("![equity](get?equity)") < page.index("![scores](get?scores)") < page.index("### Tries")
    assert "plots/" not in page
    assert "![" not in describe(sidecar())
    assert "### What its scores are worth" not in describe(sidecar())


def test_a_page_with_many_reasons_fits_the_registrys_database_with_all_of_its_sections():
    worst, seen = sidecar(), "what was seen of it, figure by figure, " * 8
    said = {"passed": False, "observed": seen}
    skill, *others = (c for c in worst.gate.checks if c.name != "better_than_champion")
    champion = GateResult(
        rung="champion",
        checks=(*(c.model_copy(update=said) for c in others[-7:]), skill, *others[:-7]),
        judged_against="17",
    )
    live = GateResult(rung="live", checks=tuple(c.model_copy(update=said) for c in worst.live_gate.checks))
    files = {f"minute_{day}.parquet": "f" * 64 for day in range(60)}
    worst = worst.model_copy(update={"gate": champion, "live_gate": live, "market_details": {"files": files}})
    whole = describe(worst, sidecar(), "17", shown=SHOWN)
    assert whole.count(seen) == 7 + 9
    page = shortened(whole, LONGEST_PAGE - ROOM_FOR_STANDING)
    assert len(page) <= LONGEST_PAGE - ROOM_FOR_STANDING
    assert titles(page) == SECTIONS
    assert page.count("✗") + page.count("⚠") == 7 + 9


def test_a_page_that_is_too_long_for_the_registry_says_less_of_its_reasons_then_leaves_sections_out_by_name():
    page = describe(sidecar(), shown=SHOWN)
    assert shortened(page, len(page)) == page
    short = shortened(page, len(page) - 1)
    assert len(short) < len(page)
    assert titles(short) == SECTIONS
    shortest = shortened(page, 2_000)
    assert len(shortest) <= 2_000
    assert shortest.startswith(page.partition("\n")[0])
    assert "### Identity" in shortest
    assert "Left out here, for want of room: Period and data, Walk-forward folds, Tries" in shortest
    assert "* ✗ **luck could do as well after so many tries**\n" in shortest


def test_a_version_1_page_is_written_without_what_it_lacks():
    older = sidecar().model_copy(
        update={"specification": {}, "train_through": "", "lineage": None, "live_gate": None, "fold_parameters": {}}
    )
    text = describe(older)
    assert "**Size**" not in text
    assert "Money" not in text.partition("### Against")[0]
