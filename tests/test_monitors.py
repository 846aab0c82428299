# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed and learning rates of a run, and what TensorBoard and trackio get of them."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bases import random_base
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import Trainer
from transformers.integrations import integration_utils

from training import monitors
from training.arguments import parse_arguments
from training.finetune import main
from training.monitors import SpeedMeter


class Clock:
    """A clock that stands still unless told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        monkeypatch.setattr(monitors, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def slow_down(self, monkeypatch: pytest.MonkeyPatch, method: str, seconds: float) -> None:
        """Let a method of the Trainer take so much longer."""
        original = getattr(Trainer, method)

        def slower(*args: object, **kwargs: object) -> object:
            self.now += seconds
            return original(*args, **kwargs)

        monkeypatch.setattr(Trainer, method, slower)


def history(folder: Path, key: str = "loss") -> list[dict]:
    """What was logged with `key`."""
    logs = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in logs if key in entry]


def change(recipe: Path, **settings: object) -> None:  # noqa: F811
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | settings))


def batch(tokens: int, molecules: int) -> dict[str, torch.Tensor]:
    """Two rows of text with some padding, and as many molecules of one atom."""
    mask = torch.zeros(2, 10, dtype=torch.long)
    mask.view(-1)[:tokens] = 1
    return {
        "input_ids": mask,
        "labels": mask[:, :3],
        "attention_mask": mask,
        "graph_atoms": torch.zeros(2, 4, 9, dtype=torch.long),
        "graph_atom_mask": torch.tensor([[i < molecules] * 4 for i in range(2)]),
    }


def test_rates(make_model, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    meter = SpeedMeter(make_model())
    meter.peak = 1e6
    # A run that is gone on with: what it did before is not counted.
    meter.on_train_begin(None, SimpleNamespace(total_flos=7e6, is_world_process_zero=True), None)
    flops = meter.add(batch(tokens=12, molecules=1)) + meter.add(batch(tokens=18, molecules=2))
    clock.now += 2
    with meter.paused():
        clock.now += 1000
    clock.now += 3
    rates = meter.rates(7e6 + 2 * flops, processes=2, reduce=lambda counts: 2 * counts)
    assert rates == {
        "tokens_per_second": 2 * 30 / 5,
        "molecules_per_second": 2 * 3 / 5,
        "mfu": pytest.approx(flops / (5 * 1e6)),
    }
    # From there on anew.
    text = {k: v for k, v in batch(tokens=4, molecules=0).items() if not k.startswith("graph")}
    meter.peak = None
    meter.add(text)
    clock.now += 8
    assert meter.rates(8e6, 1, lambda counts: counts) == {"tokens_per_second": 0.5}


@pytest.mark.parametrize(
    ("device", "base", "message"),
    [
        ("NVIDIA GeForce RTX 2060", "llama", "RTX 2060 is not in the table"),
        ("NVIDIA H200", "mixtral", "experts.* is no matrix"),
        ("NVIDIA H200", "llama", ""),
    ],
)
def test_no_mfu_without_a_known_peak_and_base(
    device: str,
    base: str,
    message: str,
    tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: device)
    meter = SpeedMeter(random_base(base, tokenizer))
    meter.on_train_begin(None, SimpleNamespace(total_flos=0, is_world_process_zero=True), None)
    printed = capsys.readouterr().out
    if message:
        assert meter.peak is None
        assert re.search(f"No mfu is shown: .*{message}", printed)
    else:
        assert meter.peak == 989e12 and printed == ""


@pytest.mark.usefixtures("small_qm9")
def test_time_of_evaluations_and_checkpoints_is_no_time_of_training(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    clock = Clock(monkeypatch)
    clock.slow_down(monkeypatch, "training_step", 2)
    clock.slow_down(monkeypatch, "evaluate", 1000)
    clock.slow_down(monkeypatch, "_save_checkpoint", 1000)
    change(recipe, logging_steps=1, eval_strategy="steps", eval_steps=1, save_steps=1)
    seen = []
    compute_loss = Trainer.compute_loss

    def counted_loss(self: Trainer, model: object, inputs: dict, **kwargs: object) -> object:
        if model.training:
            seen.append(inputs["attention_mask"].sum().item())
        return compute_loss(self, model, inputs, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", counted_loss)
    main([str(recipe)])
    logs = history(tmp_path / "run")
    assert [entry["tokens_per_second"] for entry in logs] == [tokens / 2 for tokens in seen]
    assert [entry["molecules_per_second"] for entry in logs] == [1] * 4  # two rows in two seconds


@pytest.mark.usefixtures("small_qm9")
def test_both_learning_rates_are_those_of_the_step(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
):
    change(recipe, logging_steps=1, lr_scheduler_type="linear", learning_rate=1e-3)
    main([str(recipe)])
    logs = history(tmp_path / "run")
    assert [entry["learning_rate"] for entry in logs] == pytest.approx(
        [1e-3, 0.75e-3, 0.5e-3, 0.25e-3]
    )
    assert [entry["generator_learning_rate"] for entry in logs] == pytest.approx(
        [5e-4, 3.75e-4, 2.5e-4, 1.25e-4]
    )


@pytest.mark.usefixtures("small_qm9")
def test_rates_of_a_run_that_is_gone_on_with(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    clock = Clock(monkeypatch)
    clock.slow_down(monkeypatch, "training_step", 2)
    change(recipe, logging_steps=1)
    main([str(recipe)])
    whole = history(tmp_path / "run")
    flops = history(tmp_path / "run", "total_flos")[-1]["total_flos"]
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    main([str(recipe), "--resume_from_checkpoint", "true"])
    resumed = history(tmp_path / "run")
    assert [entry["step"] for entry in resumed] == [1, 2, 3, 4]
    for key in ("tokens_per_second", "molecules_per_second", "generator_learning_rate"):
        assert [entry[key] for entry in resumed] == [entry[key] for entry in whole]
    assert history(tmp_path / "run", "total_flos")[-1]["total_flos"] == flops


@pytest.mark.usefixtures("small_qm9")
def test_a_method_without_graphs(recipe: Path, tmp_path: Path):  # noqa: F811
    change(recipe, logging_steps=2)
    main([str(recipe), "--method", "lora"])
    for entry in history(tmp_path / "run"):
        assert entry["tokens_per_second"] > 0
        assert not entry.keys() & {"molecules_per_second", "generator_learning_rate", "mfu"}


@pytest.mark.usefixtures("small_qm9")
def test_tensorboard_gets_all_that_is_logged(recipe: Path, tmp_path: Path):  # noqa: F811
    change(
        recipe,
        report_to=["tensorboard"],
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        score_rows=2,
    )
    main([str(recipe)])
    (folder,) = (tmp_path / "run" / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    for key in ("loss", "generator_learning_rate", "tokens_per_second", "molecules_per_second"):
        logged = [(entry["step"], entry[key]) for entry in history(tmp_path / "run")]
        found = [(event.step, event.value) for event in events.Scalars(f"train/{key}")]
        assert found == [(step, pytest.approx(value)) for step, value in logged]
    for key in ("loss", "mae", "read"):
        assert [event.step for event in events.Scalars(f"eval/{key}")] == [2, 4]
    (arguments,) = events.Tensors("args/text_summary")
    assert b'"per_device_train_batch_size": 2' in arguments.tensor_proto.string_val[0]
    (configuration,) = events.Tensors("model_config/text_summary")
    assert b'"core_dim"' in configuration.tensor_proto.string_val[0]


def test_missing_reporters_are_named_first(
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(integration_utils, "is_trackio_available", lambda: False)
    change(recipe, report_to=["tensorboard", "trackio"])
    with pytest.raises(SystemExit, match="report_to=.*trackio: .*`pip install trackio`"):
        main([str(recipe)])
    change(recipe, report_to="tensorbord")
    with pytest.raises(SystemExit, match="tensorbord is not supported, only .*tensorboard"):
        main([str(recipe)])


def test_nothing_is_reported_by_default(recipe: Path):  # noqa: F811
    settings = json.loads(recipe.read_text())
    del settings["report_to"]
    recipe.write_text(json.dumps(settings))
    training_args = parse_arguments([str(recipe)])[2]
    assert training_args.report_to == []
    # None would make a Space of a run with trackio when the model is pushed.
    assert training_args.trackio_static_space_id is False
    change(recipe, trackio_static_space_id="me/runs")
    assert parse_arguments([str(recipe)])[2].trackio_static_space_id == "me/runs"


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="needs trackio")
@pytest.mark.usefixtures("small_qm9")
def test_trackio_gets_all_that_is_logged(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read at its import
    change(recipe, report_to="trackio", project="mora", run_name="one", logging_steps=1)
    main([str(recipe), "--eval_strategy", "steps", "--eval_steps", "2", "--score_rows", "2"])
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = Api().runs("mora")
    assert run.name == "one" and run.config["per_device_train_batch_size"] == 2
    logs = SQLiteStorage.get_logs("mora", "one")
    for key in ("loss", "generator_learning_rate", "tokens_per_second", "molecules_per_second"):
        found = [entry[f"train/{key}"] for entry in logs if f"train/{key}" in entry]
        assert found == [entry[key] for entry in history(tmp_path / "run")]
    for key in ("loss", "mae", "read"):
        assert len([entry for entry in logs if f"eval/{key}" in entry]) == 2
