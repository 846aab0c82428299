# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`MoraForCausalLM`: saving, loading, errors, precision, copying."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from conftest import MOLECULES, run_without_package
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from modeling_mora import MoraForCausalLM

TEXTS = [f"Question {i}" for i in range(4)]
REMOTE_SCRIPT = """
import importlib.util, sys, torch
assert importlib.util.find_spec("modeling_mora") is None, "the package must not be importable"
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForCausalLM, AutoProcessor, AutoTokenizer
)
path = sys.argv[1]
remote = dict(trust_remote_code=True)
assert AutoConfig.from_pretrained(path, **remote).model_type == "mora"
processor = AutoProcessor.from_pretrained(path, **remote)
assert AutoFeatureExtractor.from_pretrained(path, **remote)("CCO", return_tensors="pt")
assert AutoTokenizer.from_pretrained(path)("a").input_ids
inputs = processor(
    text=["Question 0", "Q"], molecules=["CCO", None], return_tensors="pt", padding=True
)
logits = {}
for auto in (AutoModel, AutoModelForCausalLM):
    model = auto.from_pretrained(path, **remote)
    with torch.no_grad():
        logits[auto.__name__] = model(**inputs).logits
assert torch.equal(logits["AutoModel"], logits["AutoModelForCausalLM"])
torch.save(logits["AutoModel"], sys.argv[2])
model.save_pretrained(sys.argv[3])
processor.save_pretrained(sys.argv[3])
"""


def inputs_for(processor, molecules=tuple(MOLECULES[:4])):
    return processor(text=TEXTS, molecules=list(molecules), return_tensors="pt", padding=True)


@torch.no_grad()
def logits_of(model, processor):
    return model(**inputs_for(processor)).logits


@pytest.mark.parametrize("form", [{}, {"generator_type": "dense"}], ids=["core", "dense"])
@pytest.mark.parametrize("save_base", [False, True])
def test_save_and_load(make_model, processor, tmp_path, form, save_base):
    model = make_model(**form)
    model.save_pretrained(tmp_path, save_base=save_base)
    assert not (tmp_path / "adapter_config.json").exists()
    loaded, info = MoraForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(logits_of(loaded, processor), logits_of(model, processor))
    assert loaded.config.rank == model.config.rank
    assert {p.requires_grad for p in loaded.language_model.parameters()} == {False}
    assert {p.requires_grad for p in loaded.tuner.parameters()} == {True}
    assert info is not None


def test_adapter_checkpoint_holds_no_base_weights(make_model, tmp_path):
    from safetensors.torch import load_file

    model = make_model()
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == trainable


def test_self_contained_checkpoint_needs_no_base(make_model, processor, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    model = MoraForCausalLM.from_base(base, rank=2)
    model.save_pretrained(tmp_path / "full", save_base=True)
    shutil.rmtree(base)
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "full")
    assert torch.equal(logits_of(loaded, processor), logits_of(model, processor))
    loaded.save_pretrained(tmp_path / "again")
    again = MoraForCausalLM.from_pretrained(tmp_path / "again")
    assert torch.equal(logits_of(again, processor), logits_of(model, processor))


@pytest.mark.parametrize("save_base", [False, True])
def test_loads_in_a_fresh_process_without_this_package(make_model, processor, tmp_path, save_base):
    """Every Auto class, then saved again from the remote code, and loaded once more."""
    model = make_model()
    model.save_pretrained(tmp_path / "first", save_base=save_base)
    processor.save_pretrained(tmp_path / "first")
    with torch.no_grad():
        inputs = processor(
            text=["Question 0", "Q"], molecules=["CCO", None], return_tensors="pt", padding=True
        )
        expected = model(**inputs).logits
    for source, target in (("first", "second"), ("second", "third")):
        paths = (tmp_path / source, tmp_path / f"{source}.pt", tmp_path / target)
        run_without_package(REMOTE_SCRIPT, *paths, cwd=tmp_path)
        found = torch.load(tmp_path / f"{source}.pt", weights_only=True)
        torch.testing.assert_close(found, expected)


