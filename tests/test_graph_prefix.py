# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The graph prefix: where the atoms stand, what a row depends on, generation, checkpoints."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bases import random_base
from conftest import run_without_package, text_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from modeling_mora import MoraGraphEncoder, MoraProcessor
from training.methods.graph_prefix import GraphPrefixForCausalLM

# Of different lengths; the second row has no molecule, the third the longest of both.
TEXTS = ["Gap of ethanol?", "Hello", "What is the gap of aspirin, in hartree?", "C"]
MOLECULES = ["CCO", None, "CC(=O)Oc1ccccc1C(=O)O", "C"]
TOLERANCE = {"atol": 2e-4, "rtol": 2e-4}


@pytest.fixture(scope="module")
def make_prefix(tiny_base: Path) -> Callable[..., GraphPrefixForCausalLM]:
    """Make a small model; its LoRA B are random, as after training, so that LoRA shows."""

    def make(base: Path = tiny_base, **kwargs: object) -> GraphPrefixForCausalLM:
        language_model = AutoModelForCausalLM.from_pretrained(base)
        settings = {
            "rank": 4,
            "target_modules": [
                name
                for name, module in language_model.named_modules()
                if "layers." in name and isinstance(module, torch.nn.Linear)
            ]
            or [name for name, _ in language_model.named_modules() if name.endswith("c_attn")],
            "graph_config": {"hidden_size": 32, "num_layers": 2},
        }
        torch.manual_seed(1)
        model = GraphPrefixForCausalLM.from_base(base, **(settings | kwargs))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.1)
        return model.eval()

    return make


@pytest.fixture(scope="module")
def model(make_prefix) -> GraphPrefixForCausalLM:
    return make_prefix()


@pytest.fixture(scope="module")
def inputs(processor: MoraProcessor) -> dict:
    return rows(processor, range(len(TEXTS)))


def rows(processor: MoraProcessor, numbers) -> dict:
    """A batch of some of the rows; a single one has no padding."""
    return dict(
        processor(
            text=[TEXTS[i] for i in numbers],
            molecules=[MOLECULES[i] for i in numbers],
            return_tensors="pt",
        )
    )


@torch.no_grad()
def test_the_atoms_stand_in_front_of_the_text(model, processor):
    row = rows(processor, [2])
    graph = [tensor for name, tensor in row.items() if name.startswith("graph_")]
    atoms = model.graph_encoder(*graph)
    first, _, second = model.projector
    prefix = second(torch.nn.functional.gelu(first(atoms)))
    assert prefix.shape == (1, 13, 64)
    text = model.language_model.get_input_embeddings()(row["input_ids"])
    expected = model.language_model(inputs_embeds=torch.cat([prefix, text], dim=1)).logits[:, 13:]
    torch.testing.assert_close(model(**row).logits, expected)
    without = model(**text_of(row)).logits
    assert (expected - without).abs().max() > 0.01


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
@torch.no_grad()
def test_a_row_does_not_depend_on_the_batch(
    family: str, make_prefix, tokenizer, processor, inputs, tmp_path: Path
):
    """Mistral has a sliding window, which a gap between atoms and text would shorten."""
    random_base(family, tokenizer).save_pretrained(tmp_path)
    model = make_prefix(tmp_path)
    together = model(**inputs).logits
    backwards = model(**rows(processor, [3, 2, 1, 0])).logits.flip(0)
    for i in range(len(TEXTS)):
        alone = model(**rows(processor, [i])).logits[0]
        torch.testing.assert_close(together[i, -len(alone) :], alone, **TOLERANCE)
        torch.testing.assert_close(backwards[i, -len(alone) :], alone, **TOLERANCE)


@torch.no_grad()
def test_more_padding_changes_nothing(model, inputs):
    expected = model(**inputs).logits
    pad = {"input_ids": 0, "attention_mask": 0}
    padded = inputs | {
        name: torch.nn.functional.pad(inputs[name], (5, 0), value=value)
        for name, value in pad.items()
    }
    padded["graph_atoms"] = torch.nn.functional.pad(inputs["graph_atoms"], (0, 0, 0, 3))
    padded["graph_atom_mask"] = torch.nn.functional.pad(inputs["graph_atom_mask"], (0, 3))
    found = model(**padded).logits[:, 5:]
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], **TOLERANCE)


@torch.no_grad()
def test_the_same_molecule_written_otherwise(model, processor):
    spellings = ["CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1OC(C)=O"]
    found = [
        model(**processor(text="Gap?", molecules=smiles, return_tensors="pt")).logits
        for smiles in spellings
    ]
    torch.testing.assert_close(*found)


@torch.no_grad()
def test_a_row_without_a_molecule_has_lora_alone(model, processor):
    row = rows(processor, [1])
    torch.testing.assert_close(model(**row).logits, model(**text_of(row)).logits, **TOLERANCE)


