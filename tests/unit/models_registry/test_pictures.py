from models_registry.pictures import EQUITY_PLOT, SCORES_PLOT, plots
from tests.models_registry_frames import SESSIONS_PNL, trained


def drawn(pnl=SESSIONS_PNL):
    return plots(trained().oof, pnl, generated=True, judged=False)


def test_plots_are_pngs_and_the_same_every_time():
    first = drawn()
    assert list(first) == [EQUITY_PLOT, SCORES_PLOT]
    assert all(value.startswith(b"\x89PNG") for value in first.values())
    assert first == drawn()


def test_without_a_session_that_was_traded_no_equity_is_drawn():
    assert list(drawn({})) == [SCORES_PLOT]
    assert list(drawn({"2026-01-05": 0.0})) == [EQUITY_PLOT, SCORES_PLOT]
