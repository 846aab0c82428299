# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that are broken on purpose: what stops them, what they leave behind and what they say."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MOLECULES
from processes import ON_CPU, ROOT, command, environment
from safetensors.torch import load_file
from test_distributed import CONFIGS
from test_distributed import recipe as recipe_of_two  # noqa: F401  (a fixture)
from test_finetune import recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import Trainer, TrainingArguments

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM
from training.finetune import main
from training.guards import (
    FiniteGuard,
    GuardError,
    check_number_format,
    check_schedule,
    graph_smiles,
)
from training.trainer import MoraTrainer

SPOILED = "weight_generator.layer_embedding"


def spoil_loss(
    monkeypatch: pytest.MonkeyPatch, step: int, batch: int, value: float
) -> list[torch.Tensor]:
    """Let the loss of one of the accumulated batches of a step be `value` more.

    Returns:
        A list that gets the token ids of that batch.
    """
    compute_loss = Trainer.compute_loss
    steps, spoiled_ids = [], []

    def spoiled(self: Trainer, model: object, inputs: dict, **kwargs: object) -> torch.Tensor:
        steps.append(self.state.global_step)
        loss = compute_loss(self, model, inputs, **kwargs)
        if self.state.global_step != step or steps.count(step) != batch:
            return loss
        spoiled_ids.append(inputs["input_ids"])
        return loss + value

    monkeypatch.setattr(Trainer, "compute_loss", spoiled)
    return spoiled_ids


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    """Put `value` into the gradient of one parameter."""
    training_step = Trainer.training_step

    def spoiled(self: Trainer, model: torch.nn.Module, *args: object) -> torch.Tensor:
        loss = training_step(self, model, *args)
        if self.state.global_step == step:
            model.get_parameter(SPOILED).grad[0, 0] = value
        return loss

    monkeypatch.setattr(Trainer, "training_step", spoiled)


def keep_trainer(monkeypatch: pytest.MonkeyPatch) -> list[MoraTrainer]:
    """The trainers that are made from now on."""
    trainers = []
    init = MoraTrainer.__init__

    def kept(self: MoraTrainer, *args: object, **kwargs: object) -> None:
        trainers.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(MoraTrainer, "__init__", kept)
    return trainers