@torch.no_grad()
def test_disabled_it_is_the_base(model, inputs, tiny_base: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    settings = {"max_new_tokens": 4, "do_sample": False}
    adapted = model(**inputs).logits
    with model.disable_adapter():
        found = model(**inputs).logits
        written = model.generate(**inputs, **settings)
    assert torch.equal(found, base(**text_of(inputs)).logits)
    assert torch.equal(written, base.generate(**text_of(inputs), **settings))
    assert torch.equal(model(**inputs).logits, adapted)


@torch.no_grad()
def test_generation_with_a_cache_is_that_without(model, processor, inputs):
    """A loop over whole forward passes is the oracle; rows of the batch are padded, its own not."""
    found = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(found[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    for i in range(len(TEXTS)):
        row = rows(processor, [i])
        for _ in range(6):
            token = model(**row).logits[:, -1:].argmax(-1)
            row["input_ids"] = torch.cat([row["input_ids"], token], dim=1)
            row["attention_mask"] = torch.ones_like(row["input_ids"])
        assert found[i, -6:].tolist() == row["input_ids"][0, -6:].tolist()


@torch.no_grad()
def test_beams_and_several_sequences(model, inputs):
    settings = {"max_new_tokens": 3, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    width = inputs["input_ids"].shape[1]
    found = model.generate(**inputs, **settings, return_dict_in_generate=True).sequences
    prompts = inputs["input_ids"].repeat_interleave(2, dim=0)
    assert torch.equal(found[:, :width], prompts)
    one = {name: tensor[2:3] for name, tensor in inputs.items()}
    new = model.generate(**one, **settings)[:, width:]
    assert torch.equal(found[4:6, width : width + new.shape[1]], new)


@pytest.mark.parametrize("as_positions", [False, True])
def test_the_loss_is_on_the_labelled_text(model, inputs, as_positions: bool):
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)[:, -4:]
    width = inputs["input_ids"].shape[1]
    kept = torch.arange(width - 4, width) if as_positions else 4
    output = model(**inputs, labels=labels, logits_to_keep=kept)
    expected = torch.nn.functional.cross_entropy(
        model(**inputs).logits[:, -4:-1].flatten(0, 1), labels[:, 1:].flatten()
    )
    assert output.logits.shape[1] == 4
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_with_checkpointing(make_prefix, inputs, use_reentrant: bool):
    model = make_prefix().train()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**inputs, labels=labels, use_cache=False).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    assert all(gradient.abs().max() > 0 for gradient in expected.values() if gradient.ndim > 1)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert model.language_model.model.layers[0].gradient_checkpointing
    found = gradients()
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_only_the_adapter_is_trained(make_prefix):
    model = make_prefix(freeze_graph_encoder=True).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"projector", "language_model"}
    assert all(".lora_" in name for name in trained if name.startswith("language_model"))
    assert not model.graph_encoder.training


@torch.no_grad()
def test_a_bfloat16_base_has_a_float32_adapter(make_prefix, inputs):
    model = make_prefix(dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.dtype == model(**inputs).logits.dtype == torch.bfloat16


def test_a_pretrained_encoder_is_copied(make_prefix, tiny_base: Path):
    encoder = make_prefix(graph_config={"hidden_size": 24, "num_layers": 1}).graph_encoder
    model = make_prefix(graph_encoder=encoder)
    assert isinstance(model.graph_encoder, MoraGraphEncoder)
    for name, tensor in model.graph_encoder.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name])


def test_texts_padded_on_the_right_are_refused(model, inputs):
    mask = inputs["attention_mask"].flip(1)
    with pytest.raises(ValueError, match="padded on the right: set the tokenizer's padding_side"):
        model(**(inputs | {"attention_mask": mask}))


def test_one_molecule_per_row(model, inputs, processor):
    graphs = dict(processor(molecules=["C"], return_tensors="pt"))
    with pytest.raises(ValueError, match="1 molecules were given for 4 rows"):
        model(**(inputs | graphs))


@torch.no_grad()
def test_a_checkpoint_holds_the_adapter_alone_and_loads_as_remote_code(
    make_prefix, inputs, processor, tmp_path: Path
):
    model = make_prefix()
    model.save_pretrained(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert tensors.keys() == trained

    # Where the package is installed, but this checkout's `training` is not.
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "modeling_mora").symlink_to(Path(os.getcwd()) / "modeling_mora")
    torch.save(inputs, tmp_path / "inputs.pt")
    script = """
import importlib.util, torch
sys.path.insert(0, sys.argv[1])
from transformers import AutoModelForCausalLM
assert importlib.util.find_spec("training") is None
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], trust_remote_code=True)
inputs = torch.load(sys.argv[3], weights_only=True)
with torch.no_grad():
    torch.save(model(**inputs).logits, sys.argv[4])
model.save_pretrained(sys.argv[5])
AutoModelForCausalLM.from_pretrained(sys.argv[5], trust_remote_code=True)
"""
    paths = ("packages", "saved", "inputs.pt", "logits.pt", "again")
    run_without_package(script, *(tmp_path / path for path in paths), cwd=tmp_path)
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert torch.equal(found, model(**inputs).logits)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[name], tensors[name]) for name in trained)


def test_another_base_is_refused(make_prefix, tokenizer, tmp_path: Path):
    base = random_base("llama", tokenizer)
    base.save_pretrained(tmp_path / "base")
    make_prefix(tmp_path / "base").save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        base.model.layers[0].mlp.down_proj.weight.zero_()
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="was trained on other base weights"):
        GraphPrefixForCausalLM.from_pretrained(tmp_path / "saved")


def test_tensors_that_are_missing_are_named(make_prefix, tmp_path: Path):
    model = make_prefix()
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    state.pop("projector.0.bias")
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"missing projector\.0\.bias"):
        GraphPrefixForCausalLM.from_pretrained(tmp_path)


def test_a_copy_is_independent(model, inputs):
    copied = copy.deepcopy(model)
    with torch.no_grad():
        torch.nn.init.zeros_(copied.projector[2].weight)
        assert not torch.equal(copied(**inputs).logits, model(**inputs).logits)
