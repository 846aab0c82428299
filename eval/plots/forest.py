# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Differences with their intervals, a line for each question and a mark for each rival."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from eval.plots.figure import COLOURS, MARKERS, error_bars, new_figure, offsets, save


@dataclass(frozen=True)
class Interval:
    """A difference with the ends of its interval, which are None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Panel:
    """Differences of one kind.

    Attributes:
        label: of the axis.
        points: for each line, the differences to the rivals that there are.
        limits: of the axis; what lies beyond is drawn at its edge, as an arrow with its value.
        percent: whether they are shares.
    """

    label: str
    points: Sequence[Mapping[str, Interval]]
    limits: tuple[float, float]
    percent: bool = False


def save_forest(
    lines: Sequence[str], rivals: Sequence[str], panels: Sequence[Panel], path: Path
) -> None:
    """Write a PNG.

    Args:
        lines: names of the lines, from the top.
        rivals: names of what is compared with; each has a colour.
        panels: side by side.
        path: of the file.
    """
    figure = new_figure(5.5 + 3.5 * len(panels), 1.4 + 0.5 * len(lines))
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_panel(axes, panel, rivals)
    all_axes[0].set_yticks(range(len(lines)), lines, fontsize=9)
    all_axes[0].set_ylim(len(lines) - 0.5, -0.5)
    handles = all_axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(rivals), frameon=False)
    save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, rivals: Sequence[str]) -> None:
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_xlim(panel.limits)
    for position, (rival, offset) in enumerate(zip(rivals, 2 * offsets(len(rivals)), strict=True)):
        colour, marker = COLOURS[position], MARKERS[position]
        for place, points in enumerate(panel.points):
            if rival in points:
                _draw_point(axes, points[rival], place + offset, panel, colour, marker)
        axes.plot([], [], color=colour, marker=marker, label=rival)
    for place in range(1, len(panel.points), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.95", zorder=0)
    if panel.percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(panel.label)
    axes.grid(axis="x", alpha=0.3)


def _draw_point(
    axes: Axes, point: Interval, place: float, panel: Panel, colour: str, marker: str
) -> None:
    least, most = panel.limits
    if not least <= point.value <= most:
        text = f"{point.value:.0%}" if panel.percent else f"{point.value:.2f}"
        edge, side, label = most, "right", f"{text} →"
        if point.value < least:
            edge, side, label = least, "left", f"← {text}"
        axes.text(edge, place, label, color=colour, ha=side, va="center", fontsize=8)
        return
    bars = None
    if point.low is not None:
        bars = error_bars([point.value], [point.low], [point.high])
    axes.errorbar(
        [point.value], [place], xerr=bars, color=colour, marker=marker, markersize=5, capsize=2
    )
