# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How long a training step of each arm of a comparison takes, relative to the first one's.

    python -m training.step_speed COMPARISON.yaml --arms mora graph_prefix lora [--repeats 9]

All arms learn from the same batches in turn, in one process, so that what else the machine does
slows all of them alike; the ratio is taken within each turn. It says how many steps an arm may take
(`max_steps`) to be compared at equal time. Nothing is saved.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import Trainer

from training.arguments import parse_arguments as parse_recipe
from training.comparison import (
    Comparison,
    Variant,
    check_settings,
    full_recipe,
    read_comparison,
)
from training.finetune import make_trainer

# As long as an eighth, three, five and seven eighths of the batches of an epoch.
BATCHES = 4


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.step_speed")
    parser.add_argument("comparison", type=Path, metavar="COMPARISON.yaml")
    parser.add_argument("--arms", nargs="+", help="the first one is the measure (default: all)")
    parser.add_argument("--repeats", type=int, default=9, help="turns that are timed")
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats}: give at least 1")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; returns the exit code, 2 when it cannot start."""
    args = parse_arguments(arguments)
    try:
        comparison = read_comparison(args.comparison)
        arms = args.arms or list(comparison.arms)
        variants = {arm: comparison.variants_of(arm)[0] for arm in arms}
        for variant in variants.values():
            check_settings(comparison, variant)
    except (OSError, ValueError) as error:
        print(f"training.step_speed: error: {error}", file=sys.stderr)
        return 2
    steps = {arm: make_step(comparison, variant) for arm, variant in variants.items()}
    seconds = {arm: [] for arm in steps}
    for turn in tqdm(range(args.repeats + 1), desc="turns"):
        first = turn % len(arms)
        for arm in arms[first:] + arms[:first]:
            start = time.perf_counter()
            steps[arm]()
            if turn > 0:  # the first warms up
                seconds[arm].append((time.perf_counter() - start) / BATCHES)
    Console().print(ratio_table(seconds))
    return 0


def make_step(comparison: Comparison, variant: Variant) -> Callable[[], None]:
    """A function that takes one step on each of `BATCHES` batches."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        settings = full_recipe(comparison, variant, comparison.seeds[0], Path(folder) / "run")
        recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
        model_args, data_args, training_args = parse_recipe([str(recipe)])
        trainer = make_trainer(model_args, data_args, training_args)
        trainer.create_optimizer()
    model = trainer.model.train()
    batches = [
        {name: value.to(trainer.args.device) for name, value in batch.items()}
        for batch in pick_batches(trainer)
    ]

    def step() -> None:
        for batch in batches:
            trainer.compute_loss(model, dict(batch)).backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return step


def pick_batches(trainer: Trainer) -> list[dict[str, torch.Tensor]]:
    """`BATCHES` of an epoch's batches, which stand for all of them by the length of their rows."""
    data = trainer.train_dataset
    lengths = list(data["length"])
    by_length = sorted(
        trainer.get_train_dataloader().batch_sampler,
        key=lambda rows: max(lengths[row] for row in rows),
    )
    middles = ((np.arange(BATCHES) + 0.5) / BATCHES * len(by_length)).astype(int)
    return [trainer.data_collator([data[row] for row in by_length[middle]]) for middle in middles]


def ratio_table(seconds: dict[str, list[float]]) -> Table:
    """Median seconds of a step, and the median and quartiles of its ratio to the first arm's."""
    table = Table(title=f"A step of training, {len(next(iter(seconds.values())))} turns")
    first = np.array(next(iter(seconds.values())))
    for column in ("arm", "seconds", "time relative to the first", "quartiles"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, values in seconds.items():
        low, middle, high = np.percentile(np.array(values) / first, [25, 50, 75])
        table.add_row(arm, f"{np.median(values):.3f}", f"{middle:.3f}", f"{low:.3f}–{high:.3f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
