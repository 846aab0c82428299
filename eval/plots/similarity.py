# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How similar answers are to the truth: histograms of Morgan Tanimoto."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from eval.plots.answers import Answers
from eval.plots.figure import legend_below, new_figure, save, series_style, shorten

BINS = np.linspace(0, 1, 21)
# Two different molecules may have one fingerprint, so this is not the same as an exact match.
IDENTICAL = 1.0 - 1e-9


def save_similarity(answers: Sequence[Answers], path: Path) -> None:
    """Write a PNG with a histogram for each model.

    Identical and invalid answers have a panel of their own: they are often so many that the
    others could not be seen beside them.
    """
    figure = new_figure(10.0, 4.0 + 0.25 * len(answers))
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    draw_histograms(left, answers)
    draw_ends(right, answers)
    legend_below(figure, left)
    save(figure, path)


def shares(answers: Answers) -> tuple[float, float]:
    """Shares of all rows: answers with the truth's fingerprint, and those that are no molecule."""
    similarity = answers.similarity
    return float(np.mean(similarity >= IDENTICAL)), float(np.mean(np.isnan(similarity)))


def draw_histograms(axes: Axes, answers: Sequence[Answers]) -> None:
    """Draw the valid answers that differ from the truth, as shares of all rows.

    Args:
        axes: matplotlib axes to draw on.
        answers: one for each histogram.
    """
    for position, one in enumerate(answers):
        valid = one.similarity[np.isfinite(one.similarity)]
        counts, _ = np.histogram(valid[valid < IDENTICAL], BINS)
        identical, invalid = shares(one)
        style = series_style(position)
        axes.stairs(
            counts / len(one.similarity),
            BINS,
            color=style["color"],
            linestyle=style["linestyle"],
            linewidth=1.5,
            label=f"{shorten(one.name, 60)}: {identical:.1%} identical, {invalid:.1%} no molecule",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Morgan Tanimoto of answer and truth, below 1")
    axes.set_ylabel(f"share of all rows, per {BINS[1]:.2f}")
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def draw_ends(axes: Axes, answers: Sequence[Answers]) -> None:
    """Draw how many answers have the fingerprint of the truth, and how many are no molecule.

    Args:
        axes: matplotlib axes to draw on.
        answers: one for each bar of a group.
    """
    places = np.arange(2)
    width = 0.8 / len(answers)
    for position, one in enumerate(answers):
        axes.bar(
            places + (position - (len(answers) - 1) / 2) * width,
            shares(one),
            width,
            color=series_style(position)["color"],
        )
    axes.set_xticks(places, ["identical\n(1.00)", "no\nmolecule"])
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of all rows")
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
