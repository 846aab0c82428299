# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The methods of `training.finetune`: what each trains and saves, and what they have in common."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import run
from peft import PeftModel
from safetensors import safe_open
from test_finetune import TINY_MODEL, recipe  # noqa: F401  (a fixture)
from test_qm9 import small_qm9  # noqa: F401  (a fixture)
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel, Trainer
from transformers.trainer_pt_utils import get_model_param_count

from eval.generation import (
    DTYPES,
    answer_batch,
    generate_answers,
    load_model,
    load_processor,
    method_of,
)
from modeling_mora import MoraConfig, MoraForCausalLM, MoraProcessor
from modeling_mora.base_models_mora import resolve_base
from modeling_mora.targets_mora import find_targets
from training.arguments import ModelArguments, parse_arguments
from training.finetune import finetune, main, optimizer_with_two_rates
from training.methods.lora import lora_size, nearest_rank
from training.methods.models import make_model

METHODS = ["mora", "lora", "graph_prefix", "full_finetune"]
FROZEN_BASE = METHODS[:3]
QUESTIONS = ["Gap of CCO?", "Gap?"]
MOLECULES = ["CCO", None]


def train(recipe: Path, *flags: str) -> Trainer:  # noqa: F811
    return finetune(*parse_arguments([str(recipe), *flags]))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint's safetensors files."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_saves_and_loads(
    method: str,
    recipe: Path,  # noqa: F811
    tiny_base: Path,
    tmp_path: Path,
):
    trainer = train(
        recipe,
        *("--method", method, "--max_steps", "12", "--save_steps", "6", "--logging_steps", "1"),
        *("--train_molecules", "2", "--eval_strategy", "steps", "--eval_steps", "6"),
        *("--learning_rate", "1e-2"),
    )
    folder = tmp_path / "run"
    takes_graphs = method in ("mora", "graph_prefix")
    assert ("graph_atoms" in next(iter(trainer.get_train_dataloader()))) == takes_graphs
    logs = trainer.state.log_history
    losses = [entry["loss"] for entry in logs if "loss" in entry]
    assert len(losses) == 12 and losses[-1] < 0.97 * losses[0]
    assert sum("eval_loss" in entry for entry in logs) == 2
    assert method_of(str(folder)) == method_of(str(folder / "checkpoint-6")) == method

    # The base is as it was, in memory and where it came from.
    base = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    model = load_model(str(folder))
    processor = load_processor(str(folder / "checkpoint-12"))
    inputs = processor(text=QUESTIONS, molecules=MOLECULES, return_tensors="pt")
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(**inputs).logits, base(**text).logits)
    assert model.config.base_model_name_or_path == str(tiny_base)
    mora = MoraForCausalLM.from_base(tiny_base, **TINY_MODEL)
    assert model.config.base_fingerprint == mora.config.base_fingerprint

    # As another process reads it.
    script = """
import sys, torch
from eval.generation import load_model, load_processor
model, processor = load_model(sys.argv[1]), load_processor(sys.argv[1])
inputs = processor(text=["Gap of CCO?", "Gap?"], molecules=["CCO", None], return_tensors="pt")
with torch.no_grad():
    torch.save(model(**inputs).logits, sys.argv[2])
assert "training.finetune" not in sys.modules
"""
    run(script, folder, tmp_path / "logits.pt", cwd=tmp_path)
    trained = trainer.model.eval()
    with torch.no_grad():
        expected = trained(**(inputs if takes_graphs else text)).logits
        assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), expected)
        assert not torch.equal(expected, base(**text).logits)
    for use_adapter in (False, True):
        answers = answer_batch(model, processor, QUESTIONS, MOLECULES, 3, use_adapter)
        assert len(answers) == 2
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    assert loss.isfinite()


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("method", FROZEN_BASE)
def test_the_frozen_base_is_in_no_file(
    method: str,
    recipe: Path,  # noqa: F811
    tiny_base: Path,
    tmp_path: Path,
):
    trainer = train(recipe, "--method", method)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    for name, parameter in base.named_parameters():
        found = trainer.model
        found = getattr(found, "language_model", found)
        found = found.get_base_model() if isinstance(found, PeftModel) else found
        owner, _, leaf = name.rpartition(".")
        module = found.get_submodule(owner)
        module = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        assert torch.equal(getattr(module, leaf), parameter), name
    trained = get_model_param_count(trainer.model, trainable_only=True)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        tensors = weights_of(folder)
        assert sum(tensor.numel() for tensor in tensors.values()) == trained
        for name, tensor in base.state_dict().items():
            assert not any(torch.equal(tensor, saved) for saved in tensors.values()), name
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        sizes.pop("optimizer.pt", None)
        weights = sum(sizes.pop(name) for name in list(sizes) if name.endswith(".safetensors"))
        assert weights < 4 * trained + 20_000  # with the names of the tensors
        assert max(sizes.values()) < 60_000
    path = tmp_path / "run" / "checkpoint-2" / "optimizer.pt"
    states = torch.load(path, weights_only=True)["state"].values()
    moments = [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
    assert sum(moment.numel() for moment in moments) == 2 * trained


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize("method", METHODS[1:])  # MoRA's own is in test_finetune.py
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    method: str,
    recipe: Path,  # noqa: F811
    tmp_path: Path,
):
    flags = ("--method", method, "--gradient_checkpointing", "true")
    whole = train(recipe, *flags)
    expected = weights_of(tmp_path / "run")
    halfway = weights_of(tmp_path / "run" / "checkpoint-2")
    assert any(not torch.equal(halfway[name], expected[name]) for name in expected)

    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    resumed = train(recipe, *flags, "--resume_from_checkpoint", "true")
    assert resumed.state.global_step == whole.state.global_step == 4
    found = weights_of(tmp_path / "run")
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


