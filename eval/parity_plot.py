# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Parity plot: true against predicted values, one panel per property."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eval.regression import HARTREE_IN_EV, score_regression

# Room around the true values, as a share of their range.
MARGIN = 0.15


def save_parity_plot(
    answers: Mapping[str, tuple[Sequence[float], Sequence[float | None]]], path: Path
) -> None:
    """Write a PNG with one parity panel per property.

    Args:
        answers: property name -> (true values, predictions), both in hartree and aligned; None
            stands for an answer that could not be read and is counted in the title, not drawn.
        path: where the PNG is written.
    """
    # The Agg canvas is asked for here, not through pyplot, so that no display is needed and the
    # caller's backend stays as it is.
    figure = Figure(figsize=(4.8 * len(answers), 5.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(answers), squeeze=False)[0]
    for axes, (name, (targets, predictions)) in zip(panels, answers.items(), strict=True):
        draw_parity(axes, name, targets, predictions)
    canvas.print_png(path)


def draw_parity(
    axes: Axes, name: str, targets: Sequence[float], predictions: Sequence[float | None]
) -> None:
    """Draw one panel, in electronvolts.

    The axes follow the true values. A prediction outside them is drawn as a triangle on the edge
    and counted in the legend, so that one absurd answer neither hides nor squeezes the others.

    Args:
        axes: matplotlib axes to draw on.
        name: property name, for the title and the labels.
        targets: true values in hartree.
        predictions: predicted values in hartree, None where not readable.
    """
    score = score_regression(targets, predictions)
    pairs = [(t, p) for t, p in zip(targets, predictions, strict=True) if p is not None]
    true, predicted = np.array(pairs, dtype=float).reshape(-1, 2).T * HARTREE_IN_EV

    low, high = np.min(targets) * HARTREE_IN_EV, np.max(targets) * HARTREE_IN_EV
    # A property with one single true value still needs axes of some width: 1 eV.
    room = MARGIN * ((high - low) or 1.0 / MARGIN)
    low, high = low - room, high + room
    outside = (predicted < low) | (predicted > high)

    axes.plot(
        [low, high], [low, high], color="0.6", linewidth=1, zorder=1, label="prediction = truth"
    )
    axes.scatter(true[~outside], predicted[~outside], s=12, alpha=0.6, edgecolors="none", zorder=2)
    if outside.any():
        axes.scatter(
            true[outside],
            predicted[outside].clip(low, high),
            s=36,
            marker="^",
            color="tab:red",
            clip_on=False,
            zorder=3,
            label=f"outside the axes: {outside.sum()}",
        )

    if score.mae is None:
        error = "no answer parsed"
    else:
        error = f"MAE {score.mae_ev:#.3g} eV ({score.mae:#.3g} hartree)"
    axes.set_title(f"MoRA, {name}: {error}\n{score.n_parsed} of {score.n} answers parsed")
    axes.set_xlabel(f"true {name} (eV)")
    axes.set_ylabel(f"predicted {name} (eV)")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", frameon=False)
