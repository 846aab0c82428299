# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The laws of tests/test_laws.py for every family of base models: the matrix base x law."""

from collections.abc import Callable

import pytest
import torch
from bases import BASES, random_base
from conftest import (
    MOLECULES,
    distinctness,
    gradients,
    text_of,
    train_to_different_answers,
)
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from rdkit import Chem
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from modeling_mora import MoraForCausalLM
from modeling_mora.export_mora import export_lora
from training.collator import MoraCollator

TEXTS = [f"What is the gap of molecule number {'1' * 3 * i}?" for i in range(5)]
ROWS = [*MOLECULES[:4], None]
TINY = {
    "rank": 4,
    "generator_dim": 32,
    "generator_heads": 4,
    "graph_config": {"hidden_size": 32, "num_layers": 3},
}


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory, tokenizer) -> Callable[[str], str]:
    """The folder of a saved random base."""
    folders = {}

    def folder(model_type: str) -> str:
        if model_type not in folders:
            path = str(tmp_path_factory.mktemp(model_type))
            random_base(model_type, tokenizer).save_pretrained(path)
            folders[model_type] = path
        return folders[model_type]

    return folder


@pytest.fixture(params=BASES)
def base(request, base_folder) -> str:
    return base_folder(request.param)


@pytest.fixture
def model(base: str) -> MoraForCausalLM:
    """MoRA on all linear modules, with random B matrices, as after training."""
    return make_model(base, target_modules="all-linear")


def make_model(base: str, **settings: object) -> MoraForCausalLM:
    torch.manual_seed(1)
    model = MoraForCausalLM.from_base(base, **TINY, **settings)
    with torch.no_grad():
        for delta in model.tuner.deltas.values():
            delta.B.normal_(std=0.1)
    return model


def with_positions(inputs: dict) -> dict:
    """Add the positions that `generate` gives; some families do not count them by the mask."""
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return {**inputs, "position_ids": positions}


def batch(processor, rows: list[str | None] = ROWS) -> dict:
    return with_positions(
        processor(text=TEXTS[: len(rows)], molecules=rows, return_tensors="pt", padding=True)
    )


@torch.no_grad()
def test_law_1_batch(model, processor):
    """A row alone and in a batch of others, in logits and in greedy answers."""
    together = model(**batch(processor)).logits[:, -1]
    answers = model.generate(**batch(processor), max_new_tokens=4, do_sample=False)
    for row, (text, molecule) in enumerate(zip(TEXTS, ROWS, strict=True)):
        single = with_positions(processor(text=[text], molecules=[molecule], return_tensors="pt"))
        torch.testing.assert_close(
            model(**single).logits[0, -1], together[row], atol=1e-5, rtol=1e-5
        )
        answer = model.generate(**single, max_new_tokens=4, do_sample=False)
        assert torch.equal(answer[0, -4:], answers[row, -4:])


