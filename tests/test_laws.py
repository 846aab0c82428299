# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The laws that MoRA must keep (README, "What you can rely on"), on a tiny random Llama."""

import random
from collections.abc import Callable

import pytest
import torch
from conftest import MOLECULES, distinctness, gradients, train_to_different_answers
from rdkit import Chem
from transformers import AutoModelForCausalLM, DynamicCache

from modeling_mora import MoraForCausalLM, MoraProcessor

FORMS = [
    {},
    {"core_dim": 12},
    {"generator_type": "dense"},
    {"generator_per_type": True, "target_modules": ["v_proj", "mlp"]},
]
QUESTIONS = [f"What is the gap of number {'1' * i}?" for i in range(len(MOLECULES))]


@pytest.fixture(params=FORMS, ids=["core", "core_dim", "dense", "per_type"])
def model(request: pytest.FixtureRequest, make_model: Callable[..., MoraForCausalLM]):
    return make_model(**request.param)


@torch.no_grad()
def last_logits(
    model: MoraForCausalLM, processor: MoraProcessor, texts: list[str], molecules: list[str | None]
) -> torch.Tensor:
    """[B, vocabulary] logits after the last token of each (left-padded) row."""
    inputs = processor(text=texts, molecules=molecules, return_tensors="pt", padding=True)
    return model(**inputs).logits[:, -1]


def renumbered(smiles: str, seed: int) -> Chem.Mol:
    molecule = Chem.MolFromSmiles(smiles)
    order = list(range(molecule.GetNumAtoms()))
    random.Random(seed).shuffle(order)
    return Chem.RenumberAtoms(molecule, order)


def test_row_does_not_depend_on_its_batch(model, processor):
    """Law 1, for 16 molecules of 1 to 15 atoms and a text-only row, in any order."""
    texts, molecules = [*QUESTIONS, "Hello"], [*MOLECULES, None]
    alone = torch.cat(
        [last_logits(model, processor, [t], [m]) for t, m in zip(texts, molecules, strict=True)]
    )
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    together = last_logits(
        model, processor, [texts[i] for i in order], [molecules[i] for i in order]
    )
    torch.testing.assert_close(together, alone[order], atol=1e-5, rtol=1e-5)


