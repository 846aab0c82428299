# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or not there, the one to go on from, a full disk, and the kill test."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from processes import ROOT, command, environment
from safetensors.torch import load_file
from test_finetune import TINY_MODEL, recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import Trainer

from training import checkpoints
from training.checkpoints import (
    DiskFullError,
    check_room,
    choose_checkpoint,
    find_checkpoints,
    finish_checkpoint,
    is_complete,
    remove_unfinished,
)
from training.finetune import main
from training.trainer import MoraTrainer


def make_checkpoint(folder: Path, state: str = "{}") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(folder.name)
    (folder / "trainer_state.json").write_text(state)
    return folder


def test_last_complete_checkpoint_is_chosen(tmp_path: Path):
    for step in (9, 80, 100):
        make_checkpoint(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-100" / "trainer_state.json").unlink()
    make_checkpoint(tmp_path / "checkpoint-110", state='{"global_step": 1')
    make_checkpoint(tmp_path / "_unfinished" / "checkpoint-120")
    make_checkpoint(tmp_path / "checkpoint-best")
    chosen, message = choose_checkpoint(tmp_path)
    assert chosen == tmp_path / "checkpoint-80"
    assert message == (
        f"Going on from {chosen}. Left out, as half-written: _unfinished/checkpoint-120, "
        "checkpoint-100, checkpoint-110."
    )
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path)
    assert [path.name for path in find_checkpoints(tmp_path)[1]] == [
        "checkpoint-100",
        "checkpoint-110",
    ]


def test_no_complete_checkpoint(tmp_path: Path):
    make_checkpoint(tmp_path / "_unfinished" / "checkpoint-2")
    with pytest.raises(
        ValueError, match=r"no complete checkpoint-\* in .*_unfinished/checkpoint-2. Start the run"
    ):
        choose_checkpoint(tmp_path)
    assert find_checkpoints(tmp_path / "nowhere") == ([], [])


def test_finished_checkpoint_takes_the_place_of_an_earlier_one(tmp_path: Path):
    old = make_checkpoint(tmp_path / "checkpoint-4")
    (old / "of_the_old_one").touch()
    new = make_checkpoint(tmp_path / "_unfinished" / "checkpoint-4")
    assert not is_complete(new)
    assert finish_checkpoint(new) == old
    assert is_complete(old)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    assert sorted(path.name for path in old.iterdir()) == [
        "model.safetensors",
        "trainer_state.json",
    ]


def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_checkpoint(tmp_path / "checkpoint-4")
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage)
    check_room(tmp_path, 3_000_000, "checkpoint-8")
    with pytest.raises(
        DiskFullError,
        match=r"for checkpoint-8: it needs about 5.0 MB and 3.0 MB are free. Complete and kept: "
        r"checkpoint-4\. Free some space",
    ):
        check_room(tmp_path, 5_000_000, "checkpoint-8")


