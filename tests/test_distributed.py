# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Two processes learn what one does, with each of the shipped configurations, and after a crash.

Each run is killed between its two checkpoints and then gone on with, so that its losses and weights
also show what its checkpoints hold.
"""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from bases import random_base
from processes import (
    ON_CPU,
    ROOT,
    command,
    environment,
    run_processes,
)
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from training.checkpoints import state_size
from training.finetune import main

pytestmark = pytest.mark.slow

CONFIGS = ["multi_gpu", "fsdp2", "zero2", "zero3"]
STEPS = 6
# Kills process 1 in the step after checkpoint-3 where the environment says so.
SCRIPT = (
    ON_CPU
    + """
import os, signal
from training.finetune import main
from training.trainer import MoraTrainer

training_step = MoraTrainer.training_step


def step(self, *args, **kwargs):
    if self.state.global_step == int(os.environ.get("KILL_AT", -1)) and self.args.process_index:
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(self, *args, **kwargs)


MoraTrainer.training_step = step
main()
"""
)

OTHER_METHODS = ["lora", "graph_prefix"]
OTHER_FLAGS = ["--lr_scheduler_type", "constant"]
# One start of the processes for all, as it takes longer than the trainings.
OTHERS_SCRIPT = (
    ON_CPU
    + """
import sys

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from training.finetune import main

# The processes stay connected from one training to the next.
Accelerator.end_training = lambda self: AcceleratorState._reset_state()
folder, *methods = sys.argv[1:4]
for method in methods:
    flags = [*sys.argv[4:], "--method", method, "--output_dir", f"{folder}/{method}"]
    for more in (["--max_steps", "3"], ["--resume_from_checkpoint", "true"]):
        main(flags + more)
PartialState().destroy_process_group()
"""
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Six steps of 8 examples each on a base with a tied output head, larger than the adapter."""
    folder = tmp_path_factory.mktemp("distributed")
    base = random_base("llama", tokenizer, hidden_size=256, tie_word_embeddings=True)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    settings = {
        "base": str(folder / "base"),
        "rank": 2,
        "target_modules": ["q_proj", "down_proj"],
        "generator_dim": 32,
        "generator_depth": 1,
        "generator_heads": 2,
        "graph_config": {"hidden_size": 32, "num_layers": 2},
        "train_molecules": 64,
        "validation_molecules": 8,
        "test_molecules": 2,
        "max_length": 400,
        "learning_rate": 1e-2,
        "generator_learning_rate": 1e-3,
        "weight_decay": 1.0,  # strong enough to show
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
        "max_steps": STEPS,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 3,
        "load_best_model_at_end": True,
        "use_cpu": True,
        "report_to": "none",
    }
    (folder / "recipe.yaml").write_text(json.dumps(settings))
    (folder / "script.py").write_text(SCRIPT)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def alone(recipe: Path) -> Path:
    """Output folder of this process, which sees the same examples in each step."""
    folder = recipe.with_name("alone")
    main([str(recipe), "--per_device_train_batch_size", "4", "--output_dir", str(folder)])
    return folder


