import base64
import math
import xml.etree.ElementTree as ET

import pytest

from dagster_project.plots import (
    MAXIMUM_MARKDOWN,
    column_plot,
    equity_plot,
    heat_map,
    interval_plot,
    line_plot,
    markdown_table,
    session_plot,
    short_lines,
    small_multiples,
)


@pytest.mark.parametrize("plot", [line_plot, column_plot, session_plot, equity_plot])
@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-5e9 * math.sin(i) for i in range(2000)]])
def test_a_plot_is_shown_inline_and_is_an_image(plot, values):
    markdown = plot(values, "Mean forward return by score decile, basis points, lowest score first, over all folds")
    assert len(markdown) <= MAXIMUM_MARKDOWN
    encoded = markdown.split("base64,")[1].split(")")[0]
    assert ET.fromstring(base64.b64decode(encoded)).tag.endswith("svg")


def test_amounts_are_written_out_and_small_figures_to_four_digits():
    assert "first -13,890, lowest -13,890,\\\nhighest 0.1235, last 0.1235" in line_plot([-13_890.2, 0.12345], "Net")


@pytest.mark.parametrize("plot", [line_plot, column_plot, equity_plot])
def test_nothing_to_draw_is_said(plot):
    assert plot([], "Returns") == "Returns: no values"


def _svg(markdown):
    return ET.fromstring(base64.b64decode(markdown.split("base64,")[1].split(")")[0]))


def test_a_heat_map_has_a_line_for_each_name_and_joins_equal_neighbours():
    markdown = heat_map({"AAA": [1.0, 1.0, 0.0], "BBB": [0.6, math.nan, 1.0]}, "Coverage")
    strokes = {path.get("stroke"): path.get("d").count("M") for path in _svg(markdown)}
    assert strokes == {"#c0392b": 1, "#f1c40f": 1, "#2e7d32": 2}
    assert heat_map({}, "Coverage") == "Coverage: no values"


def test_a_heat_map_of_a_whole_exchange_stays_small():
    rows = {f"S{k}": [(k + day) % 5 / 4 for day in range(60)] for k in range(3000)}
    assert len(heat_map(rows, "Coverage")) < 200_000


def test_small_multiples_draw_one_histogram_for_each_feature():
    svg = _svg(small_multiples({"a": [1.0, 2.0, 2.0, math.nan], "b<c": [math.nan], "d": [3.0]}, "Features"))
    names = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert names == ["a", "b<c", "d"]
    assert len([element for element in svg.iter() if element.tag.endswith("path")]) == 2
    assert small_multiples({}, "Features") == "Features: no values"


def test_a_table_escapes_what_would_end_a_cell():
    assert markdown_table(("a", "b"), [(1, "x|y")]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"


def test_equity_has_its_falls_below_it_on_the_same_scale():
    markdown = equity_plot([100.0, -50.0, 70.0], "Net profit, ₹")
    assert "last 120, highest 120, deepest\\\nfall 50 (red)" in markdown
    _, line, area = _svg(markdown)
    heights = [int(point.split(",")[1]) for point in line.get("points").split()]
    depths = [int(point.split(",")[1]) for point in area.get("points").split()[1:-1]]
    assert heights[2] - heights[1] == depths[2] - depths[1] > 0
    assert depths[0] == depths[1] == depths[3]
    assert "deepest\\\nfall 0 (red)" in equity_plot([1.0], "Net profit, ₹")


def test_intervals_are_drawn_inline_and_one_that_is_not_known_is_left_out():
    said = [k / 10 for k in range(10)]
    lower, upper = [value - 0.1 for value in said], [value + 0.1 for value in said]
    markdown = interval_plot(said, said, [math.nan, *lower[1:]], [math.nan, *upper[1:]], "Share that came by score")
    assert len(markdown) <= MAXIMUM_MARKDOWN
    _, whiskers, dots = _svg(markdown)
    assert (whiskers.get("d").count("M"), dots.get("d").count("M")) == (9, 10)
    assert interval_plot([], [], [], [], "Share") == "Share: no values"


def test_text_is_broken_into_lines_that_a_narrow_column_shows_whole():
    text = short_lines("It tells, in one sentence, what the model was worth.\n\nAnd then more.")
    assert text == "It tells, in one sentence,\\\nwhat the model was worth.\n\nAnd then more."
