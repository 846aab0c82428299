# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The shipped configurations of accelerate and DeepSpeed, and those for several nodes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from processes import CONFIGS, ROOT, environment
from transformers import TrainingArguments
from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "zero3_offload": 3}
OTHERS = {"single_gpu": "NO", "multi_gpu": "MULTI_GPU", "fsdp2": "FSDP"}


def test_no_configuration_is_left_out():
    accelerate, deepspeed = (
        {path.stem for path in (CONFIGS / tool).iterdir()} for tool in ("accelerate", "deepspeed")
    )
    assert accelerate == STAGES.keys() | OTHERS.keys()
    assert deepspeed == STAGES.keys()


@pytest.mark.parametrize("name", [*STAGES, *OTHERS])
def test_accelerate_takes_the_configuration(name: str):
    """It refuses keys that it does not know."""
    config = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == OTHERS.get(name, "DEEPSPEED")
    if name in STAGES:
        path = ROOT / config.deepspeed_config["deepspeed_config_file"]
        assert path == CONFIGS / "deepspeed" / f"{name}.json"
        assert config.deepspeed_config["zero3_init_flag"] is (STAGES[name] == 3)


@pytest.mark.parametrize("name", STAGES)
def test_arguments_fill_in_all_that_is_auto(name: str, tmp_path: Path, make_model):
    arguments = TrainingArguments(
        output_dir=tmp_path,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=5,
        max_grad_norm=0.5,
        learning_rate=1e-3,
        use_cpu=True,
    )
    model = make_model()
    try:
        config = HfTrainerDeepSpeedConfig(str(CONFIGS / "deepspeed" / f"{name}.json"))
        config.trainer_config_process(arguments)
        config.trainer_config_finalize(arguments, model, num_training_steps=7)
    finally:
        unset_hf_deepspeed_config()
    assert isinstance(config, HfDeepSpeedConfig)
    assert "auto" not in json.dumps(config.config)
    assert config.config["train_batch_size"] == 15
    assert config.config["gradient_clipping"] == 0.5
    assert config.config["zero_optimization"]["stage"] == STAGES[name]
    assert config.is_offload() is name.endswith("offload")


def test_deepspeed_reads_the_hostfile():
    script = (
        "from deepspeed.launcher.runner import fetch_hostfile\n"
        f"print(dict(fetch_hostfile({str(CONFIGS / 'hostfile')!r})))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1:] == ["{'node-1': 8, 'node-2': 8}"], result.stderr


def test_slurm_starts_accelerate_on_each_node(tmp_path: Path):
    """With stand-ins for Slurm's commands and for accelerate, which print what they get."""
    commands = {
        "scontrol": "printf 'node-5\\nnode-6\\n'",
        "srun": 'shift; for id in 0 1; do SLURM_NODEID=$id "$@"; done',
        "accelerate": 'printf "%s|" "$@"; echo',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[5-6]", "SLURM_JOB_ID": "20007", "SLURM_NNODES": "2"}
    result = subprocess.run(
        ["bash", str(CONFIGS / "multi_node.slurm"), "recipe.yaml", "--run_name", "two words"],
        env=os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONFIG": "zero3"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for rank, line in enumerate(result.stdout.splitlines()):
        assert line == (
            "launch|--config_file|training/configs/accelerate/zero3.yaml|--num_machines|2|"
            f"--num_processes|16|--machine_rank|{rank}|--main_process_ip|node-5|"
            "--main_process_port|20007|--module|training.finetune|"
            "recipe.yaml|--run_name|two words|"
        )
    assert rank == 1
