# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The losses of a pretraining as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.graph_pretraining.model import TASKS


def save_curve(history: Sequence[dict[str, Any]], constant: dict[str, float], path: Path) -> None:
    """Write a PNG with the losses over the steps, each as a share of the constant prediction's.

    Args:
        history: the Trainer's `log_history`.
        constant: the losses of the constant prediction, from `constant_scores`.
        path: where the PNG is written.
    """
    # Not through pyplot, so that no display is needed and the caller's backend stays as it is.
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    training = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    if training:
        axes.plot(*zip(*training, strict=True), color="0.6", label="all tasks, training")
    for task in TASKS:
        key = f"{task}_loss"
        shares = [
            (entry["step"], entry[f"eval_{key}"] / constant[key])
            for entry in history
            if f"eval_{key}" in entry and constant[key] > 0
        ]
        if shares:
            axes.plot(
                *zip(*shares, strict=True), marker="o", markersize=3, label=f"{task}, held out"
            )
    axes.axhline(1, color="0.4", linestyle="--", linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, as a share of the constant prediction's")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    canvas.print_png(path)
