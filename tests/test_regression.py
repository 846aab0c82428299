# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Regression scores and the parity plot."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from eval.parity_plot import draw_parity, save_parity_plot
from eval.regression import HARTREE_IN_EV, mean_baseline, score_regression


def test_unparsed_answers_lower_the_share_and_not_the_error():
    score = score_regression([0.1, 0.2, 0.3, 0.4], [0.2, None, 0.0, None])
    assert score.mae == pytest.approx(0.2)
    assert score.mae_ev == pytest.approx(0.2 * 27.211386245988)
    assert (score.n, score.n_parsed, score.parsed_share) == (4, 2, 0.5)


def test_nothing_parsed_gives_no_error_instead_of_zero():
    score = score_regression([0.1, 0.2], [None, None])
    assert score.mae is None
    assert score.mae_ev is None
    assert score.parsed_share == 0


def test_a_prediction_of_zero_is_a_prediction():
    assert score_regression([0.5], [0.0]).mae == 0.5


@pytest.mark.parametrize("predictions", [[0.1], [0.1, 0.2, 0.3]])
def test_lengths_that_differ_are_named(predictions: list[float]):
    with pytest.raises(ValueError, match=f"2 targets but {len(predictions)} predictions"):
        score_regression([0.1, 0.2], predictions)


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        score_regression([], [])
    with pytest.raises(ValueError, match="no training targets"):
        mean_baseline([], 3)


def test_mean_baseline_repeats_the_training_mean():
    assert mean_baseline([1.0, 2.0, 6.0], 2) == [3.0, 3.0]


@pytest.fixture
def axes() -> Axes:
    return Figure().subplots()


def test_parity_panel_states_error_units_and_how_many_parsed(axes: Axes):
    draw_parity(axes, "gap", [0.2, 0.3, 0.4], [0.21, None, 0.37])
    error = 0.02 * HARTREE_IN_EV
    assert f"MAE {error:.3f} eV (0.0200 hartree)" in axes.get_title()
    assert "2 of 3 answers parsed" in axes.get_title()
    assert axes.get_xlabel() == "true gap (eV)"
    assert axes.get_ylabel() == "predicted gap (eV)"
    points = np.array(axes.collections[0].get_offsets())
    assert points[:, 0] == pytest.approx([0.2 * HARTREE_IN_EV, 0.4 * HARTREE_IN_EV])
    assert points[:, 1] == pytest.approx([0.21 * HARTREE_IN_EV, 0.37 * HARTREE_IN_EV])


def test_an_absurd_prediction_is_counted_and_does_not_stretch_the_axes(axes: Axes):
    draw_parity(axes, "gap", [0.2, 0.3, 0.4], [0.2, 0.3, 1e30])
    assert axes.get_ylim() == axes.get_xlim()
    assert axes.get_ylim()[1] < 0.5 * HARTREE_IN_EV
    assert "outside the axes: 1" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("predictions", [[0.2, 0.4], [None, None]])
def test_parity_plot_is_a_png_even_when_nothing_parsed(
    tmp_path: Path, predictions: list[float | None]
):
    path = tmp_path / "parity.png"
    save_parity_plot({"homo": ([-0.2, -0.3], predictions), "gap": ([0.3, 0.3], predictions)}, path)
    height, width = imread(path).shape[:2]
    assert width > height > 100
