# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Relative gains with their intervals, one line for each question."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from eval.gains import Gain
from eval.metric_names import TASKS, heading
from eval.plots.figure import error_bars, new_figure, save, shorten

BETTER, WORSE, OPEN = "C0", "C3", "0.45"


def save_gains(gains: Sequence[Gain], ours: str, theirs: str, path: Path) -> None:
    """Write a PNG.

    Args:
        gains: one for each line.
        ours: name of our method.
        theirs: name of the other one.
        path: of the file.
    """
    figure = new_figure(8.5, 1.6 + 0.5 * len(gains))
    axes = figure.subplots()
    draw_gains(axes, gains)
    figure.suptitle(f"{shorten(ours, 44)} over {shorten(theirs, 44)}", fontsize=11)
    save(figure, path)


def draw_gains(axes: Axes, gains: Sequence[Gain]) -> None:
    """Draw a point and its interval for each gain, coloured where the interval leaves out zero."""
    axes.axvline(0, color="0.3", linewidth=1)
    for place, gain in enumerate(gains):
        text = "not defined"
        if gain.gain is not None:
            text = f"{gain.gain:+.1%}"
            bars = None
            if gain.low is not None:
                bars = error_bars([gain.gain], [gain.low], [gain.high])
            axes.errorbar(
                [gain.gain], [place], xerr=bars, color=colour(gain), marker="o", capsize=3
            )
        # At the right edge, in line with its point.
        axes.annotate(
            text,
            (1.02, place),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    labels = [f"{name_of(gain)}\n{heading(gain.metric)}, n = {gain.n:,}" for gain in gains]
    axes.set_yticks(range(len(gains)), labels, fontsize=9)
    axes.set_ylim(len(gains) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("relative gain with 95% interval over rows (right of 0: better)")
    axes.grid(axis="x", alpha=0.3)


def colour(gain: Gain) -> str:
    """One for better, one for worse, grey where the interval holds zero or is not known."""
    if gain.low is None or gain.low <= 0 <= gain.high:
        return OPEN
    return BETTER if gain.low > 0 else WORSE


def name_of(gain: Gain) -> str:
    """The question in a few words: task, property and source."""
    question = gain.question
    property = f" of {question.property}" if question.property else ""
    return f"{TASKS[question.task][0]}{property}, {question.source}"
