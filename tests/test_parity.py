# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The parity plot: what its panels say and show."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from eval.plots.parity import HARTREE_IN_EV, draw_parity, save_parity_plot


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def test_panel_states_error_units_and_how_many_parsed(axes: Axes):
    draw_parity(axes, "gap", [0.2, 0.3, 0.4], [0.21, None, 0.37])
    error = 0.02 * HARTREE_IN_EV
    assert f"MAE {error:.3f} eV (0.0200 hartree)" in axes.get_title()
    assert "2 of 3 answers parsed" in axes.get_title()
    assert axes.get_xlabel() == "true gap (eV)"
    assert axes.get_ylabel() == "predicted gap (eV)"
    points = np.array(axes.collections[0].get_offsets())
    assert points[:, 0] == pytest.approx([0.2 * HARTREE_IN_EV, 0.4 * HARTREE_IN_EV])
    assert points[:, 1] == pytest.approx([0.21 * HARTREE_IN_EV, 0.37 * HARTREE_IN_EV])


@pytest.mark.parametrize(
    ("unit", "label", "error"),
    [
        ("kcal/mol", "true energy (kcal/mol)", "MAE 0.500 kcal/mol"),
        ("", "true energy", "MAE 0.500"),
    ],
)
def test_other_units_stay_as_they_are(axes: Axes, unit: str, label: str, error: str):
    draw_parity(axes, "energy", [1.0, 2.0], [1.5, math.nan], unit)
    assert axes.get_xlabel() == label
    assert axes.get_title() == f"energy: {error}\n1 of 2 answers parsed"
    assert np.array(axes.collections[0].get_offsets()).tolist() == [[1.0, 1.5]]


def test_an_absurd_prediction_is_counted_and_does_not_stretch_the_axes(axes: Axes):
    draw_parity(axes, "gap", [0.2, 0.3, 0.4], [0.2, 0.3, 1e30])
    assert axes.get_ylim() == axes.get_xlim()
    assert axes.get_ylim()[1] < 0.5 * HARTREE_IN_EV
    assert "outside the axes: 1" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("predictions", [[0.2, 0.4], [None, None]])
def test_a_png_even_when_nothing_parsed(tmp_path: Path, predictions: list[float | None]):
    path = tmp_path / "parity.png"
    save_parity_plot({"homo": ([-0.2, -0.3], predictions), "gap": ([0.3, 0.3], predictions)}, path)
    height, width = imread(path).shape[:2]
    assert width > height > 100


FOUR = {f"property {i}": ([1.0, 2.0], [1.0, 2.5]) for i in range(4)}
ENERGIES = {
    name: (values, values)
    for name, values in {"homo": [-0.3, -0.17], "lumo": [-0.15, 0.1], "gap": [0.14, 0.36]}.items()
}


@pytest.mark.parametrize(
    ("answers", "unit", "size"), [(FOUR, "eV", (1728, 1200)), (ENERGIES, "hartree", (1728, 600))]
)
def test_nothing_is_cut_off_and_many_panels_stand_in_rows(
    tmp_path: Path, answers: dict, unit: str, size: tuple[int, int]
):
    path = tmp_path / "parity.png"
    save_parity_plot(answers, path, dict.fromkeys(answers, unit))
    image = imread(path)[:, :, :3]
    height, width = image.shape[:2]
    assert (width, height) == size
    # Titles and labels would touch the edges if the layout had not settled.
    for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert edge.min() == 1.0
