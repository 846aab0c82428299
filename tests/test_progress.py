# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Lines and bar of a run, on a terminal and in a log file."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_monitors import change
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import TrainerState

from training import progress
from training.finetune import main
from training.progress import ReadableProgress, format_time, log_line


def state_at(step: int, max_steps: int = 100, is_first: bool = True) -> TrainerState:
    return TrainerState(global_step=step, max_steps=max_steps, is_world_process_zero=is_first)


@pytest.mark.parametrize(
    ("logs", "line"),
    [
        (
            {
                "loss": 1.23456,
                "grad_norm": 0.51234,
                "learning_rate": 1e-3,
                "generator_learning_rate": 1.5e-4,
                "tokens_per_second": 12345.6,
                "molecules_per_second": 210.44,
                "mfu": 0.4321,
                "mora/weight_diversity": 0.123456,
                "epoch": 0.5,
            },
            "step 10/100  loss 1.2346  grad norm 0.512  lr 1.0e-03  generator lr 1.5e-04  "
            "tokens/s 12,346  molecules/s 210.4  MFU 43.2%  mora/weight_diversity 0.1235  "
            "1:02 left",
        ),
        (
            {
                "eval_loss": 0.5,
                "eval_mae": 0.012345,
                "eval_read": 0.96,
                "eval_runtime": 75.3,
                "eval_samples_per_second": 3.0,
                "eval_steps_per_second": 1.0,
            },
            "step 10/100  validation loss 0.5000  mae 0.01235  read 96%  took 1:15",
        ),
        (
            {"train_runtime": 3723.4, "train_samples_per_second": 9, "train_loss": 1.5},
            "step 10/100  took 1:02:03  mean loss 1.5000",
        ),
    ],
)
def test_lines(logs: dict, line: str):
    assert log_line(state_at(10), logs, seconds_left=61.7) == line


def test_times():
    assert [format_time(seconds) for seconds in (0.4, 59.6, 3600)] == ["0:00", "1:00", "1:00:00"]


def test_time_left_of_a_run_that_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Its pace is that of the steps since then."""
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    callback = ReadableProgress()
    arguments = SimpleNamespace(disable_tqdm=False)
    callback.on_train_begin(arguments, state_at(40), None)
    assert callback.current_step == 40
    clock.now += 20
    callback.on_log(arguments, state_at(50), None, logs={"loss": 1.0})
    assert capsys.readouterr().out == "step 50/100  loss 1.0000  1:40 left\n"


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture):
    callback = ReadableProgress()
    state = state_at(40, is_first=False)
    callback.on_train_begin(SimpleNamespace(disable_tqdm=False), state, None)
    callback.on_log(SimpleNamespace(), state, None, logs={"loss": 1.0})
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    """Of a run that is gone on with behind step 40."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    callback = ReadableProgress()
    arguments = SimpleNamespace(disable_tqdm=False)
    callback.on_train_begin(arguments, state_at(40), None)
    for step, logs in [(41, {"loss": 1.0}), (42, {"eval_loss": 2.0, "eval_mae": 0.5})]:
        callback.on_step_end(arguments, state_at(step), None)
        callback.on_log(arguments, state_at(step), None, logs=logs)
    callback.training_bar.refresh()
    assert "loss 1.0000  validation loss 2.0000  mae 0.5" in terminal.getvalue()
    assert "42/100" in terminal.getvalue()


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("flags", [[], ["--disable_tqdm", "true"]])
def test_log_file_of_a_run(
    flags: list[str],
    recipe: Path,  # noqa: F811
    capfd: pytest.CaptureFixture,
):
    change(recipe, logging_steps=2, eval_strategy="steps", eval_steps=2)
    main([str(recipe), *flags])
    out, err = capfd.readouterr()
    steps = [line.split("  ")[:2] for line in out.splitlines() if line.startswith("step ")]
    assert [step for step, _ in steps] == ["step 2/4"] * 2 + ["step 4/4"] * 3
    assert [value.split()[0] for _, value in steps] == [
        *("loss", "validation"),
        *("loss", "validation"),
        "took",
    ]
    assert "{'loss'" not in out + err
    assert "/4 [" not in err  # no bar of steps