def assert_weights_are_those_of(checkpoint: Path, trainer: MoraTrainer) -> None:
    saved = load_file(checkpoint / "model.safetensors")
    weights = trainer.model.whole_state_dict()
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], weights[name]) for name in saved)


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite(
    value: float,
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """In one of two accumulated batches; an infinite sum has finite gradients."""
    spoiled_ids = spoil_loss(monkeypatch, step=2, batch=2, value=value)
    trainers = keep_trainer(monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        main([str(recipe), "--gradient_accumulation_steps", "2"])
    message = str(stopped.value)
    assert message.startswith(f"training.finetune: error: In step 3 the loss is {value}, and not ")
    assert "It was not applied: the weights and the last checkpoint are as they were." in message
    assert (
        "now: 0.00025, 0.0005; weights of the LLM in torch.float32, mixed precision: no" in message
    )
    assert "Lower learning_rate or generator_learning_rate" in message
    # The two rows of the bad batch, and not those of the other one.
    rows = message.partition("rows of this batch: ")[2].split(" | ")
    dataset, tokenizer = trainers[0].train_dataset, trainers[0].processing_class.tokenizer
    expected = []
    for ids in spoiled_ids[0].tolist():
        example = next(x for x in dataset if x["input_ids"] == ids[-len(x["input_ids"]) :])
        smiles = graph_smiles_of(MoleculeFeatureExtractor(), example["molecule"])
        answer = tokenizer.decode([i for i in example["labels"] if i > 0][:-1])
        expected.append((smiles, answer))
    assert [row.split()[0] for row in rows] == [smiles for smiles, _ in expected]
    assert all(answer in row for row, (_, answer) in zip(rows, expected, strict=True))
    assert_weights_are_those_of(tmp_path / "run" / "checkpoint-2", trainers[0])
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def graph_smiles_of(extract: MoleculeFeatureExtractor, molecule: str | None) -> str:
    graphs = extract([molecule], return_tensors="pt")
    return graph_smiles({name: tensor[0] for name, tensor in graphs.items()})


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("max_grad_norm", ["1.0", "0"])
def test_gradient_that_is_not_finite(
    value: float,
    max_grad_norm: str,
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """The one parameter is named, though clipping would have made all gradients NaN."""
    spoil_gradient(monkeypatch, step=2, value=value)
    trainers = keep_trainer(monkeypatch)
    with pytest.raises(
        SystemExit,
        match=rf"In step 3 the norm of the gradients is {value} \(loss on this process: \d.*\), "
        rf"and not finite are the gradients of {SPOILED}\. It was not applied",
    ):
        main([str(recipe), "--max_grad_norm", max_grad_norm])
    assert_weights_are_those_of(tmp_path / "run" / "checkpoint-2", trainers[0])


@pytest.mark.usefixtures("small_qm9")
def test_other_methods_are_guarded_too(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    spoil_loss(monkeypatch, step=3, batch=1, value=math.nan)
    settings = json.loads(recipe.read_text())
    del settings["generator_learning_rate"]
    recipe.write_text(json.dumps(settings | {"logging_steps": 1}))
    with pytest.raises(SystemExit, match="In step 4 the loss is nan.*gap"):
        main([str(recipe), "--method", "lora"])
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert not [key for entry in state["log_history"] for key in entry if key.startswith("mora/")]


@pytest.mark.usefixtures("small_qm9")
def test_guarded_run_is_the_trainers_own(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Weights and logged norms are, bit by bit, those with the Trainer's loss and clipping."""
    flags = ["--logging_steps", "1", "--max_grad_norm", "0.1", "--gradient_accumulation_steps", "2"]
    main([str(recipe), *flags])
    for name in ("compute_loss", "_clip_grad_norm", "_get_grad_norm", "log"):
        monkeypatch.setattr(MoraTrainer, name, getattr(Trainer, name))
    main([str(recipe), *flags, "--output_dir", str(tmp_path / "plain")])
    guarded, plain = (load_file(tmp_path / x / "model.safetensors") for x in ("run", "plain"))
    assert all(torch.equal(guarded[name], plain[name]) for name in plain)
    norms = []
    for folder in ("run", "plain"):
        state = json.loads((tmp_path / folder / "trainer_state.json").read_text())
        norms.append([entry["grad_norm"] for entry in state["log_history"] if "loss" in entry])
    assert norms[0] == norms[1] and len(norms[0]) == 4 and min(norms[0]) > 0.1


def test_overflow_in_fp16_is_normal_until_the_scale_is_not_the_reason(
    make_model: Callable[..., MoraForCausalLM], tmp_path: Path, processor
):
    arguments = TrainingArguments(output_dir=tmp_path, use_cpu=True)
    trainer = MoraTrainer(
        model=make_model(), args=arguments, data_settings={}, processing_class=processor
    )
    trainer.create_optimizer()
    trainer.guard.watch(torch.tensor(1.5), {"input_ids": torch.tensor([[65, 66]])}, 7)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    trainer._stop_unless_finite(torch.tensor(math.inf))
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    with pytest.raises(GuardError, match="In step 8 the norm of the gradients is inf"):
        trainer._stop_unless_finite(torch.tensor(math.inf))
    trainer._stop_unless_finite(torch.tensor(1e30))


def test_batches_of_earlier_steps_are_forgotten(processor):
    guard = FiniteGuard(processor.tokenizer)
    for step in (3, 4, 4):
        guard.watch(torch.tensor(float(step)), {"input_ids": torch.tensor([[65]])}, step)
    assert [loss.item() for loss, _ in guard.seen] == [4, 4]
    message = str(guard.error(math.nan, [], [1e-3, 1e-4, 1e-3], "float32"))
    assert "In step 5" in message and "Learning rates now: 0.0001, 0.001;" in message


@pytest.mark.parametrize("molecule", MOLECULES)
def test_molecule_of_a_row_is_named_by_its_graph(molecule: str):
    """Read again, the SMILES gives the same graph but for stereo."""
    extract = MoleculeFeatureExtractor()
    smiles = graph_smiles_of(extract, molecule)
    flat = molecule.replace("@", "").replace("/", "")
    assert graph_smiles_of(extract, flat) == graph_smiles_of(extract, smiles) == smiles
    assert graph_smiles_of(extract, None) == "(no molecule)"


@pytest.mark.usefixtures("small_qm9")
def test_learning_rate_that_is_always_zero(recipe: Path):  # noqa: F811
    with pytest.raises(SystemExit, match=r"rate is 0 in all 1 steps .*linear, warmup_steps=3\)"):
        main([str(recipe), "--max_steps", "1", "--warmup_steps", "3"])


def test_schedules(tmp_path: Path):
    def check(steps: int, **settings: object) -> str | None:
        return check_schedule(TrainingArguments(output_dir=tmp_path, **settings), steps)

    assert check(1) is None
    assert check(10, warmup_steps=9, lr_scheduler_type="cosine") is None
    assert "rises for warmup_steps=10, but the run has only 10 steps" in check(10, warmup_steps=10)
    assert "rises for warmup_steps=20" in check(2, warmup_steps=20)
    with pytest.raises(GuardError, match="rate is 0 in all 1 steps"):
        check(1, warmup_steps=2, lr_scheduler_type="constant_with_warmup")


@pytest.mark.parametrize(
    ("capabilities", "slow"),
    [
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx512_bf16": False, "amx_bf16": True}, False),
        ({"neon": True, "bf16": False}, True),
        ({"neon": True, "bf16": True}, False),
        ({}, False),  # not known
    ],
)
def test_cpus_that_do_not_multiply_in_bfloat16(
    capabilities: dict[str, bool], slow: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    cpu, both = torch.device("cpu"), {torch.float32, torch.bfloat16}
    warning = check_number_format(cpu, both)
    assert (warning is not None) == slow
    if slow:
        assert "give base_dtype: float32" in warning
    assert check_number_format(torch.device("cuda"), both) is None
    assert check_number_format(cpu, {torch.float32}) is None
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in torch 2.6
    assert check_number_format(cpu, both) is None


@pytest.mark.usefixtures("small_qm9")
def test_a_slow_number_format_is_warned_of(
    recipe: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": False}, raising=False)
    main([str(recipe), "--max_steps", "1", "--base_dtype", "bfloat16"])
    assert caplog.text.count("This CPU does not multiply in bfloat16") == 1


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("length", [["--max_steps", "2"], ["--max_steps", "-1"]])
def test_data_that_are_fewer_than_a_batch(length: list[str], recipe: Path):  # noqa: F811
    flags = ["--per_device_train_batch_size", "9", "--dataloader_drop_last", "true", *length]
    with pytest.raises(SystemExit, match="Not a single batch: .*batch_size=9 times 1 .*=True"):
        main([str(recipe), *flags])


@pytest.mark.usefixtures("small_qm9")
def test_generator_that_ignores_the_atoms(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Warned of once, with the fix, and the run goes on; a healthy run is not warned of."""
    main([str(recipe), "--logging_steps", "1"])
    assert not warnings_of_training(caplog)
    healthy = logged(tmp_path / "run")
    assert min(healthy["mora/weight_diversity"]) > 0.01
    assert healthy["mora/delta_norm"][0] > 1e-5
    encode = MoraForCausalLM.encode_molecules

    def same(self: MoraForCausalLM, graph_atoms: torch.Tensor, graph_atom_mask, *args, **kwargs):
        weights = encode(self, graph_atoms, graph_atom_mask, *args, **kwargs)
        return weights.mean(dim=0, keepdim=True).expand_as(weights)

    monkeypatch.setattr(MoraForCausalLM, "encode_molecules", same)
    flags = ["--logging_steps", "1", "--warmup_steps", "1", "--output_dir", str(tmp_path / "same")]
    main([str(recipe), *flags])
    messages = warnings_of_training(caplog)
    assert len(messages) == 1
    assert messages[0].startswith("Step 2: mora/weight_diversity is ")
    assert "below 0.005: different molecules get nearly the same weights" in messages[0]
    assert "Lower generator_learning_rate" in messages[0] and "pretrain_graph" in messages[0]
    assert max(logged(tmp_path / "same")["mora/weight_diversity"]) < 1e-6


@pytest.mark.usefixtures("small_qm9")
def test_adapter_that_does_nothing(
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    prepare = MoraForCausalLM._prepare_adapter

    def freeze_b(self: MoraForCausalLM) -> None:
        prepare(self)
        for delta in self.tuner.deltas.values():
            delta.B.requires_grad_(False)

    monkeypatch.setattr(MoraForCausalLM, "_prepare_adapter", freeze_b)
    main([str(recipe), "--logging_steps", "1"])
    assert logged(tmp_path / "run")["mora/delta_norm"] == [0, 0, 0, 0]
    messages = warnings_of_training(caplog)
    assert len(messages) == 1
    assert (
        "Step 1: mora/delta_norm is 0, below 1e-05: the adapter does nearly nothing" in messages[0]
    )


def warnings_of_training(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "training.trainer"]


def logged(run: Path) -> dict[str, list[float]]:
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    keys = ("mora/weight_diversity", "mora/delta_norm")
    return {key: [entry[key] for entry in history if "loss" in entry] for key in keys}


SCRIPT = (
    ON_CPU
    + """
import sys
import time
from pathlib import Path

from training.finetune import main
from transformers import Trainer

compute_loss = Trainer.compute_loss


def spoiled(self, *args, **kwargs):
    loss = compute_loss(self, *args, **kwargs)
    return loss + float("inf") if self.state.global_step == 4 and self.args.process_index else loss


Trainer.compute_loss = spoiled
stopped = [Path(__file__).with_name(f"stopped-{rank}") for rank in range(2)]
try:
    main()
except SystemExit as error:
    print(error, file=sys.stderr, flush=True)
    stopped[int(os.environ["RANK"])].touch()
    # The launcher kills the other process as soon as one has exited.
    given_up = time.monotonic() + 60
    while not all(path.exists() for path in stopped) and time.monotonic() < given_up:
        time.sleep(0.05)
    sys.exit(1)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_one_process_stops_all(config: str, recipe_of_two: Path, tmp_path: Path):  # noqa: F811
    """None waits for another; checkpoint-3 stays."""
    (tmp_path / "script.py").write_text(SCRIPT)
    flags = [recipe_of_two, "--ddp_backend", "gloo", "--output_dir", tmp_path / "run"]
    result = subprocess.run(
        command(
            config,
            tmp_path / "script.py",
            *flags,
            "--eval_strategy",
            "no",
            "--load_best_model_at_end",
            "false",
        ),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if "training.finetune: error" in line]
    assert len(errors) == 2, result.stderr[-5000:]
    assert sum("error: In step 5 the loss is inf" in line for line in errors) == 1
    assert sum("error: In step 5 the norm of the gradients is" in line for line in errors) == 1
    assert "training/finetune.py" not in result.stderr  # the launcher alone has a traceback
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-3"]