@pytest.fixture(scope="module", params=CONFIGS)
def together(recipe: Path, request: pytest.FixtureRequest) -> Path:
    """Output folder of two processes, the second of which was killed in step 5."""
    folder = recipe.with_name(request.param)
    script = recipe.with_name("script.py")
    flags = [recipe, "--ddp_backend", "gloo", "--output_dir", folder]
    killed = subprocess.run(
        command(request.param, script, *flags),
        cwd=ROOT,
        env=environment() | {"KILL_AT": "4"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Signal 9 (SIGKILL)" in killed.stderr, killed.stderr[-5000:]
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-3"]
    printed = run_processes(request.param, script, *flags, "--resume_from_checkpoint", "true")
    assert printed.count(f"Going on from {folder / 'checkpoint-3'}.") == 1
    return folder


@pytest.fixture(scope="module")
def others_alone(recipe: Path) -> Path:
    """Folder with an output folder of this process for each other method than MoRA."""
    folder = recipe.with_name("others-alone")
    for method in OTHER_METHODS:
        flags = ["--method", method, *OTHER_FLAGS, "--per_device_train_batch_size", "4"]
        main([str(recipe), *flags, "--output_dir", str(folder / method)])
    return folder


@pytest.fixture(scope="module", params=["fsdp2", "zero3"])
def others_together(recipe: Path, request: pytest.FixtureRequest) -> Path:
    """Folder with an output folder for each other method: three steps, and three more."""
    folder = recipe.with_name(f"others-{request.param}")
    script = recipe.with_name("others.py")
    script.write_text(OTHERS_SCRIPT)
    flags = [*OTHER_FLAGS, "--ddp_backend", "gloo", "--load_best_model_at_end", "false"]
    printed = run_processes(request.param, script, folder, *OTHER_METHODS, recipe, *flags)
    assert all(f"Going on from {folder / x / 'checkpoint-3'}." in printed for x in OTHER_METHODS)
    return folder


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_other_methods_follow_one_process(others_alone: Path, others_together: Path, method: str):
    together, alone = others_together / method, others_alone / method
    assert_same_losses(together, alone)
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert_nearly_equal(load_file(together / name), load_file(alone / name))


def history(folder: Path, key: str) -> list[float]:
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [entry[key] for entry in state["log_history"] if key in entry]


def assert_same_losses(folder: Path, alone: Path):
    losses = history(alone, "loss")
    assert len(losses) == STEPS and losses[-1] < losses[0] - 0.5
    assert history(folder, "loss") == pytest.approx(losses, rel=1e-5)
    assert history(folder, "eval_loss") == pytest.approx(history(alone, "eval_loss"), rel=1e-5)


def test_losses_and_gradients_of_one_process(alone: Path, together: Path):
    assert_same_losses(together, alone)
    assert history(together, "grad_norm") == pytest.approx(history(alone, "grad_norm"), rel=1e-4)


def test_probed_weights_of_one_process(alone: Path, together: Path):
    for key in ("mora/weight_diversity", "mora/delta_norm"):
        values = history(alone, key)
        assert len(values) == STEPS and values[-1] > 1e-3
        assert history(together, key) == pytest.approx(values, rel=1e-2)


def assert_nearly_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]):
    """AdamW turns the rounding of a gradient near zero into a part of a step, which is 0.001."""
    assert found.keys() == expected.keys()
    differences = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).abs()
    assert differences.max() < 5e-4
    assert differences.mean() < 1e-6


def test_weights_of_one_process(alone: Path, together: Path):
    expected, found = (load_file(folder / "model.safetensors") for folder in (alone, together))
    assert_nearly_equal(found, expected)


def test_checkpoint_is_the_one_that_was_best(together: Path):
    state = json.loads((together / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(together / f"checkpoint-{STEPS}")
    assert not (together / "_unfinished").exists()


def test_sizes_of_the_files_of_a_checkpoint(together: Path):
    """Weights and, once over all processes, what AdamW keeps; nothing of the frozen LLM."""
    checkpoint = together / "checkpoint-3"
    size = 4 * sum(t.numel() for t in load_file(checkpoint / "model.safetensors").values())
    optimizer = "global_step3/zero_pp_rank_{}_mp_rank_00_optim_states.pt"
    expected = {
        "multi_gpu": {"optimizer.pt": 2 * size},
        "fsdp2": {"optimizer.bin": 2 * size, "pytorch_model_fsdp.bin": size},
        "zero2": {
            "global_step3/mp_rank_00_model_states.pt": size,
            optimizer.format(0): 1.5 * size,
            optimizer.format(1): 1.5 * size,
        },
        "zero3": {
            "global_step3/zero_pp_rank_0_mp_rank_00_model_states.pt": 0,
            "global_step3/zero_pp_rank_1_mp_rank_00_model_states.pt": 0,
            optimizer.format(0): 1.5 * size,
            optimizer.format(1): 1.5 * size,
        },
    }[together.name]
    layout = {"multi_gpu": "ddp"}.get(together.name, together.name)
    assert sum(expected.values()) == state_size(size // 4, size, layout)
    expected |= {
        "model.safetensors": size,
        "scheduler.pt": 0,
        "rng_state_0.pth": 0,
        "rng_state_1.pth": 0,
        "trainer_state.json": 0,
        "training_args.bin": 0,
        "data.json": 0,
    }
    of_library = {path.name for path in (ROOT / "modeling_mora").glob("*.py")}
    of_others = {"config.json", "generation_config.json", "processor_config.json", "latest"}
    of_others |= {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    of_others |= {"zero_to_fp32.py", "zero_to_torch.py"}
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in checkpoint.rglob("*")
        if path.is_file() and path.name not in of_library | of_others
    }
    assert sizes.keys() == expected.keys()
    names_and_padding = 80_000
    assert names_and_padding < 4 * 256 * 259  # the tied output head alone
    for name in expected:
        assert expected[name] <= sizes[name] <= expected[name] + names_and_padding, name
