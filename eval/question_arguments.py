# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The flags of the commands that ask a model about the rows of a split."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.generation import DTYPES
from eval.questions import CONTROLS


def question_parser(prog: str, description: str, batch_size: int) -> argparse.ArgumentParser:
    """A parser with the flags that say which model, which rows and which controls.

    Args:
        prog: name of the module.
        description: shown by `--help`.
        batch_size: rows per batch when no other number is given.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    parser.add_argument("--model", required=True, help="checkpoint: a folder or a Hub id")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder written by training.prepare (default: what the model was trained on)",
    )
    parser.add_argument("--split", default="test", help="which split of it (default: test)")
    parser.add_argument("--task", nargs="+", help="only these tasks (default: all in the split)")
    parser.add_argument("--max_examples", type=int, help="only N rows, evenly spread")
    parser.add_argument(
        "--controls",
        default="",
        help=f"also asked, joined by commas, from: {', '.join(CONTROLS)}",
    )
    parser.add_argument("--batch_size", type=int, default=batch_size, help="rows per batch")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="number format of the LLM (default: auto)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and shuffled molecules")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="where results go (default: MODEL/benchmark, or ./benchmark for a Hub id)",
    )
    return parser


def add_numbers_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--numbers` to the parser of a command whose answers may be numbers."""
    parser.add_argument(
        "--numbers",
        choices=("greedy", "median"),
        default="greedy",
        help="median: of the numbers that the model might write, for properties whose values all "
        "have as many digits before the point; greedy: about the most frequent one (default)",
    )


def parse_questions(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read and check the command line of a `question_parser`; `controls` becomes a list."""
    args = parser.parse_args(arguments)
    for name in ("max_examples", "batch_size", "max_new_tokens"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            parser.error(f"--{name} {value}: must be at least 1")
    args.controls = [name for name in args.controls.split(",") if name]
    for name in args.controls:
        if name not in CONTROLS:
            parser.error(f"--controls {name}: use {', '.join(CONTROLS)}")
    if args.output_dir is None:
        args.output_dir = (Path(args.model) if Path(args.model).is_dir() else Path()) / "benchmark"
    return args