CHOICES = [
    {},
    {"target_modules": ["all-linear"]},
    {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 2]},
    {"target_modules": ["mlp.up_proj"], "layer_stride": 2},
]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("method", ["lora", "graph_prefix"])
def test_lora_is_on_the_modules_that_mora_adapts(method: str, choice: dict, tiny_base: Path):
    model_args = ModelArguments(method=method, base=str(tiny_base), rank=4, alpha=8, **choice)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    config = MoraConfig(text_config=base.config, **model_args.mora_settings())
    expected = {target.name for target in find_targets(base, config)}
    model = make_model(model_args)
    language_model = model.get_base_model() if method == "lora" else model.language_model
    layers = {n: m for n, m in language_model.named_modules() if hasattr(m, "lora_A")}
    assert layers.keys() == expected
    for layer in layers.values():
        assert layer.r == {"default": 4} and layer.scaling == {"default": 2.0}


@pytest.mark.parametrize("method", ["lora", "graph_prefix"])
@pytest.mark.parametrize("generator", [{}, {"core_dim": 32}, {"freeze_graph_encoder": True}])
def test_the_rank_with_as_many_parameters_as_mora(
    method: str, generator: dict, tiny_base: Path, capsys: pytest.CaptureFixture[str]
):
    settings = {
        "base": str(tiny_base),
        "alpha": 4,
        **{name: value for name, value in TINY_MODEL.items() if name != "graph_config"},
        "graph_config": '{"hidden_size": 16, "num_layers": 1}',
    }
    wanted = get_model_param_count(
        make_model(ModelArguments(**(settings | generator))), trainable_only=True
    )
    matched = ModelArguments(method=method, lora_match="parameters", **(settings | generator))
    model = make_model(matched)
    found = get_model_param_count(model, trainable_only=True)
    printed = capsys.readouterr().out
    assert f"{found:,} parameters, MoRA with these settings (rank 2) {wanted:,}" in printed

    config = model.config if method == "graph_prefix" else model.peft_config["default"]
    rank = config.rank if method == "graph_prefix" else config.r
    alpha = config.alpha if method == "graph_prefix" else config.lora_alpha
    assert rank > 2 and alpha == 2 * rank
    lora = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    assert abs(found - wanted) <= lora / rank / 2


