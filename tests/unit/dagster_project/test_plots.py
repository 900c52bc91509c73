import base64
import math
import xml.etree.ElementTree as ET

import pytest

from dagster_project.plots import MAXIMUM_MARKDOWN, column_plot, line_plot


@pytest.mark.parametrize("plot", [line_plot, column_plot])
@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-5e9 * math.sin(i) for i in range(2000)]])
def test_a_plot_is_shown_inline_and_is_an_image(plot, values):
    markdown = plot(values, "Mean forward return by score decile, basis points, lowest score first, over all folds")
    assert len(markdown) <= MAXIMUM_MARKDOWN
    encoded = markdown.split("base64,")[1].split(")")[0]
    assert ET.fromstring(base64.b64decode(encoded)).tag.endswith("svg")


@pytest.mark.parametrize("plot", [line_plot, column_plot])
def test_nothing_to_draw_is_said(plot):
    assert plot([], "Returns") == "Returns: no values"
