# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run has logged as one picture: loss, scores, learning rates, gradients, speed, guards."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from eval.plots.figure import new_figure, save
from training.progress import is_score

FILE = "training_curves.png"
# Scores that are shares, shown from nothing to all.
SHARES = ("read", "exact match", "accuracy", "same text")
# From this many points on, a noisy curve is drawn pale, with its running mean over it.
SMOOTHED_FROM = 40

Curve = dict[int, float]


def draw_training_curves(history: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write `training_curves.png`, with a panel for everything that was logged.

    Args:
        history: the Trainer's `log_history`; without a loss, nothing is drawn.
        folder: of the run.
    """
    panels = choose_panels(read_curves(history))
    if not panels:
        return
    columns = min(len(panels), 3 if len(panels) <= 6 else 4)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.4 * columns, 3.2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        draw_panel(axes, title, curves)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    # With hidden panels in the last row, others are the lowest of their column.
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("step")
    save(figure, folder / FILE)


def read_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Everything finite that was logged, by name and step."""
    curves: dict[str, Curve] = {}
    for entry in history:
        for key, value in entry.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and key != "step":
                curves.setdefault(key, {})[entry["step"]] = value
    return curves


def choose_panels(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """The curves of each panel by their labels, by the panel's title.

    Each score and each `mora/…` value has a panel of its own, as they have scales of their own.
    """
    if "loss" not in curves:
        return {}
    panels = {"loss": {"training": "loss", "validation": "eval_loss"}}
    panels |= {
        f"validation: {key.removeprefix('eval_').replace('_', ' ')}": {"": key}
        for key in curves
        if is_score(key) and key != "eval_loss"
    }
    panels |= {
        "learning rate": {"adapter": "learning_rate", "generator": "generator_learning_rate"},
        "norm of the gradients": {"": "grad_norm"},
        "tokens per second": {"": "tokens_per_second"},
        "molecules per second": {"": "molecules_per_second"},
        "MFU": {"": "mfu"},
    }
    panels |= {key: {"": key} for key in curves if key.startswith("mora/")}
    found = {
        title: {label: curves[key] for label, key in keys.items() if key in curves}
        for title, keys in panels.items()
    }
    return {title: part for title, part in found.items() if part}


def draw_panel(axes: Axes, title: str, curves: Mapping[str, Curve]) -> None:
    """One title, and under it the curves; sparse ones, such as scores, with markers."""
    for number, (label, curve) in enumerate(curves.items()):
        steps, values = list(curve), list(curve.values())
        color = f"C{number}"
        if len(values) >= SMOOTHED_FROM and title != "learning rate":
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
            values = running_mean(values, len(values) // 20)
        marker = "o" if len(values) < SMOOTHED_FROM else None
        axes.plot(steps, values, color=color, label=label or None, marker=marker, markersize=3)
    if title.removeprefix("validation: ") in SHARES:
        axes.set_ylim(-0.04, 1.04)
    elif title == "MFU" or title.endswith("per second"):
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False)


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Mean of each value with those at most `reach` places before and behind it."""
    parts = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]