def test_nearest_rank(tiny_base: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    config = MoraConfig(text_config=base.config, target_modules=["q_proj", "down_proj"])
    targets = find_targets(base, config)
    assert lora_size(1, targets) == 3 * (64 + 64 + 96 + 64)
    assert [nearest_rank(n * 864, targets) for n in (-3, 0.4, 1.4, 1.6, 12)] == [1, 1, 1, 2, 12]


def test_two_learning_rates_of_the_graph_prefix(recipe: Path, tiny_base: Path):  # noqa: F811
    flags = ["--method", "graph_prefix"]
    model_args, _, training_args = parse_arguments([str(recipe), *flags])
    model = make_model(model_args)
    names = {parameter: name for name, parameter in model.named_parameters()}
    _, options = optimizer_with_two_rates(model, training_args, 5e-4)
    rates = {names[p]: group["lr"] for group in options["params"] for p in group["params"]}
    assert rates.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, rate in rates.items():
        assert rate == (1e-3 if ".lora_" in name else 5e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "dora"], "method='dora': use one of mora, lora, graph_prefix, full_finetune"),
        (["--lora_match", "size"], "lora_match='size': use one of rank, parameters"),
        (["--lora_match", "parameters"], "lora_match=parameters means nothing to method=mora"),
        (["--method", "lora", "--core_dim", "8"], "core_dim=8 means nothing to method=lora"),
        (["--method=full_finetune", "--rank=4"], "rank=4 means nothing to method=full_finetune"),
        (
            ["--method", "lora", "--lora-match", "parameters", "--generator-learning-rate=1e-4"],
            "generator_learning_rate=0.0001 means nothing to method=lora",
        ),
        (["--method", "graph_prefix", "--generator_dim", "8"], "generator_dim=8 means nothing"),
    ],
)
def test_flags_that_mean_nothing_to_the_method(
    recipe: Path,  # noqa: F811
    flags: list[str],
    message: str,
):
    with pytest.raises(SystemExit, match=message):
        main([str(recipe), *flags])


def test_keys_of_a_recipe_that_the_method_does_not_use(
    recipe: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    model_args, _, _ = parse_arguments([str(recipe), "--method", "lora"])
    assert model_args.mora_settings() == {"rank": 2, "target_modules": ["q_proj", "down_proj"]}
    assert capsys.readouterr().out == (
        "Of the recipe, method=lora does not use generator_dim, generator_heads, graph_config, "
        "generator_learning_rate.\n"
    )
    model_args, _, _ = parse_arguments([str(recipe), "--method=lora", "--lora_match=parameters"])
    assert model_args.mora_settings() == TINY_MODEL
    assert "does not use generator_learning_rate." in capsys.readouterr().out
    parse_arguments([str(recipe), "--method", "mora"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", METHODS)
def test_how_the_base_computes_attention(method: str, tiny_base: Path):
    args = ModelArguments(method=method, base=str(tiny_base), target_modules=["all-linear"])
    implementations = []
    for args.attn_implementation in (None, "eager"):
        implementations.append(base_of(make_model(args)).config._attn_implementation)
    assert implementations == ["sdpa", "eager"]


@pytest.mark.parametrize("method", METHODS)
def test_scored_with_a_base_in_bfloat16(
    method: str, tiny_base: Path, processor: MoraProcessor, tmp_path: Path
):
    args = ModelArguments(method=method, base=str(tiny_base), target_modules=["q_proj"])
    make_model(args).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    dtypes = [base_of(load_model(str(tmp_path), dtype)).dtype for dtype in DTYPES[:3]]
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16]
    half = load_model(str(tmp_path), "bfloat16")
    inputs = processor(text=["Gap of CCO?"], molecules=["CCO"], return_tensors="pt")
    whole = load_model(str(tmp_path))(**inputs).logits
    difference = (half(**inputs).logits - whole).norm() / whole.norm()
    assert 0 < difference < 0.02


def base_of(model: torch.nn.Module) -> PreTrainedModel:
    """The LLM inside the model of any method."""
    return next(part for part in model.modules() if isinstance(part, LlamaForCausalLM))


@pytest.mark.parametrize("method", ["lora", "graph_prefix"])
def test_a_whole_mlp_has_no_lora(method: str, tiny_base: Path):
    model_args = ModelArguments(method=method, base=str(tiny_base), target_modules=["mlp"])
    with pytest.raises(ValueError, match=f"method={method} has no counterpart of MoRA's `mlp`"):
        make_model(model_args)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_on_smollm2(method: str, tmp_path: Path):
    """Two steps of the quickstart, and an answer of what was saved."""
    resolve_base("smollm2")
    folder = tmp_path / "run"
    main(
        [
            "training/recipes/qm9_quickstart.yaml",
            *("--method", method, "--output_dir", str(folder), "--max_steps", "2"),
            *("--train_molecules", "4", "--validation_molecules", "2", "--test_molecules", "2"),
            *("--per_device_train_batch_size", "2", "--eval_strategy", "no"),
            *("--save_strategy", "no", "--report_to", "none"),
        ]
    )
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert method == "full_finetune" or size < 30_000_000
    model, processor = load_model(str(folder)), load_processor(str(folder))
    (answer,) = generate_answers(model, processor, ["Gap of CCO?"], ["CCO"], max_new_tokens=2)
    assert answer.text
