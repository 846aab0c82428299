# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact match by the class of the reaction, for data that name it, such as USPTO-50K."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from eval.plots.answers import Answers
from eval.plots.figure import (
    error_bars,
    legend_below,
    new_figure,
    offsets,
    save,
    series_style,
    shorten,
)
from eval.plots.wilson import wilson

# Of USPTO-50K: Schneider, Stiefl, Landrum, J. Chem. Inf. Model. 2016, 56, 2336.
CLASSES = {
    "1": "heteroatom alkylation and arylation",
    "2": "acylation and related processes",
    "3": "C–C bond formation",
    "4": "heterocycle formation",
    "5": "protections",
    "6": "deprotections",
    "7": "reductions",
    "8": "oxidations",
    "9": "functional group interconversion",
    "10": "functional group addition",
}


def has_classes(answers: Sequence[Answers]) -> bool:
    """Whether any row says what class its reaction is of."""
    return any(row["group"] is not None for one in answers for row in one.rows)


def class_names(answers: Sequence[Answers]) -> list[str]:
    """The classes that occur, in the order of their numbers, others behind them by name."""
    found = {row["group"] for one in answers for row in one.rows} - {None}
    return sorted(
        found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )


def match_by_class(answers: Answers, classes: Sequence[str]) -> np.ndarray:
    """Exact match per class with its Wilson interval.

    Returns:
        [len(classes), 4]: share, low, high, number of rows; nan where a class has no rows.
    """
    groups = np.array([row["group"] for row in answers.rows], dtype=object)
    found = []
    for name in classes:
        inside = groups == name
        # A policy may leave rows out: they are nan, and no rows here.
        match = answers.exact_match[inside]
        match = match[np.isfinite(match)]
        found.append((*wilson(int(match.sum()), len(match)), len(match)))
    return np.array(found).reshape(-1, 4)


def save_reaction_classes(answers: Sequence[Answers], path: Path) -> None:
    """Write a PNG with a line of points for each class."""
    classes = class_names(answers)
    height = max(0.16 * len(answers), 0.4) * len(classes) + 1.2 + 0.25 * len(answers)
    figure = new_figure(9.0, height)
    axes = figure.subplots()
    draw_reaction_classes(axes, answers, classes)
    legend_below(figure, axes)
    save(figure, path)


def draw_reaction_classes(axes: Axes, answers: Sequence[Answers], classes: Sequence[str]) -> None:
    """Draw exact match of each class, the first class on top.

    Args:
        axes: matplotlib axes to draw on.
        answers: one for each series of points.
        classes: names of the classes, as they stand in the rows.
    """
    places = np.arange(len(classes))
    counts = []
    for position, (one, offset) in enumerate(zip(answers, offsets(len(answers)), strict=True)):
        values, lows, highs, n = match_by_class(one, classes).T
        counts.append(n)
        axes.errorbar(
            values,
            places + offset,
            xerr=error_bars(values, lows, highs),
            capsize=2,
            markersize=5,
            elinewidth=1,
            label=shorten(one.name, 60),
            **{**series_style(position), "linestyle": "none"},
        )
    axes.set_yticks(
        places,
        [
            f"{name} {CLASSES.get(name, '')}".strip() + f" (n={n:,.0f})"
            for name, n in zip(classes, np.max(counts, axis=0), strict=True)
        ],
    )
    axes.set_ylim(len(classes) - 0.5, -0.5)
    for place in places[1:]:
        axes.axhline(place - 0.5, color="0.9", linewidth=0.8, zorder=0)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("exact match, 95 % interval")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
