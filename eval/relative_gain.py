# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How much better one method is than another on the same rows, with a paired interval.

    python -m eval.relative_gain runs/mora/benchmark/results.json runs/lora/benchmark/results.json
    python -m eval.relative_gain --ours runs/mora/seed-* --theirs runs/lora/seed-* --output_dir DIR

Results are those that eval.benchmark wrote, with the `predictions.jsonl` beside them, or folders
that hold them. DIR gets `relative_gain.json` and `relative_gain.png`.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from eval.bootstrap import LEVEL, RESAMPLES
from eval.gains import Gain, find_gains
from eval.metric_names import heading, write_value
from eval.plots.gains import name_of, save_gains
from eval.predictions import replace_file
from eval.report_tables import METHODS, short
from eval.result_files import Run, read_runs

SCHEMA = 1


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.relative_gain",
        description="How much better one method is than another on the same rows.",
    )
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        metavar="OURS/results.json THEIRS/results.json",
        help="one result of each method; for several seeds, --ours and --theirs",
    )
    parser.add_argument("--ours", nargs="+", type=Path, default=[], help="results or folders")
    parser.add_argument("--theirs", nargs="+", type=Path, default=[], help="results or folders")
    parser.add_argument("--metric", help="a score (default: the first of each task's table)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output_dir", type=Path, help="where JSON and plot go (default: nowhere)")
    args = parser.parse_args(arguments)
    if args.results and not (args.ours or args.theirs) and len(args.results) == 2:
        args.ours, args.theirs = args.results[:1], args.results[1:]
    elif args.results or not (args.ours and args.theirs):
        parser.error("give two results, OURS and THEIRS, or --ours and --theirs")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns its exit code, 2 when the results cannot be compared."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = parse_arguments(arguments)
    try:
        ours, theirs = read_runs(args.ours), read_runs(args.theirs)
        gains = find_gains(ours, theirs, args.metric, args.seed)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_gains(gains, ours, theirs, Console())
    if args.output_dir is not None:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        content = describe(gains, ours, theirs, args.seed)
        content["command"] = shlex.join(["python", "-m", "eval.relative_gain", *arguments])
        text = json.dumps(content, indent=2) + "\n"
        replace_file(args.output_dir / "relative_gain.json", text)
        plot = args.output_dir / "relative_gain.png"
        save_gains(gains, side_name(ours), side_name(theirs), plot)
        print(f"Wrote relative_gain.json and relative_gain.png to {args.output_dir}")
    return 0


def print_gains(
    gains: Sequence[Gain], ours: Sequence[Run], theirs: Sequence[Run], console: Console
) -> None:
    """Print who is compared, a table with a row for each gain, and what to know about it."""
    for name, runs in (("ours", ours), ("theirs", theirs)):
        console.print(f"{name}: {side_name(runs)}", markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for title in ("n", "runs", "ours", "theirs", "change", "gain", "95% interval"):
        table.add_column(title, justify="right", no_wrap=True)
    for gain in gains:
        unit = f", {gain.question.unit}" if gain.question.unit else ""
        table.add_row(
            f"{name_of(gain)}: {heading(gain.metric)}{unit}",
            f"{gain.n:,}",
            f"{len(gain.ours)}, {len(gain.theirs)}",
            write_mean(gain.metric, gain.ours),
            write_mean(gain.metric, gain.theirs),
            write_percent(gain.change),
            write_percent(gain.gain),
            "–" if gain.low is None else f"[{gain.low:+.1%}, {gain.high:+.1%}]",
        )
    console.print(table)
    for gain in gains:
        if gain.read is not None and min(gain.read) < 1:
            console.print(
                f"{name_of(gain)}: {gain.read[0]:.1%} of our answers and {gain.read[1]:.1%} of "
                "theirs hold a number; the error is the mean over these.",
                markup=False,
            )
    console.print(
        "Positive gain: better. Intervals: paired bootstrap over rows; they know nothing of other "
        "trainings.",
        markup=False,
    )


def describe(
    gains: Sequence[Gain], ours: Sequence[Run], theirs: Sequence[Run], seed: int
) -> dict[str, Any]:
    """The content of `relative_gain.json`."""

    def side(runs: Sequence[Run]) -> list[dict[str, Any]]:
        keys = ("model", "method", "base_fingerprint", "adapter_sha256", "device")
        return [{"file": str(run.path)} | {key: run.settings[key] for key in keys} for run in runs]

    return {
        "schema": SCHEMA,
        "ours": side(ours),
        "theirs": side(theirs),
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL, "seed": seed, "paired": True},
        "gains": [
            asdict(gain.question)
            | {key: value for key, value in asdict(gain).items() if key != "question"}
            | {"change": gain.change}
            for gain in gains
        ],
    }


def side_name(runs: Sequence[Run]) -> str:
    """Method and models of a side, such as `MoRA, qm9/mora and 2 more`."""
    first, *others = dict.fromkeys(run.model for run in runs)
    more = f" and {len(others)} more" if others else ""
    return f"{METHODS.get(runs[0].method, runs[0].method)}, {short(first)}{more}"


def write_mean(metric: str, values: Sequence[float | None]) -> str:
    """The mean over runs as text; a dash where one of them has no score."""
    return write_value(metric, None if None in values else float(np.mean(values)))


def write_percent(value: float | None) -> str:
    """Such as `-22.0%`; a dash for none."""
    return "–" if value is None else f"{value:+.1%}"


if __name__ == "__main__":
    sys.exit(main())
