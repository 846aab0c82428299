# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How answers get worse, or not, with the size of the molecule."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from eval.metric_names import MOLECULE_TASKS
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

MOST_BINS = 8


def size_bins(sizes: np.ndarray, at_most: int = MOST_BINS) -> list[tuple[int, int]]:
    """Ranges of heavy atoms that hold about equally many rows.

    Args:
        sizes: heavy atoms of each row; nan where there is no molecule.
        at_most: how many ranges.

    Returns:
        First and last size of each range, both inclusive, without gaps between them.
    """
    sizes = sizes[np.isfinite(sizes)].astype(int)
    if not len(sizes):
        return []
    ends = np.unique(
        np.quantile(sizes, np.linspace(0, 1, at_most + 1)[1:], method="inverted_cdf")
    ).astype(int)
    starts = [int(sizes.min()), *(int(end) + 1 for end in ends[:-1])]
    return list(zip(starts, map(int, ends), strict=True))


def share_by_size(answers: Answers, bins: Sequence[tuple[int, int]]) -> np.ndarray:
    """Exact match per range with its Wilson interval.

    Returns:
        [len(bins), 4]: share, low, high, number of rows; nan where a range has no rows.
    """
    found = []
    for first, last in bins:
        inside = (answers.heavy_atoms >= first) & (answers.heavy_atoms <= last)
        # A policy may leave rows out: they are nan, and no rows here.
        match = answers.exact_match[inside]
        match = match[np.isfinite(match)]
        found.append((*wilson(int(match.sum()), len(match)), len(match)))
    return np.array(found).reshape(-1, 4)


def error_by_size(answers: Answers, bins: Sequence[tuple[int, int]]) -> np.ndarray:
    """Median and quartiles of the absolute error per range, over the answers that hold a number.

    Returns:
        [len(bins), 4]: median, lower and upper quartile, number of rows asked; nan where a range
        has no such answer.
    """
    found = []
    for first, last in bins:
        inside = (answers.heavy_atoms >= first) & (answers.heavy_atoms <= last)
        errors = answers.errors[inside]
        errors = errors[np.isfinite(errors)]
        quartiles = np.quantile(errors, [0.5, 0.25, 0.75]) if len(errors) else [np.nan] * 3
        found.append((*quartiles, int(inside.sum())))
    return np.array(found).reshape(-1, 4)


def save_error_by_size(answers: Sequence[Answers], path: Path) -> bool:
    """Write a PNG with a panel for each property, and a line for each model.

    Returns:
        False where no row has a molecule, so that there is nothing to draw.
    """
    properties = list(dict.fromkeys(p for one in answers for p in one.properties))
    if not any(np.isfinite(one.heavy_atoms).any() for one in answers):
        return False
    columns = min(len(properties), 3)
    lines = -(-len(properties) // columns)
    legend = 0.25 * len(answers)
    figure = new_figure(max(5.5 * columns, 7.5), 3.6 * lines + legend)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, property in zip(panels, properties, strict=False):
        draw_by_size(axes, [one.of(property) for one in answers], property)
    for axes in panels[len(properties) :]:
        axes.remove()
    legend_below(figure, panels[0])
    save(figure, path)
    return True


def draw_by_size(axes: Axes, answers: Sequence[Answers], property: str | None) -> None:
    """Draw one panel: error, or exact match, against heavy atoms.

    Args:
        axes: matplotlib axes to draw on.
        answers: of one property, one for each line.
        property: its name, for the title; None for a task without.
    """
    bins = size_bins(np.concatenate([one.heavy_atoms for one in answers]))
    exact = answers[0].task in MOLECULE_TASKS
    measure = share_by_size if exact else error_by_size
    places = np.arange(len(bins))
    counts, tops = [], []
    for position, (one, offset) in enumerate(zip(answers, offsets(len(answers)), strict=True)):
        values, lows, highs, n = measure(one, bins).T
        counts.append(n)
        tops.extend(highs)
        nothing = "" if np.isfinite(values).any() else " (no answer read)"
        axes.errorbar(
            places + offset,
            values,
            yerr=error_bars(values, lows, highs),
            label=shorten(one.name, 60) + nothing,
            capsize=2,
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
            **series_style(position),
        )
    labels = [str(first) if first == last else f"{first}–{last}" for first, last in bins]
    if all((n == counts[0]).all() for n in counts):
        labels = [f"{label}\nn={n:,.0f}" for label, n in zip(labels, counts[0], strict=True)]
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_xlabel("heavy atoms of the molecule")
    if exact:
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("exact match, 95 % interval")
    else:
        unit = answers[0].units.get(property)
        top = np.nanmax([*tops, 0.0])
        axes.set_ylim(0, 1.08 * top if top else 1.0)
        axes.set_ylabel(
            "absolute error" + (f" ({unit})" if unit else "") + "\nmedian and quartiles"
        )
    if property is not None:
        axes.set_title(property)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
