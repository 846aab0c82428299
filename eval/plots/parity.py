# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Parity plot: true against predicted values, one panel per property."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.constants import physical_constants

from eval.plots.figure import new_figure, save

# Room around the true values, as a share of their range.
MARGIN = 0.15
HARTREE_IN_EV = physical_constants["Hartree energy in eV"][0]
MOST_COLUMNS = 3


def save_parity_plot(
    answers: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    path: Path,
    unit: str | Mapping[str, str] = "hartree",
    title: str | None = None,
) -> None:
    """Write a PNG with one parity panel per property.

    Args:
        answers: property name -> (true values, predictions), in `unit` and aligned; None or nan
            stands for an answer that could not be read and is counted in the title, not drawn.
        path: where the PNG is written.
        unit: of the values; empty for none; a mapping where the properties differ in it. Hartree
            is drawn in electronvolts.
        title: of the whole figure, such as the model's name.
    """
    columns = min(len(answers), MOST_COLUMNS)
    lines = -(-len(answers) // columns)
    figure = new_figure(4.8 * columns, 5.0 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (name, (targets, predictions)) in zip(panels, answers.items(), strict=False):
        draw_parity(axes, name, targets, predictions, unit if isinstance(unit, str) else unit[name])
    for axes in panels[len(answers) :]:
        axes.remove()
    if title:
        figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_parity(
    axes: Axes,
    name: str,
    targets: Sequence[float],
    predictions: Sequence[float | None],
    unit: str = "hartree",
) -> None:
    """Draw one panel.

    The axes follow the true values. A prediction outside them is drawn as a triangle on the edge
    and counted in the legend, so that one absurd answer neither hides nor squeezes the others.

    Args:
        axes: matplotlib axes to draw on.
        name: property name, for the title and the labels.
        targets: true values.
        predictions: predicted values, None or nan where not readable.
        unit: of both; empty for none. Hartree is drawn in electronvolts.
    """
    targets = np.asarray(targets, dtype=float)
    predictions = np.asarray(predictions, dtype=float)  # None becomes nan
    parsed = np.isfinite(predictions)
    factor, shown = (HARTREE_IN_EV, "eV") if unit == "hartree" else (1.0, unit)
    true, predicted = targets[parsed] * factor, predictions[parsed] * factor

    low, high = targets.min() * factor, targets.max() * factor
    # A property with one single true value still needs axes of some width.
    room = MARGIN * ((high - low) or 1.0 / MARGIN)
    low, high = low - room, high + room
    outside = (predicted < low) | (predicted > high)

    axes.plot(
        [low, high], [low, high], color="0.6", linewidth=1, zorder=1, label="prediction = truth"
    )
    # Thousands of points would be a blot, so they get smaller and fainter.
    many = len(true) > 1000
    axes.scatter(
        true[~outside],
        predicted[~outside],
        s=4 if many else 12,
        alpha=0.25 if many else 0.6,
        edgecolors="none",
        zorder=2,
    )
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

    axes.set_title(
        f"{name}: {_error(true, predicted, factor, shown)}\n"
        f"{parsed.sum()} of {len(targets)} answers parsed"
    )
    in_unit = f" ({shown})" if shown else ""
    axes.set_xlabel(f"true {name}{in_unit}")
    axes.set_ylabel(f"predicted {name}{in_unit}")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", frameon=False)


def _error(true: np.ndarray, predicted: np.ndarray, factor: float, unit: str) -> str:
    if not len(true):
        return "no answer parsed"
    mae = float(np.mean(np.abs(true - predicted)))
    text = f"MAE {mae:#.3g} {unit}".rstrip()
    return f"{text} ({mae / factor:#.3g} hartree)" if factor != 1.0 else text
