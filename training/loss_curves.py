# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Loss curves of several runs in one picture, and how far they are from the first one.

    python -m training.loss_curves "1 process=runs/one" "ZeRO-3=runs/zero3" --output curves.png

Each run is named by the folder that it was saved to, which holds its `trainer_state.json`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from transformers.trainer import TRAINER_STATE_NAME

from eval.plots.figure import new_figure, save, series_style

Curve = dict[int, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw and compare the curves of the runs that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m training.loss_curves")
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER", help="one or more")
    parser.add_argument("--output", type=Path, default="loss_curves.png", help="the PNG to write")
    parser.add_argument("--metric", default="loss", help="what is logged, such as loss, eval_loss")
    parser.add_argument("--title", default="Training loss", help="above the picture")
    args = parser.parse_args(arguments)
    try:
        curves = {}
        for run in args.runs:
            name, equals, folder = run.partition("=")
            if not equals or not name or name in curves:
                raise ValueError(f"{run!r}: give each run as NAME=FOLDER, with a name of its own.")
            curves[name] = read_curve(Path(folder), args.metric)
    except (OSError, ValueError) as error:
        sys.exit(f"training.loss_curves: error: {error}")
    Console().print(compare_curves(curves))
    draw_curves(curves, args.metric, args.title, args.output)
    print(f"Wrote {args.output}")


def read_curve(folder: Path, metric: str = "loss") -> Curve:
    """The values of `metric` by step, as the Trainer has logged them in a run or a checkpoint.

    Raises:
        OSError: there is no `trainer_state.json`.
        ValueError: it holds no such metric; those it holds are named.
    """
    history = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["log_history"]
    curve = {entry["step"]: float(entry[metric]) for entry in history if metric in entry}
    if not curve:
        logged = sorted({key for entry in history for key in entry} - {"step", "epoch"})
        raise ValueError(
            f"{folder / TRAINER_STATE_NAME} holds no {metric!r}, only {', '.join(logged)}."
        )
    return curve


def differences(curve: Curve, reference: Curve) -> Curve:
    """Absolute differences at the steps that both curves have."""
    return {step: abs(curve[step] - reference[step]) for step in curve if step in reference}


def compare_curves(curves: dict[str, Curve]) -> Table:
    """A table: of each curve its last value, and its largest difference from the first one."""
    first, *_ = curves
    table = Table(title=f"Differences from {first}", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    # Only the name is broken where the terminal is narrow.
    table.add_column("run", overflow="fold")
    for heading in ("steps in\ncommon", "first", "last", "largest\ndifference", "at step"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, curve in curves.items():
        values = list(curve.values())
        apart = differences(curve, curves[first])
        worst = max(apart, key=apart.get, default=None)
        table.add_row(
            name,
            str(len(apart)),
            f"{values[0]:.5f}",
            f"{values[-1]:.5f}",
            "–" if worst is None or name == first else f"{apart[worst]:.2e}",
            "–" if worst is None or name == first else str(worst),
        )
    return table


def draw_curves(curves: dict[str, Curve], metric: str, title: str, path: Path) -> None:
    """Write a PNG: the curves above, their differences from the first one below.

    Curves that lie on one another get thinner lines of other dashes, so that all are seen.
    """
    figure = new_figure(8.0, 6.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    first, *_ = curves
    above_zero: list[float] = []
    for number, (name, curve) in enumerate(curves.items()):
        style = {
            "color": f"C{number}",
            "linewidth": 1.2 + 1.3 * (len(curves) - 1 - number),
            "linestyle": "-" if number == 0 else (0, (4 + number, 2 + number)),
        }
        above.plot(*zip(*curve.items(), strict=True), label=name, **style)
        if name != first:
            apart = differences(curve, curves[first])
            below.plot(list(apart), list(apart.values()), ".", color=style["color"], clip_on=False)
            above_zero += [value for value in apart.values() if value > 0]
    above.set_title(title)
    above.set_ylabel(metric)
    above.legend(frameon=False)
    # Logarithmic, but with a place for zero.
    below.set_yscale("symlog", linthresh=min(above_zero, default=1.0))
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    below.set_ylabel(f"difference from\n{first}")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save(figure, path)


def draw_learning(curves: dict[str, Curve], metric: str, title: str, path: Path) -> None:
    """Write a PNG of curves that are not meant to be the same."""
    figure = new_figure(7.0, 4.5)
    axes = figure.subplots()
    for position, (name, curve) in enumerate(curves.items()):
        style = series_style(position) | {"marker": "o", "markersize": 3, "linewidth": 1.3}
        axes.plot(list(curve), list(curve.values()), label=name, **style)
    # From the first values on, all of a training's loss would be a flat line.
    values = sorted(value for curve in curves.values() for value in curve.values())
    axes.set_ylim(values[0] - 0.02, 1.05 * np.quantile(values, 0.9))
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
