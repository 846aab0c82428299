# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The picture of a run, also of one that was stopped."""

import math
from pathlib import Path

import pytest
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_monitors import change
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import Trainer

from training.finetune import main
from training.training_curves import (
    choose_panels,
    draw_training_curves,
    read_curves,
    running_mean,
)

HISTORY = [
    {"step": 10, "epoch": 0.1, "loss": 2.0, "learning_rate": 1e-3, "mora/delta_norm": 0.1},
    {"step": 20, "loss": 1.0, "learning_rate": 5e-4, "generator_learning_rate": 5e-5},
    {"step": 20, "eval_loss": 1.5, "eval_mae": math.inf, "eval_runtime": 3.0},
    {"step": 40, "eval_loss": 1.25, "eval_mae": 0.02, "eval_steps_per_second": 3.0},
    {"step": 40, "train_loss": 1.0, "total_flos": 1e9},
]


def test_panels():
    assert choose_panels(read_curves(HISTORY)) == {
        "loss": {"training": {10: 2.0, 20: 1.0}, "validation": {20: 1.5, 40: 1.25}},
        "validation: mae": {"": {40: 0.02}},
        "learning rate": {"adapter": {10: 1e-3, 20: 5e-4}, "generator": {20: 5e-5}},
        "mora/delta_norm": {"": {10: 0.1}},
    }


def test_running_mean():
    assert running_mean([0, 3, 6, 0], 1) == [1.5, 3, 3, 3]


@pytest.mark.parametrize("steps", [2, 60])
def test_picture(steps: int, tmp_path: Path):
    history = [
        {"step": step, "loss": 1 / step, "grad_norm": 1.0, "mfu": 0.4, "tokens_per_second": 9.0}
        for step in range(1, steps)
    ]
    draw_training_curves(HISTORY + history, tmp_path)
    assert (tmp_path / "training_curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_was_logged(tmp_path: Path):
    draw_training_curves([], tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("small_qm9")
def test_picture_of_a_run_that_was_stopped(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    training_step = Trainer.training_step

    def interrupted_step(self: Trainer, *args: object, **kwargs: object) -> object:
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted_step)
    change(recipe, logging_steps=1)
    with pytest.raises(KeyboardInterrupt):
        main([str(recipe)])
    assert (tmp_path / "run" / "training_curves.png").read_bytes().startswith(b"\x89PNG")