@pytest.mark.usefixtures("small_qm9")
def test_disk_that_fills_up_while_a_checkpoint_is_written(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The earlier checkpoint stays, though only one is to be kept, and the run can go on."""
    save_rng_state = MoraTrainer._save_rng_state

    def fail_at_the_second(self: MoraTrainer, output_dir: str) -> None:
        if self.state.global_step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_rng_state(self, output_dir)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(MoraTrainer, "_save_rng_state", fail_at_the_second)
        with pytest.raises(SystemExit, match=r"for checkpoint-4: .* and kept: checkpoint-2\."):
            main([str(recipe), "--save_total_limit", "1"])
    assert is_complete(run / "checkpoint-2")
    assert not (run / "_unfinished").exists()
    main([str(recipe), "--save_total_limit", "1", "--resume_from_checkpoint", "true"])
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.usefixtures("small_qm9")
def test_other_errors_while_saving_are_not_taken_for_a_full_disk(
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(self: MoraTrainer, output_dir: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(MoraTrainer, "_save_rng_state", fail)
    with pytest.raises(RuntimeError, match="something else"):
        main([str(recipe)])


@pytest.mark.usefixtures("small_qm9")
def test_disk_too_full_for_the_first_checkpoint(
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    """Said before the first step, not hours later."""
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(MoraTrainer, "training_step", None)
    with pytest.raises(SystemExit, match="for the next checkpoint: .*no checkpoint yet"):
        main([str(recipe)])


@pytest.mark.usefixtures("small_qm9")
def test_best_checkpoint_is_named_by_its_final_place(recipe: Path, tmp_path: Path):  # noqa: F811
    best = ["--load_best_model_at_end", "true", "--eval_strategy", "steps", "--eval_steps", "2"]
    main([str(recipe), *best, "--save_total_limit", "1"])
    run = tmp_path / "run"
    for folder in (run, run / "checkpoint-4"):
        state = json.loads((folder / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(run / "checkpoint-4")


@pytest.mark.usefixtures("small_qm9")
def test_upload_starts_when_a_checkpoint_is_whole(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    uploaded = []

    def upload(self: Trainer, folder: str) -> None:
        uploaded.append(folder)
        assert is_complete(Path(folder))

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", upload)
    monkeypatch.setattr(Trainer, "push_to_hub", lambda self, **kwargs: uploaded.append("the end"))
    monkeypatch.setattr(Trainer, "init_hf_repo", lambda self: None)
    main([str(recipe), "--push_to_hub"])
    steps = [str(tmp_path / "run" / f"checkpoint-{step}") for step in (2, 4)]
    assert uploaded == [*steps, "the end"]


# Kills its own process where the environment says so: before a step, or in the middle of a save.
SCRIPT = """
import os, signal
from training.finetune import main
from training.trainer import MoraTrainer


def kill_at(method, variable):
    original = getattr(MoraTrainer, method)

    def patched(self, *args, **kwargs):
        if self.state.global_step == int(os.environ.get(variable, -1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    setattr(MoraTrainer, method, patched)


kill_at("training_step", "KILL_BEFORE_STEP")
kill_at("_save_rng_state", "KILL_IN_SAVE")
main()
"""


@pytest.mark.slow
def test_killed_three_times_and_resumed(tiny_base: Path, tmp_path: Path):
    """The weights at the end are those of a run that was left alone, bit by bit.

    Encoder and base use dropout, so that the random numbers have to go on where they stopped, and
    the run is in its second and third pass over the data when it is killed.
    """
    shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.2}))
    settings = TINY_MODEL | {
        "base": str(tmp_path / "base"),
        "graph_config": {"hidden_size": 16, "num_layers": 2, "dropout": 0.2},
        "train_molecules": 40,
        "validation_molecules": 0,
        "test_molecules": 2,
        "max_length": 400,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 24,
        "save_steps": 4,
        "save_total_limit": 2,
        "use_cpu": True,
        "report_to": "none",
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    (tmp_path / "script.py").write_text(SCRIPT)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main([str(tmp_path / "recipe.yaml"), "--output_dir", str(whole)])

    def start(*flags: str, **kill: str) -> subprocess.CompletedProcess:
        arguments = [tmp_path / "recipe.yaml", "--output_dir", killed, *flags]
        return subprocess.run(
            command("single_gpu", tmp_path / "script.py", *arguments),
            cwd=ROOT,
            env=environment() | kill,
            capture_output=True,
            text=True,
            timeout=300,
        )

    steps = random.Random(os.environ.get("KILL_SEED", "7"))
    kills = [
        {"KILL_BEFORE_STEP": str(steps.randint(5, 11))},
        {"KILL_IN_SAVE": "16"},
        {"KILL_BEFORE_STEP": str(steps.randint(17, 23))},
    ]
    resume = []
    for kill in kills:
        result = start(*resume, **kill)
        assert result.returncode == -signal.SIGKILL, result.stderr[-3000:]
        resume = ["--resume_from_checkpoint", "true"]
        print(kill, result.stdout.strip().splitlines()[-1])
    result = start(*resume)
    assert result.returncode == 0, result.stderr[-3000:]
    print(result.stdout)
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    histories = [json.loads((x / "trainer_state.json").read_text()) for x in (whole, killed)]
    assert histories[0]["global_step"] == histories[1]["global_step"] == 24
