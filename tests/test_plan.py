# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The plan of a run, against what the run then does and writes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from modeling_mora import MoraForCausalLM
from training import checkpoints
from training.checkpoints import folder_size, state_size
from training.finetune import main
from training.plan import Memory, count_checkpoints, count_parameters, memory_by_stage
from training.trainer import MoraTrainer

METHODS = {
    "mora": [],
    "lora": ["--rank", "64"],
    "graph_prefix": [],
    "full_finetune": [],
}


@pytest.fixture
def larger_recipe(recipe: Path) -> Path:  # noqa: F811
    """The same with an adapter that is larger than the small files of a checkpoint."""
    settings = json.loads(recipe.read_text()) | {
        "generator_dim": 128,
        "graph_config": {"hidden_size": 128, "num_layers": 3},
        "save_total_limit": 1,
    }
    recipe.write_text(json.dumps(settings))
    return recipe


def dry_run(capsys: pytest.CaptureFixture, *flags: object) -> dict[str, str]:
    """The rows of the plan by name."""
    capsys.readouterr()
    main([*map(str, flags), "--dry_run"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    plan, last = {}, ""
    for line in lines:
        name, *values = [cell.strip() for cell in line.strip("│").split("│")]
        last = name or last  # a long value goes on below
        plan[last] = plan.get(last, "") + " | ".join(values)
    return plan


def first_number(text: str) -> float:
    return float(text.removeprefix("about ").split()[0].rstrip(",").replace(",", ""))


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("method", METHODS)
def test_plan_is_what_the_run_does(
    method: str,
    larger_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    run = tmp_path / "run"
    flags = ["--method", method, *METHODS[method], "--max_steps", "-1", "--num_train_epochs", "1.5"]
    settings = json.loads(larger_recipe.read_text())
    if method in ("lora", "full_finetune"):
        del settings["generator_learning_rate"]
    larger_recipe.write_text(json.dumps(settings))
    with monkeypatch.context() as patch:
        # Nothing of the base's weights is read.
        for model_class in (PreTrainedModel, MoraForCausalLM, AutoModelForCausalLM):
            patch.setattr(model_class, "from_pretrained", None)
        patch.setattr(Trainer, "training_step", None)
        sizes = kept_sizes(patch)
        plan = dry_run(capsys, larger_recipe, *flags)
    assert not run.exists()

    tokens = []
    training_step = Trainer.training_step

    def counted(self: Trainer, model: torch.nn.Module, inputs: dict, *args: object):
        tokens.append(inputs["attention_mask"].sum().item())
        return training_step(self, model, inputs, *args)

    monkeypatch.setattr(Trainer, "training_step", counted)
    main([str(larger_recipe), *flags])
    printed = capsys.readouterr().out
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["global_step"] == first_number(plan["steps"]) == 6
    assert "1.50 passes" in plan["steps"]
    assert sum(tokens) == pytest.approx(first_number(plan["tokens in all"]), rel=0.02)
    trained, total = plan["parameters"].split(" trained of ")
    assert f"method={method}: {trained} of {total} parameters are trained." in printed
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-6"]
    assert plan["checkpoints"] == "3 written, 1 kept"
    planned = sum(sizes.values())
    assert plan["a checkpoint"].startswith(f"about {planned / 1e6:.1f} MB: model ")
    written = folder_size(run / "checkpoint-6")
    assert written == pytest.approx(planned, rel=0.05)
    assert (run / "checkpoint-6" / "optimizer.pt").stat().st_size == pytest.approx(
        sizes["state"], rel=0.05
    )
    result = sizes["model"] + sizes["other files"]
    assert folder_size(run) - written == pytest.approx(result, rel=0.05)
    assert plan["disk"].startswith(f"about {(2 * planned + result) / 1e6:.1f} MB needed at most")


def kept_sizes(patch: pytest.MonkeyPatch) -> dict[str, int]:
    """What `checkpoint_sizes` says from now on, not rounded as the plan is."""
    sizes = {}
    checkpoint_sizes = MoraTrainer.checkpoint_sizes

    def kept(self: MoraTrainer) -> dict[str, int]:
        sizes.update(checkpoint_sizes(self))
        return sizes

    patch.setattr(MoraTrainer, "checkpoint_sizes", kept)
    return sizes


@pytest.mark.usefixtures("small_qm9")
def test_what_a_run_would_say_before_its_first_step(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    def refuse(message: str, *flags: str, error: type = SystemExit) -> None:
        with pytest.raises(error, match=message):
            dry_run(capsys, recipe, *flags)
        assert not (tmp_path / "run" / "_unfinished").exists()

    refuse("learning_rate=0.0", "--learning_rate", "0")
    refuse("Not a single batch", "--dataloader_drop_last", "--per_device_train_batch_size", "9")
    refuse("rate is 0 in all 1 steps", "--max_steps", "1", "--warmup_steps", "2")
    refuse("max_length=10, but an example takes", "--max_length", "10", error=ValueError)
    refuse("no_proj", "--target_modules", "no_proj", error=ValueError)
    assert not (tmp_path / "run").exists()
    usage = checkpoints.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage)
    refuse("No room .* for the next checkpoint")


@pytest.mark.usefixtures("small_qm9")
def test_plan_of_a_run_that_goes_on(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    main([str(recipe), "--max_steps", "2"])
    (tmp_path / "run" / "_unfinished").mkdir()
    before = sorted((tmp_path / "run").rglob("*"))
    plan = dry_run(capsys, recipe, "--resume_from_checkpoint", "true")
    assert plan["goes on from"] == str(tmp_path / "run" / "checkpoint-2")
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_parameters_by_part(make_model):
    model = make_model()
    trained, total = count_parameters(model)
    assert list(total) == ["graph encoder", "weight generator", "adapter", "base LLM"]
    assert (
        total["adapter"] == trained["adapter"] == sum(p.numel() for p in model.tuner.parameters())
    )
    assert "base LLM" not in trained
    assert total["base LLM"] == sum(p.numel() for p in model.language_model.parameters())


def test_number_of_checkpoints(tmp_path: Path):
    def count(steps: int, **settings: object) -> int:
        arguments = TrainingArguments(output_dir=tmp_path, **settings)
        return count_checkpoints(arguments, steps, steps_per_epoch=10)

    assert count(30, save_steps=10) == 3
    assert count(31, save_steps=10) == 4
    assert count(30, save_steps=0.25) == 4
    assert count(25, save_strategy="epoch") == 3
    assert count(25, save_strategy="no") == 0
    best = {"save_strategy": "best", "metric_for_best_model": "loss"}
    assert count(25, **best, eval_strategy="steps", eval_steps=10) == 2
    assert count(25, **best, eval_strategy="epoch") == 3


def test_state_of_each_layout():
    """As counted in README's table of files: 5,993,221 values in float32."""
    trained = 5_993_221
    model = 24_005_628
    assert state_size(trained, 4 * trained, "zero2") + model == pytest.approx(120_000_000, rel=0.01)
    assert state_size(trained, 4 * trained, "zero3") + model == pytest.approx(96_200_000, rel=0.01)
    assert state_size(10, 40, "ddp") == 80
    assert state_size(10, 40, "fsdp2") == 120
    assert state_size(10, 20, "ddp") == 40


class TestMemory:
    """Ten trained matrices of 1,000 float32 values, one frozen in bfloat16 of 50,000."""

    def model(self) -> torch.nn.Module:
        with torch.device("meta"):
            layers = [torch.nn.Linear(10, 100, bias=False) for _ in range(10)]
            frozen = torch.nn.Linear(100, 500, bias=False, dtype=torch.bfloat16)
        return torch.nn.ModuleList([*layers, frozen.requires_grad_(False)])

    def test_stages(self):
        pytest.importorskip("deepspeed")
        assert memory_by_stage(self.model(), processes=4) == {
            "DDP": Memory(16 * 10_000 + 100_000),
            "ZeRO-1": Memory(8 * 10_000 + 12 * 10_000 // 4 + 100_000),
            "ZeRO-2": Memory(2 * 10_000 + 18 * 10_000 // 4 + 100_000),
            # The largest layer, whole.
            "ZeRO-3": Memory(4 * 50_000 + 18 * 10_000 // 4 + 100_000 // 4),
            "ZeRO-3, offload": Memory(4 * 50_000, 18 * 10_000 * 3 // 2 + 100_000),
        }

    def test_without_deepspeed(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "deepspeed.runtime.zero", None)
        memory = memory_by_stage(self.model(), processes=4)
        assert memory["DDP"] == Memory(16 * 10_000 + 100_000)
        assert [name for name in memory if memory[name] is None] == [
            "ZeRO-2",
            "ZeRO-3",
            "ZeRO-3, offload",
        ]


@pytest.mark.usefixtures("small_qm9")
def test_plan_without_deepspeed(
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setitem(sys.modules, "deepspeed.runtime.zero", None)
    plan = dry_run(capsys, recipe)
    assert plan["ZeRO-3"].startswith("needs DeepSpeed | needs DeepSpeed |  |")
    assert plan["ZeRO-1"].count("MB") == 3