@torch.no_grad()
def test_law_2_atom_order(model, processor):
    """Other SMILES of the same molecules, and other atom numbers in the tensors."""
    inputs = batch(processor)
    expected = model(**inputs).logits
    others = [
        m
        and Chem.MolToSmiles(Chem.MolFromSmiles(m), canonical=False, rootedAtAtom=0, doRandom=True)
        for m in ROWS
    ]
    found = model(**batch(processor, others)).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    order = torch.randperm(
        inputs["graph_atoms"].shape[1], generator=torch.Generator().manual_seed(0)
    )
    renumbered = inputs | {
        "graph_atoms": inputs["graph_atoms"][:, order],
        "graph_atom_mask": inputs["graph_atom_mask"][:, order],
        "graph_bonds": order.argsort()[inputs["graph_bonds"]],
    }
    torch.testing.assert_close(model(**renumbered).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_law_3_base(model, base, processor):
    """Without a molecule, and with the adapter off, the base model bit by bit."""
    reference = AutoModelForCausalLM.from_pretrained(base)
    inputs = batch(processor)
    expected = reference(**text_of(inputs)).logits
    assert torch.equal(model(**text_of(inputs)).logits, expected)
    no_molecules = batch(processor, [None] * 5)
    assert torch.equal(model(**no_molecules).logits, expected)
    with model.disable_adapter():
        assert torch.equal(model(**inputs).logits, expected)
    found = model(**inputs).logits
    changed = (found - expected).abs().amax(dim=(1, 2))
    assert changed[:4].min() > 1e-2
    assert torch.equal(found[4], expected[4])


def test_law_4_checkpointing(model, processor):
    """Gradients with activation checkpointing, both modes, against those without."""
    inputs = batch(processor)
    model.train()
    expected = gradients(model, inputs)
    # transformers renamed it in 5.21.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    for use_reentrant in (True, False):
        enable({"use_reentrant": use_reentrant})
        found = gradients(model, inputs)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert all(expected[name].any() for name in expected if "tuner" in name)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_law_5_once(model, processor, monkeypatch, cache):
    """Weights are generated once per `generate`, by greedy search and by beams."""
    calls = []
    generator = type(model.weight_generator)
    forward = generator.forward
    monkeypatch.setattr(generator, "forward", lambda *args: calls.append(1) or forward(*args))
    inputs = processor(text=TEXTS, molecules=ROWS, return_tensors="pt", padding=True)
    for decoding in ({}, {"num_beams": 2}):
        calls.clear()
        model.generate(**inputs, **decoding, max_new_tokens=3, cache_implementation=cache)
        assert calls == [1]


@torch.no_grad()
def test_law_6_export(model, base, processor, tmp_path):
    """One molecule's exported adapter, loaded by PEFT."""
    export_lora(model, "CC(=O)Oc1ccccc1C(=O)O", tmp_path)
    lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    inputs = batch(processor, ["CC(=O)Oc1ccccc1C(=O)O"] * 5)
    expected = model(**inputs).logits
    torch.testing.assert_close(lora(**text_of(inputs)).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_merged_molecule(model, base, processor):
    """The weights folded into the base give the same logits; then the base is as it was."""
    before = {name: t.clone() for name, t in model.language_model.state_dict().items()}
    inputs = batch(processor, ["CC(=O)C"] * 5)
    with model.merged("CC(=O)C"):
        merged = model(**text_of(inputs)).logits
    torch.testing.assert_close(merged, model(**inputs).logits, atol=1e-5, rtol=1e-5)
    after = model.language_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_law_7_distinct(model, processor):
    """After training towards different answers, every two molecules have other weights."""
    inputs = batch(processor, MOLECULES[:5])
    before = distinctness(model, inputs)
    train_to_different_answers(model, inputs)
    assert before > 0.1 and distinctness(model, inputs) > 0.3 * before


@torch.no_grad()
def test_training_batch(model, processor):
    """The loss of the padded batch that training makes is that of its rows one by one."""
    rows = []
    for text, molecule in zip(TEXTS, ROWS, strict=True):
        ids = processor.tokenizer(text)["input_ids"]
        rows.append({"input_ids": ids, "labels": [-100] * 5 + ids[5:], "molecule": molecule})
    collate = MoraCollator(processor)
    alone = [model(**collate([row])).loss * (len(row["labels"]) - 5) for row in rows]
    count = sum(len(row["labels"]) - 5 for row in rows)
    torch.testing.assert_close(
        model(**collate(rows)).loss, sum(alone) / count, atol=1e-5, rtol=1e-5
    )


def test_default_targets_are_those_of_peft(base):
    reference = AutoModelForCausalLM.from_pretrained(base)
    defaults = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(reference.config.model_type)
    if defaults is None:
        with pytest.raises(ValueError, match=r"give target_modules.*self_attn\.o_proj"):
            MoraForCausalLM.from_base(base, **TINY)
        return
    expected = get_peft_model(reference, LoraConfig(target_modules=defaults))
    model = MoraForCausalLM.from_base(base, **TINY)
    assert {t.name for t in model.tuner.targets} == set(expected.targeted_module_names)


def test_all_linear_is_that_of_peft(model, base):
    """All linear layers of the decoder layers, Conv1D included."""
    reference = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules="all-linear")
    )
    assert {t.name for t in model.tuner.targets} == set(reference.targeted_module_names)
    modules = dict(model.language_model.named_modules())
    for target in model.tuner.targets:
        weight = modules[target.name].weight
        shape = weight.shape if isinstance(modules[target.name], Conv1D) else weight.T.shape
        assert (target.d_in, target.d_out) == tuple(shape)


@pytest.mark.parametrize(
    ("choice", "layers"),
    [({"layers_to_transform": [0, 2]}, {0, 2}), ({"layer_stride": 2}, {1})],
    ids=["layers_to_transform", "layer_stride"],
)
def test_choice_of_layers(base, choice, layers):
    model = MoraForCausalLM.from_base(base, target_modules="all-linear", **TINY, **choice)
    assert {target.layer for target in model.tuner.targets} == layers


@torch.no_grad()
def test_mlp_target(base, processor):
    """The published parallel path: a delta from the MLP's input to its output."""
    if "opt" in base:
        with pytest.raises(ValueError, match="'mlp' matches no module.*fc1"):
            make_model(base, target_modules=["mlp"])
        return
    model = make_model(base, target_modules=["mlp"], generator_type="dense")
    inputs = batch(processor)
    expected = model(**inputs).logits
    weights = model.encode_molecules(
        **{name: t for name, t in inputs.items() if name.startswith("graph_")}
    )
    start = 0
    reference = AutoModelForCausalLM.from_pretrained(base)
    for target, delta in zip(model.tuner.targets, model.tuner.deltas.values(), strict=True):
        a = weights[:, start : start + 64 * 4].view(-1, 64, 4)
        start += 64 * 4
        reference.get_submodule(target.name).register_forward_hook(
            lambda module, args, output, a=a, b=delta.B: output + args[0] @ a @ b
        )
    assert (expected[:4] - model(**text_of(inputs)).logits[:4]).abs().max() > 1e-2
    torch.testing.assert_close(reference(**text_of(inputs)).logits, expected, atol=1e-5, rtol=1e-5)
