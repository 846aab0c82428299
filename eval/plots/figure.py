# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What all plots share: figures without a display, colours, names that fit into a legend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Matplotlib's ten colours of most contrast; an eleventh line gets the first one and dashes.
COLOURS = [f"C{i}" for i in range(10)]
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^v<>Pph"

# How far apart the series of one tick stand, and how much of the room between two ticks they share
# at most.
STEP = 0.1
SPREAD = 0.7


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, to be written with `save`.

    It is not pyplot's, so that no display is needed and the caller's backend stays as it is.
    """
    # The constrained layout cuts the titles of three panels of a fixed aspect off.
    return Figure(figsize=(width, height), layout="compressed")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG."""
    # Axes of a fixed aspect take their place only when drawn: the layout needs a second look.
    figure.draw_without_rendering()
    figure.savefig(path, dpi=120, format="png")


def series_style(position: int) -> dict[str, str]:
    """Colour, line and marker of the series at a position."""
    return {
        "color": COLOURS[position % len(COLOURS)],
        "linestyle": STYLES[position // len(COLOURS) % len(STYLES)],
        "marker": MARKERS[position % len(MARKERS)],
    }


def shorten(name: str, length: int = 34) -> str:
    """A name cut in its middle, where names of one project differ least."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def offsets(series: int) -> np.ndarray:
    """Where the points of several series stand around a tick, so that none hides another."""
    if series == 1:
        return np.zeros(1)
    spread = min(SPREAD, STEP * (series - 1))
    return np.linspace(-spread / 2, spread / 2, series)


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend for the whole figure, under it, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=9)


def error_bars(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]):
    """Bounds as matplotlib's distances from the values, never negative by rounding."""
    values, lows, highs = map(np.asarray, (values, lows, highs))
    return np.clip([values - lows, highs - values], 0, None)
