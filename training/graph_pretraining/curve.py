# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The losses of a pretraining as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.plots.figure import new_figure, save
from training.graph_pretraining.model import TASKS


def save_curve(history: Sequence[dict[str, Any]], constant: dict[str, float], path: Path) -> None:
    """Write a PNG with the losses over the steps, each as a share of the constant prediction's.

    Args:
        history: the Trainer's `log_history`.
        constant: the losses of the constant prediction, from `constant_scores`.
        path: where the PNG is written.
    """
    figure = new_figure(7.0, 4.5)
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
    save(figure, path)
