from models_registry.description import describe, plots
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
    assert "[The Dagster run that trained it](http://127.0.0.1:3000/runs/1)" in text
    assert text.count("| passed |") == 9
    assert "bars time:60s (bars built from ticks)" in text
    assert "Warning" not in text


def test_without_a_champion_its_column_is_empty():
    text = shown(describe(sidecar()))
    assert "| naive baseline | champion (none yet) |" in text
    assert "| AUC, out of fold | 0." in text
    assert text.count("| – |") >= 7


def test_a_failed_gate_is_written_in_bold_and_says_why_before_anything_else():
    text = shown(describe(sidecar(gate_result=FAILED_GATE)))
    verdict = "gate **did not pass**, so this version is not promoted: auc_above_chance saw 0.49, asked for > 0.5."
    assert verdict in text
    assert text.index(verdict) < text.index("| out of fold")
    assert "| auc_above_chance | **failed** | 0.49 | > 0.5 |" in text


def test_a_model_of_another_bar_source_says_so_at_the_top_and_in_its_gate():
    text = shown(describe(sidecar(gate_result=gate(bar_source="vendor"))))
    warning = "The champion gate passed. Warning: trained on a vendor's bars, trades on bars built from ticks."
    assert text.index(warning) < text.index("| out of fold")
    assert "| bar_source | *warning* | trained on a vendor's bars, trades on bars built from ticks |" in text


def test_a_champion_of_another_market_is_said_not_to_compare():
    other = sidecar().model_copy(update={"market": "files nse.parquet"})
    assert "cannot be compared" in describe(sidecar(), other, "1")


def test_plots_are_pngs_and_the_same_every_time():
    first = plots(trained())
    assert set(first) == {"score_deciles.png", "calibration.png"}
    assert all(value.startswith(b"\x89PNG") for value in first.values())
    assert first == plots(trained())