def test_trainer_style_state_dict_round_trip(make_model, processor):
    """The Trainer reloads a best model with `load_state_dict` of the adapter-only file."""
    model, other = make_model(), make_model(delta_init_scale=2.0)
    adapter = {
        name: t for name, t in model.state_dict().items() if not name.startswith("language_model.")
    }
    result = other.load_state_dict(adapter, strict=True)
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert torch.equal(logits_of(other, processor), logits_of(model, processor))


@pytest.mark.parametrize("damage", ["truncated", "header", "empty"])
@pytest.mark.parametrize("save_base", [False, True])
def test_damaged_weights_are_a_clear_error(make_model, tmp_path, damage, save_base):
    make_model().save_pretrained(tmp_path, save_base=save_base)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    size = {"truncated": len(data) // 2, "header": 20, "empty": 0}[damage]
    path.write_bytes(data[:size])
    with pytest.raises(OSError, match=r"truncated or corrupt"):
        MoraForCausalLM.from_pretrained(tmp_path)


def test_weights_of_another_configuration_are_a_clear_error(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["core_dim"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"static_core has shape \[21, 4, 4\], expected \[21, 8, 4\]"
    ):
        MoraForCausalLM.from_pretrained(tmp_path)


def test_missing_base_is_a_clear_error(make_model, tmp_path):
    with pytest.raises(OSError, match="no/such/base.*could not be loaded"):
        MoraForCausalLM.from_base("./no/such/base")
    model = make_model()
    model.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="base_model_name_or_path="):
        MoraForCausalLM.from_pretrained(tmp_path, base_model_name_or_path="./no/such/base")


def test_missing_checkpoint_is_a_clear_error(tmp_path):
    with pytest.raises(OSError, match=r"nope' is neither a folder with a MoRA checkpoint nor"):
        MoraForCausalLM.from_pretrained(str(tmp_path / "nope"))


@pytest.mark.parametrize(
    ("setting", "meant"),
    [("rnak", "rank"), ("r", "rank"), ("lora_alpha", "alpha"), ("target_module", "target_modules")],
)
def test_slips_in_names_are_clear_errors(tiny_base, setting, meant):
    with pytest.raises(TypeError, match=f"{setting}=4 is no setting: did you mean '{meant}'"):
        MoraForCausalLM.from_base(tiny_base, **{setting: 4})


def test_misused_inputs_are_clear_errors(make_model, processor):
    model = make_model()
    text = processor(text=TEXTS, return_tensors="pt", padding=True)
    with pytest.raises(ValueError, match=r"shape \[1, 100\], but this model takes \[B, 336\]"):
        model(**text, mora_weights=torch.zeros(1, 100))
    with pytest.raises(TypeError, match=r"processor\(molecules=…\)"):
        model(**text, molecules=["CCO"] * 4)


def save_llama(path: Path, **changes: int) -> Path:
    torch.manual_seed(5)
    settings = {
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    LlamaForCausalLM(LlamaConfig(**(settings | changes))).save_pretrained(path)
    return path


def test_other_base_weights_are_a_clear_error(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "mora")
    other = save_llama(tmp_path / "other")
    with pytest.raises(ValueError, match="trained on other base weights"):
        MoraForCausalLM.from_pretrained(tmp_path / "mora", base_model_name_or_path=str(other))


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"num_hidden_layers": 2}])
def test_other_base_architecture_is_a_clear_error(make_model, tmp_path, changes):
    make_model().save_pretrained(tmp_path / "mora")
    other = save_llama(tmp_path / "other", **changes)
    with pytest.raises(ValueError, match=f"belongs to another base.*{next(iter(changes))}"):
        MoraForCausalLM.from_pretrained(tmp_path / "mora", base_model_name_or_path=str(other))


def test_moved_base_can_be_named(make_model, processor, tiny_base, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "mora")
    moved = shutil.copytree(tiny_base, tmp_path / "moved")
    loaded = MoraForCausalLM.from_pretrained(tmp_path / "mora", base_model_name_or_path=str(moved))
    assert torch.equal(logits_of(loaded, processor), logits_of(model, processor))


def test_row_count_mismatch_is_a_clear_error(make_model, processor):
    model = make_model()
    text = processor(text=TEXTS[:3], return_tensors="pt", padding=True)
    graph = processor.feature_extractor(["CCO", "C"], return_tensors="pt")
    with pytest.raises(ValueError, match="2 molecules were given for 3 rows"):
        model(**text, **graph)
    graph.pop("graph_bonds")
    with pytest.raises(ValueError, match="graph_bonds is missing"):
        model(**text, **graph)