def test_atom_order_does_not_matter(model, processor):
    """Law 2, for renumbered atoms and for other SMILES of the same molecule."""
    extract = processor.feature_extractor
    random_smiles = [
        Chem.MolToSmiles(Chem.MolFromSmiles(m), doRandom=True, canonical=False) for m in MOLECULES
    ]
    with torch.no_grad():
        weights = model.encode_molecules(**extract(MOLECULES, return_tensors="pt"))
        for same in ([renumbered(m, seed=3) for m in MOLECULES], random_smiles):
            others = model.encode_molecules(**extract(same, return_tensors="pt"))
            torch.testing.assert_close(others, weights, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_atom_numbers_in_the_tensors_do_not_matter(model, processor):
    """Law 2 for the model alone, since the feature extractor already orders the atoms."""
    graph = processor.feature_extractor([MOLECULES[3]], return_tensors="pt")
    order = torch.randperm(
        graph["graph_atoms"].shape[1], generator=torch.Generator().manual_seed(0)
    )
    shuffled = dict(graph) | {
        "graph_atoms": graph["graph_atoms"][:, order],
        "graph_bonds": order.argsort()[graph["graph_bonds"]],
    }
    weights = model.encode_molecules(**graph)
    torch.testing.assert_close(model.encode_molecules(**shuffled), weights, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("molecules", [[None, "CCO", None], [None, None, None]])
def test_row_without_molecule_is_the_base_model(model, processor, tiny_base, molecules):
    """Law 3, bit by bit."""
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    texts = QUESTIONS[:3]
    inputs = processor(text=texts, molecules=molecules, return_tensors="pt", padding=True)
    text_only = processor(text=texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected, found = base(**text_only).logits, model(**inputs).logits
        assert torch.equal(model(**text_only).logits, expected)
    for row, molecule in enumerate(molecules):
        assert torch.equal(found[row], expected[row]) == (molecule is None)


def test_disabled_adapter_is_the_base_model(model, processor, tiny_base):
    """Law 3, also after an exception inside the context."""
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    inputs = processor(text=QUESTIONS, molecules=MOLECULES, return_tensors="pt", padding=True)
    text_only = processor(text=QUESTIONS, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = base(**text_only).logits
        weights = model.encode_molecules(
            **processor.feature_extractor(MOLECULES, return_tensors="pt")
        )
        with model.disable_adapter():
            assert torch.equal(model(**inputs).logits, expected)
            assert torch.equal(model(**text_only, mora_weights=weights).logits, expected)
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert torch.equal(tokens, base.generate(**text_only, max_new_tokens=4, do_sample=False))
        with pytest.raises(KeyError), model.disable_adapter():
            raise KeyError
        assert not torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing_keeps_gradients(model, processor, use_reentrant):
    """Law 4, with a text-only row in the batch."""
    molecules = [*MOLECULES[:3], None]
    inputs = processor(text=QUESTIONS[:4], molecules=molecules, return_tensors="pt", padding=True)
    model.train()
    expected = gradients(model, inputs)
    # transformers renamed it in 5.21.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": use_reentrant})
    found = gradients(model, inputs)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert any(gradient.abs().sum() > 0 for gradient in found.values())


@pytest.mark.parametrize(
    "decoding",
    [
        {"do_sample": False},
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"prompt_lookup_num_tokens": 2},
        {"cache_implementation": "static"},
    ],
    ids=lambda decoding: "-".join(decoding),
)
def test_weights_are_generated_once(model, processor, monkeypatch, decoding):
    """Law 5, and the weights follow their row through beams and return sequences."""
    rows = 1 if "prompt_lookup_num_tokens" in decoding else 4
    inputs = processor(
        text=QUESTIONS[:rows], molecules=MOLECULES[:rows], return_tensors="pt", padding=True
    )
    calls = []
    generator = type(model.weight_generator)
    forward = generator.forward
    monkeypatch.setattr(
        generator, "forward", lambda *args: calls.append(1) or forward(*args), raising=True
    )
    tokens = model.generate(**inputs, **decoding, max_new_tokens=5)
    assert len(calls) == 1
    assert len(tokens) == rows * decoding.get("num_return_sequences", 1)
    assert model.tuner.state.weights is None


@torch.no_grad()
def test_generation_in_a_batch_equals_one_by_one(model, processor):
    """Greedy answers of a left-padded batch of different molecules are those of single rows."""
    settings = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}
    batch = processor(text=QUESTIONS, molecules=MOLECULES, return_tensors="pt", padding=True)
    together = model.generate(**batch, **settings, output_logits=True)
    for row, (text, molecule) in enumerate(zip(QUESTIONS, MOLECULES, strict=True)):
        single = processor(text=[text], molecules=[molecule], return_tensors="pt")
        alone = model.generate(**single, **settings, output_logits=True)
        for step, logits in enumerate(alone.logits):
            torch.testing.assert_close(
                together.logits[step][row], logits[0], atol=1e-5, rtol=1e-5, msg=f"{molecule}"
            )


@torch.no_grad()
def test_beams_equal_greedy_search_over_repeated_rows(model, processor):
    """The weights of row i must stay with the beams of row i: scores recomputed without beams."""
    inputs = processor(
        text=QUESTIONS[:3], molecules=MOLECULES[:3], return_tensors="pt", padding=True
    )
    out = model.generate(
        **inputs, num_beams=2, num_return_sequences=2, max_new_tokens=4, length_penalty=0.0,
        return_dict_in_generate=True, output_scores=True, eos_token_id=-1,
    )  # fmt: skip
    weights = model.encode_molecules(
        **processor.feature_extractor(MOLECULES[:3], return_tensors="pt")
    ).repeat_interleave(2, dim=0)
    mask = inputs["attention_mask"].repeat_interleave(2, dim=0)
    mask = torch.cat([mask, torch.ones(6, 4, dtype=mask.dtype)], dim=1)
    logits = model(out.sequences, attention_mask=mask, mora_weights=weights).logits[:, -5:-1]
    scores = logits.log_softmax(-1).gather(-1, out.sequences[:, -4:, None]).sum((1, 2))
    torch.testing.assert_close(out.sequences_scores, scores, atol=1e-4, rtol=1e-4)


def test_cached_decoding_equals_full_forward(model, processor):
    """One token at a time with a cache gives the logits of the whole sequence."""
    inputs = processor(
        text=QUESTIONS[:2], molecules=MOLECULES[:2], return_tensors="pt", padding=True
    )
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        full = model(**inputs).logits[:, -1]
        weights = model.encode_molecules(
            **processor.feature_extractor(MOLECULES[:2], return_tensors="pt")
        )
        cache = DynamicCache(config=model.config.get_text_config())
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        shared = {"past_key_values": cache, "mora_weights": weights}
        model(ids[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], **shared)
        step = model(ids[:, -1:], attention_mask=mask, position_ids=positions[:, -1:], **shared)
    torch.testing.assert_close(step.logits[:, -1], full, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS[:3], ids=["core", "core_dim", "dense"])
def test_molecules_keep_distinct_weights_after_training(make_model, processor, form):
    """Law 7: after training towards different answers, every two molecules differ."""
    model = make_model(**form)
    texts = [f"gap? {i}" for i in range(8)]
    inputs = processor(text=texts, molecules=MOLECULES[:8], return_tensors="pt", padding=True)
    before = distinctness(model, inputs)
    train_to_different_answers(model, inputs)
    assert before > 0.1 and distinctness(model, inputs) > 0.3 * before


@torch.no_grad()
def test_an_untrained_generator_tells_molecules_apart(make_model, processor):
    """A generated part that is nearly the same for all molecules collapses in training."""
    model = make_model(generator_dim=256, generator_heads=8, graph_config={})
    graph = processor.feature_extractor(MOLECULES, return_tensors="pt")
    generated = model.encode_molecules(**graph) - model.weight_generator.static_core.flatten()
    variation = generated.std(dim=0).norm() / generated.norm(dim=1).mean()
    assert variation > 0.2


def test_zero_generated_part_is_a_static_lora(make_model, processor, tiny_base, tmp_path):
    """DESIGN: with the generated part zero, the core form is exactly PEFT's static LoRA."""
    from peft import LoraConfig, get_peft_model

    model = make_model(alpha=8)
    with torch.no_grad():
        for head in model.weight_generator.heads:
            head.weight.zero_()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=model.config.target_modules)
    lora = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config)
    modules = dict(lora.base_model.model.named_modules())
    with torch.no_grad():
        for target, delta in zip(model.tuner.targets, model.tuner.deltas.values(), strict=True):
            modules[target.name].lora_A["default"].weight.copy_(delta.A.T)
            modules[target.name].lora_B["default"].weight.copy_(delta.B.T)
    inputs = processor(text=QUESTIONS, molecules=MOLECULES, return_tensors="pt", padding=True)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        torch.testing.assert_close(
            model(**inputs).logits, lora(**text).logits, atol=1e-5, rtol=1e-5
        )
