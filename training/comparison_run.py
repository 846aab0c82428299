# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""One run of a comparison: its folder, and the commands that train and score it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from transformers.trainer import TRAINER_STATE_NAME

from eval.answer_loss import check_rows, group_by_control, read_losses, read_rows, summarize
from training.checkpoints import find_checkpoints
from training.comparison import Comparison, Variant, full_recipe

RECIPE = "recipe.yaml"
BENCHMARK = "benchmark"
# Settings of the benchmark that eval.answer_loss has too.
SHARED = {"split", "max_examples", "task", "dtype"}
console = Console()


@dataclass(frozen=True)
class Run:
    """One training with its scores.

    Attributes:
        variant: the arm, with what was chosen for it.
        seed: of the training.
        folder: of the model.
        recipe: all settings.
    """

    variant: Variant
    seed: int
    folder: Path
    recipe: dict[str, Any]

    @property
    def name(self) -> str:
        """As it stands in messages and in the report."""
        return f"{self.variant.name}/seed-{self.seed}"

    @property
    def is_trained(self) -> bool:
        """Whether the training has ended, and not only reached a checkpoint."""
        return (self.folder / TRAINER_STATE_NAME).exists()

    @property
    def state(self) -> dict[str, Any]:
        """What the Trainer says about the whole training."""
        return json.loads((self.folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))

    @property
    def results(self) -> Path:
        """What eval.benchmark has written, or will write."""
        return self.folder / BENCHMARK / "results.json"

    @property
    def losses(self) -> Path:
        """What eval.answer_loss has written, or will write."""
        return self.folder / BENCHMARK / "answer_loss.json"


class CommandError(RuntimeError):
    """A command of a run has failed; the message ends with what it said last."""


def plan_run(comparison: Comparison, variant: Variant, seed: int, folder: Path) -> Run:
    """The run of one variant and seed, in its folder of the comparison's `folder`."""
    folder = folder / variant.name / f"seed-{seed}"
    return Run(variant, seed, folder, full_recipe(comparison, variant, seed, folder))


def take_folder(run: Run) -> None:
    """Make the run's folder, which gets its recipe, or make sure that it is this run's.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    path = run.folder / RECIPE
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        keys = differing_keys(before, run.recipe)
        if keys:
            raise ValueError(
                f"{run.folder} holds a run with {keys[0]}={before.get(keys[0])!r}, now it is "
                f"{run.recipe.get(keys[0])!r}: delete that folder, or choose another --output_dir."
            )
    else:
        run.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(run.recipe, sort_keys=False), encoding="utf-8")


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ, or that only one of the two has."""
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]


def train(run: Run) -> None:
    """Train, or go on with a training, unless it is done."""
    if run.is_trained:
        console.print(f"{run.name}: trained already", markup=False)
        return
    command = ["training.finetune", str(run.folder / RECIPE)]
    if find_checkpoints(run.folder)[0]:
        command += ["--resume_from_checkpoint", "true"]
    call(run, "train", command)


def finish(run: Run, comparison: Comparison) -> None:
    """Train, score, and find the loss of the right answers, whatever of it is not done."""
    train(run)
    call(run, "benchmark", ["eval.benchmark", *scoring_flags(run, comparison.benchmark)])
    settings = {key: value for key, value in comparison.benchmark.items() if key in SHARED}
    call(run, "answer_loss", ["eval.answer_loss", *scoring_flags(run, settings)])


def compare_losses(run: Run, others: Mapping[str, Run]) -> list[dict[str, Any]]:
    """The losses of a run's right answers, with their differences to other runs by name.

    A run that has read other answers, or has other tokens, is named and left out.
    """
    records = read_rows(run.folder / BENCHMARK)
    rows = json.loads(run.losses.read_text(encoding="utf-8"))["run"]["dataset_sha256"]
    theirs = {}
    for name, other in others.items():
        try:
            losses = read_losses(other.folder / BENCHMARK, rows)
            check_rows(group_by_control(records)[None], losses, other.name)
        except ValueError as error:
            console.print(f"{other.name}: no losses compared: {error}", style="red", markup=False)
        else:
            theirs[name] = losses
    return summarize(records, theirs, seed=0)


def scoring_flags(run: Run, settings: Mapping[str, Any]) -> list[str]:
    """The flags that eval.benchmark and eval.answer_loss have in common."""
    flags = ["--model", str(run.folder), "--output_dir", str(run.folder / BENCHMARK)]
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        flags += [f"--{key}", *map(str, values)]
    if run.variant.controls:
        flags += ["--controls", ",".join(run.variant.controls)]
    return flags


def call(run: Run, name: str, command: list[str]) -> None:
    """Run a module of this checkout; what it prints goes to `NAME.log` in the run's folder.

    Raises:
        CommandError: it has failed.
    """
    log = run.folder / f"{name}.log"
    console.print(f"{run.name}: {name}, see {log}", markup=False)
    with log.open("a", encoding="utf-8") as output:
        code = subprocess.run(
            [sys.executable, "-m", *command], stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise CommandError(f"{name} ended with code {code}: {lines[-1] if lines else ''}")


def was_resumed(run: Run) -> bool:
    """Whether the training was interrupted and gone on with."""
    log = run.folder / "train.log"
    return log.exists() and "Going on from" in log.read_text(encoding="utf-8", errors="replace")
