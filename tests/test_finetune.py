# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The training command: settings, early errors, a run, and a run that was interrupted."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import TrainingArguments

from modeling_mora import MoraForCausalLM, MoraProcessor
from training.arguments import parse_arguments
from training.data.qm9 import load_qm9
from training.finetune import main, make_trainer, optimizer_with_two_rates
from training.tokenization import tokenize_dataset

TINY_MODEL = {
    "rank": 2,
    "target_modules": ["q_proj", "down_proj"],
    "generator_dim": 16,
    "generator_heads": 2,
    "graph_config": {"hidden_size": 16, "num_layers": 1},
}


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path) -> Path:
    """A run of four steps on 8 molecules."""
    settings = TINY_MODEL | {
        "base": str(tiny_base),
        "train_molecules": 8,
        "validation_molecules": 2,
        "test_molecules": 3,
        "max_length": 400,
        "learning_rate": "1e-3",
        "generator_learning_rate": 5e-4,
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "save_steps": 2,
        "output_dir": str(tmp_path / "run"),
        "use_cpu": True,
        "report_to": "none",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path


def test_batches_grouped_by_length(recipe: Path):
    padding = {}
    for strategy in ("random", "group_by_length"):
        flags = ["--train_molecules=64", f"--train_sampling_strategy={strategy}"]
        trainer = make_trainer(*parse_arguments([str(recipe), *flags]))
        masks = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
        padding[strategy] = sum(int((mask == 0).sum()) for mask in masks)
        assert sum(map(len, masks)) == 64
    assert padding["group_by_length"] < padding["random"] / 2


@pytest.mark.usefixtures("small_qm9")
def test_tokenises_with_the_processes_asked_for(recipe: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def count_processes(dataset, tokenizer, max_length, processes):
        asked.append(processes)
        return tokenize_dataset(dataset, tokenizer, max_length, 1)

    monkeypatch.setattr("training.finetune.tokenize_dataset", count_processes)
    make_trainer(*parse_arguments([str(recipe), "--preprocessing_num_workers", "3"]))
    assert asked == [3, 3]


def test_flags_win_over_the_recipe(recipe: Path):
    model_args, data_args, training_args = parse_arguments(
        [str(recipe), "--max_steps", "7", "--properties", "homo", "lumo", "--rank=8"]
    )
    assert training_args.max_steps == 7
    assert training_args.learning_rate == 1e-3
    assert training_args.use_cpu is True
    assert data_args.properties == ["homo", "lumo"]
    assert model_args.mora_settings() == TINY_MODEL | {"rank": 8}


def test_flags_alone_are_enough(tmp_path: Path):
    model_args, data_args, _ = parse_arguments(
        ["--output_dir", str(tmp_path), "--target_modules", "all-linear", "--use_cpu"]
    )
    assert model_args.base == "smollm2"
    assert model_args.mora_settings() == {"target_modules": "all-linear"}
    assert data_args.properties == ["gap"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rate", "0"], "learning_rate=0.0: give a number above 0"),
        (["--generator_learning_rate=-1"], "generator_learning_rate=-1.0"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size=0"),
        (["--max_length", "0"], "max_length=0"),
        (["--preprocessing_num_workers", "0"], "preprocessing_num_workers=0"),
        (["--train_molecules", "0"], "train_molecules=0"),
        (["--max_steps", "0"], "nothing to train"),
        (["--eval_strategy", "steps", "--validation_molecules", "0"], "needs validation_molecules"),
        (["--graph_config", "{layers"], "is not JSON"),
        (["--base_dtype", "float8"], "base_dtype='float8': use one of"),
        (["--resume_from_checkpoint", "nowhere"], "is not a complete checkpoint folder"),
        (["--resume_from_checkpoint", "true"], "no complete checkpoint-"),
        (["--lerning_rate", "1"], "--lerning_rate"),
    ],
)
def test_settings_that_cannot_work(recipe: Path, flags: list[str], message: str):
    with pytest.raises(SystemExit, match=message):
        main([str(recipe), *flags])


def test_unknown_key_in_the_recipe(recipe: Path):
    recipe.write_text(recipe.read_text().replace('"learning_rate"', '"lerning_rate"'))
    with pytest.raises(
        SystemExit, match="recipe.yaml: unknown key 'lerning_rate'. Did you mean 'learning_rate'"
    ):
        main([str(recipe)])


def test_missing_recipe():
    with pytest.raises(SystemExit, match="no_such_recipe.yaml"):
        main(["no_such_recipe.yaml"])


def test_missing_base(recipe: Path, tmp_path: Path):
    with pytest.raises(SystemExit, match="base='.*nothing' is neither"):
        main([str(recipe), "--base", str(tmp_path / "nothing")])


def test_two_learning_rates(make_model, tmp_path: Path):
    model = make_model()
    training_args = TrainingArguments(
        output_dir=str(tmp_path), learning_rate=1e-3, weight_decay=0.1, use_cpu=True
    )
    optimizer_class, options = optimizer_with_two_rates(model, training_args, 5e-4)
    optimizer = optimizer_class(options.pop("params"), **options)
    names = {parameter: name for name, parameter in model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            adapter = names[parameter].startswith("tuner.")
            assert group["lr"] == (1e-3 if adapter else 5e-4)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
            seen.add(names[parameter])
    assert seen == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.usefixtures("small_qm9")
def test_run_saves_model_processor_and_data(recipe: Path, tmp_path: Path, capsys):
    main([str(recipe), "--eval_strategy", "steps", "--eval_steps", "2"])
    run = tmp_path / "run"
    assert f"Saved the model and its processor to {run}" in capsys.readouterr().out
    for folder in (run, run / "checkpoint-2", run / "checkpoint-4"):
        assert len(load_qm9(**json.loads((folder / "data.json").read_text()))["test"]) == 3
        assert MoraProcessor.from_pretrained(folder).tokenizer.chat_template
        assert not any(key.startswith("language_model") for key in load_adapter(folder))
    model = MoraForCausalLM.from_pretrained(run)
    assert any(delta.B.abs().max() > 0 for delta in model.tuner.deltas.values())
    logs = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert any("eval_loss" in entry for entry in logs)


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ([], [2, 3]),
        # In the second pass over the data, whose order the checkpoint does not hold.
        (["--train_sampling_strategy=group_by_length", "--max_steps=8", "--save_steps=6"], [6, 7]),
    ],
)
def test_resumed_run_ends_like_an_uninterrupted_one(
    flags: list[str], steps: list[int], recipe: Path, tmp_path: Path, steps_taken: list[int]
):
    main([str(recipe), *flags])
    whole = load_adapter(tmp_path / "run")
    halfway = load_adapter(tmp_path / "run" / f"checkpoint-{steps[0]}")
    assert any(not torch.equal(halfway[key], whole[key]) for key in whole)

    # As if the run had been killed after its first checkpoint.
    shutil.rmtree(tmp_path / "run" / f"checkpoint-{steps[-1] + 1}")
    (tmp_path / "run" / "model.safetensors").unlink()
    steps_taken.clear()
    main([str(recipe), *flags, "--resume_from_checkpoint", "true"])
    assert steps_taken == steps
    resumed = load_adapter(tmp_path / "run")
    assert resumed.keys() == whole.keys()
    for key in whole:
        torch.testing.assert_close(resumed[key], whole[key])


@pytest.mark.usefixtures("small_qm9")
def test_two_runs_are_not_mixed_in_one_folder(recipe: Path, tmp_path: Path):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(SystemExit, match="holds checkpoints of an earlier run"):
        main([str(recipe)])


def load_adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
