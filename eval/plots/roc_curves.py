# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""ROC curves of yes-or-no questions, from the model's probability of yes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import roc_auc_score, roc_curve

from eval.plots.answers import Answers
from eval.plots.figure import legend_below, new_figure, save, series_style, shorten

MOST_COLUMNS = 4


def save_roc_curves(answers: Sequence[Answers], path: Path) -> None:
    """Write a PNG with a panel for each label, and a curve for each model."""
    labels = list(dict.fromkeys(p for one in answers for p in one.properties))
    columns = min(len(labels), MOST_COLUMNS)
    lines = -(-len(labels) // columns)
    width = max(3.6 * columns, 4.8)
    figure = new_figure(width, width / columns * lines + 0.25 * len(answers))
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, label in zip(panels, labels, strict=False):
        draw_roc(axes, [one.of(label) for one in answers], label)
    for axes in panels[len(labels) :]:
        axes.remove()
    legend_below(figure, panels[0])
    save(figure, path)


def draw_roc(axes: Axes, answers: Sequence[Answers], label: str | None) -> None:
    """Draw the curves of one label, each area in the curve's colour.

    Args:
        axes: matplotlib axes to draw on.
        answers: of that label, one for each curve.
        label: its name, for the title.
    """
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for position, one in enumerate(answers):
        known = np.isfinite(one.labels) & np.isfinite(one.probabilities)
        truth, probability = one.labels[known], one.probabilities[known]
        style = series_style(position)
        if len(set(truth)) < 2:
            x, y, area = [], [], "one class only"
        else:
            x, y, _ = roc_curve(truth, probability)
            area = f"AUC {roc_auc_score(truth, probability):.3f}"
        axes.plot(
            x,
            y,
            color=style["color"],
            linestyle=style["linestyle"],
            linewidth=1.5,
            label=shorten(one.name, 60),
        )
        axes.text(
            0.98,
            0.02 + 0.06 * (len(answers) - 1 - position),
            area,
            color=style["color"],
            fontsize=8,
            horizontalalignment="right",
            transform=axes.transAxes,
        )
    first = answers[0].labels
    axes.set_title(
        f"{shorten(label or '', 40)}\n{np.nansum(first):,.0f} yes, {np.sum(first == 0):,} no",
        fontsize=9,
    )
    axes.set_xlabel("false positives", fontsize=8)
    axes.set_ylabel("true positives", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