def test_one_molecule_for_many_questions(make_model, processor):
    model = make_model()
    text = processor(text=TEXTS, return_tensors="pt", padding=True)
    extract = processor.feature_extractor
    with torch.no_grad():
        one = model.encode_molecules(**extract(["CCO"], return_tensors="pt"))
        many = model.encode_molecules(**extract(["CCO"] * 4, return_tensors="pt"))
        torch.testing.assert_close(
            model(**text, mora_weights=one).logits, model(**text, mora_weights=many).logits
        )


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bfloat16_base_keeps_a_float32_adapter(tiny_base, processor, implementation):
    model = MoraForCausalLM.from_base(
        tiny_base, dtype=torch.bfloat16, attn_implementation=implementation
    )
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trainable} == {torch.float32}
    assert model.language_model.config._attn_implementation == implementation
    inputs = inputs_for(processor)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable)


def test_fingerprint_is_that_of_the_weights_not_of_their_dtype(make_model, tiny_base, tmp_path):
    make_model().save_pretrained(tmp_path)
    loaded = MoraForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    in_half = MoraForCausalLM.from_base(tiny_base, dtype=torch.bfloat16)
    assert loaded.config.base_fingerprint == in_half.config.base_fingerprint


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(make_model, processor, duplicate):
    model = make_model()
    expected = logits_of(model, processor)
    clone = duplicate(model)
    assert torch.equal(logits_of(clone, processor), expected)
    with torch.no_grad():
        for delta in clone.tuner.deltas.values():
            delta.B.zero_()
    assert torch.equal(logits_of(model, processor), expected)
    assert not torch.equal(logits_of(clone, processor), expected)


def test_an_untrained_model_answers_as_its_base(tiny_base, processor):
    """B starts at zero, so training starts from the base model."""
    model = MoraForCausalLM.from_base(tiny_base)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    text = processor(text=TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(model, processor), base(**text).logits)


def test_gradients_equal_finite_differences(make_model, processor):
    """The analytic gradient along a random direction, in float64."""
    model = make_model(target_modules=["q_proj", "down_proj"]).double()
    inputs = inputs_for(processor)
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss() -> torch.Tensor:
        # Not the model's own, which is rounded to float32.
        logits = model(**inputs).logits[:, :-1].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, inputs["input_ids"][:, 1:].flatten())

    @torch.no_grad()
    def loss_at(step: float) -> torch.Tensor:
        for p, d in zip(parameters, direction, strict=True):
            p.add_(d, alpha=step)
        value = loss()
        for p, d in zip(parameters, direction, strict=True):
            p.sub_(d, alpha=step)
        return value

    loss().backward()
    slope = sum((p.grad * d).sum() for p, d in zip(parameters, direction, strict=True)).item()
    step = 2e-5
    expected = ((loss_at(step) - loss_at(-step)) / (2 * step)).item()
    assert slope == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("molecules", [["CCO", None, "C", None], [None] * 4])
def test_text_only_rows_can_be_trained_on(make_model, processor, molecules):
    """Every parameter gets a gradient (DDP needs that); without a molecule it is zero."""
    model = make_model().train()
    inputs = inputs_for(processor, molecules)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients) == any(molecules)


def test_print_trainable_parameters(make_model, capsys):
    model = make_model()
    model.print_trainable_parameters()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    line = f"trainable params: {trainable:,} || all params: {total:,} || trainable%: "
    assert capsys.readouterr().out.startswith(line)


def test_frozen_graph_encoder_stays_in_eval_mode(make_model, processor):
    model = make_model(
        freeze_graph_encoder=True,
        graph_config={"hidden_size": 32, "num_layers": 2, "form": "moleculestm"},
    )
    before = copy.deepcopy(model.graph_encoder.state_dict())
    model.train()
    inputs = inputs_for(processor)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(p.grad is None for p in model.graph_encoder.parameters())
    assert all(torch.equal(t, before[n]) for n, t in model.graph_encoder.state_dict().items())
