from models_registry.description import describe, plots, shortened
from models_registry.sidecar import DataLineage
from tests.models_registry_frames import FAILED_GATE, gate, sidecar, trained


def shown(text):
    """Give what MLflow shows: its tables need an entity at the end of a cell to keep columns apart."""
    return text.replace("&emsp;|", " |")


def test_columns_are_kept_apart_where_the_interface_has_no_padding():
    rows = [line for line in describe(sidecar()).splitlines() if line.startswith("| ")]
    assert rows
    assert all(row.count("&emsp;|") == row.count("|") - 1 for row in rows)


def test_the_description_compares_candidate_baseline_and_champion():
    text = shown(describe(sidecar(), sidecar(), "3"))
    assert "| out of fold | candidate | naive baseline | champion v3 |" in text
    assert "SYNTHETIC test" in text
    assert "from 2026-01-05 to 2026-01-16" in text
    assert "in Dagster's run `r1`" in text
    assert "http" not in text
    assert text.count("| passed |") == len(gate().checks) + 6  # of 9 for live
    assert "### Gate for champion" in text
    assert "### Gate for live" in text
    assert "bars time:60s (bars built from ticks)" in text
    assert "Warning" not in text


def test_without_a_champion_its_column_is_empty():
    text = shown(describe(sidecar()))
    assert "| naive baseline | champion (none yet) |" in text
    assert "| AUC | 0." in text
    assert text.count("| – |") >= 7


def test_the_page_begins_with_the_verdict_in_plain_words_and_a_failed_gate_says_why():
    text = shown(describe(sidecar(gate_result=FAILED_GATE)))
    failed = "ranks_above_chance saw 0.49, asked for > 0.5."
    begins = (
        "momentum, hist gradient boosting on SYNTHETIC test. The champion gate did not pass, so the sensor does not "
    )
    assert text.startswith(f"{begins}promote this version: {failed}\n")
    assert "| ranks_above_chance | **failed** | 0.49 | > 0.5 |" in text


def test_a_model_of_another_bar_source_says_so_at_the_top_and_in_its_gate():
    text = shown(describe(sidecar(gate_result=gate(bar_source="vendor"))))
    warning = "The champion gate passed. Warning: trained on a vendor's bars, trades on bars built from ticks."
    assert text.index(warning) < text.index("| out of fold")
    assert "| bar_source | *warning* | trained on a vendor's bars, trades on bars built from ticks |" in text


def test_a_champion_of_other_sessions_is_said_not_to_compare_whatever_its_file_is_called():
    said = "on other sessions or instruments"
    renamed = sidecar().model_copy(update={"market": "files nse.parquet"})
    assert said not in describe(sidecar(), renamed, "1")
    lineage = DataLineage(generated=True, sessions={"2026-01-05": "f" * 64})
    assert said in describe(sidecar(), sidecar().model_copy(update={"lineage": lineage}), "1")


def test_where_the_market_came_from_stands_once_and_short_on_the_page():
    files = {f"minute_{day}.parquet": "f" * 64 for day in range(60)}
    text = describe(sidecar().model_copy(update={"market": "NSE", "market_details": {"files": files}}))
    assert text.startswith("momentum, hist gradient boosting on NSE. ")
    assert text.count("minute_0.parquet") == 1
    assert "minute_59.parquet" not in text


def test_the_page_says_what_the_thresholds_were_taken_from():
    origin = sidecar().thresholds_from
    assert f"the quantiles 0.98 and 0.02 of how the model of fold 4 leaned on {origin.rows} rows of" in describe(
        sidecar()
    )
    older = describe(sidecar().model_copy(update={"thresholds_from": None}))
    assert "or less.\n" in older


def test_a_page_that_is_too_long_for_the_registry_leaves_whole_sections_out_and_names_them():
    page = describe(sidecar())
    assert shortened(page, len(page)) == page
    short = shortened(page, len(page) - 1)
    assert len(short) < len(page)
    assert "### Walk-forward folds" not in short
    assert short.endswith("Left out here, for want of room: Walk-forward folds. Dagster shows it.")
    shortest = shortened(page, 3_000)
    assert len(shortest) <= 3_000
    assert shortest.startswith(page.partition("\n")[0])
    assert "### What made it" in shortest
    assert "Left out here, for want of room: Walk-forward folds, Gate for live, Gate for champion." in shortest


def test_the_page_tells_trades_thresholds_folds_and_weights():
    text = shown(describe(sidecar()))
    assert "| trades that the account would have made | 240 |" in text
    assert "| a trade net of costs, bps | 3.50 |" in text
    assert "| fold | trained | tested | rows | AUC | log loss | naive log loss | buy at | sell at | trades |" in text
    assert "4 instruments; 4 folds with an embargo of 0 sessions. Rows weigh by how much of their label's" in text
    assert "to 2026-01-16 (IST)" in text


def test_a_version_1_page_is_written_without_what_it_lacks():
    older = sidecar().model_copy(
        update={"specification": {}, "train_through": "", "lineage": None, "live_gate": None, "fold_parameters": {}}
    )
    text = describe(older)
    assert "Rows weigh" not in text
    assert "### Gate for live" not in text


def test_plots_are_pngs_and_the_same_every_time():
    first = plots(trained())
    assert set(first) == {"score_deciles.png", "calibration.png"}
    assert all(value.startswith(b"\x89PNG") for value in first.values())
    assert first == plots(trained())
