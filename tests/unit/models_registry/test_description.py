from models_registry.description import describe, plots
from tests.models_registry_frames import FAILED_GATE, sidecar, trained


def test_the_description_compares_candidate_baseline_and_champion():
    text = describe(sidecar(), sidecar(), "3")
    assert "| out of fold | candidate | naive baseline | champion v3 |" in text
    assert "SYNTHETIC test" in text
    assert "from 2026-01-05 to 2026-01-16" in text
    assert "[The Dagster run that trained it](http://127.0.0.1:3000/runs/1)" in text
    assert text.count("| passed |") == 8


def test_without_a_champion_its_column_is_empty():
    assert "| AUC, out of fold | 0." in describe(sidecar())
    assert describe(sidecar()).count("| – |") >= 8


def test_a_failed_gate_is_written_in_bold():
    text = describe(sidecar(gate_result=FAILED_GATE))
    assert "gate **did not pass**" in text
    assert "| auc_above_chance | **failed** | 0.49 | > 0.5 |" in text


def test_a_champion_of_another_market_is_said_not_to_compare():
    other = sidecar().model_copy(update={"market": "files nse.parquet"})
    assert "cannot be compared" in describe(sidecar(), other, "1")


def test_plots_are_pngs_and_the_same_every_time():
    first = plots(trained())
    assert set(first) == {"score_deciles.png", "calibration.png"}
    assert all(value.startswith(b"\x89PNG") for value in first.values())
    assert first == plots(trained())
