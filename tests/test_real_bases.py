# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion and the laws 1, 3 and 6 on two real base LLMs; `pytest -s` prints what is measured."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MOLECULES
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraProcessor
from modeling_mora.base_models_mora import WHEEL_BASES, resolve_base
from modeling_mora.export_mora import export_lora

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("name", WHEEL_BASES)]

TEXTS = [f"HOMO-LUMO gap of {molecule} in hartree?" for molecule in MOLECULES]


def make_model(name: str) -> tuple[MoraForCausalLM, MoraProcessor]:
    """MoRA on all linear layers; B is random, as if trained, so that deltas show."""
    base = resolve_base(name)
    torch.manual_seed(0)
    model = MoraForCausalLM.from_base(base, target_modules="all-linear")
    with torch.no_grad():
        for delta in model.tuner.deltas.values():
            delta.B.normal_(std=0.02)
    return model, MoraProcessor(MoleculeFeatureExtractor(), AutoTokenizer.from_pretrained(base))


def report(record_property: Callable, what: str, got: torch.Tensor, expected: torch.Tensor):
    """Print and return the largest difference and the largest logit."""
    difference, largest = (got - expected).abs().max().item(), expected.abs().max().item()
    line = f"largest logit {largest:.2f}, largest difference {difference:.1e}"
    print(f"\n{what}: {line}")
    record_property(what, line)
    return difference, largest


@torch.no_grad()
def test_converted_base_knows_english(name: str, record_property: Callable):
    """On 700 tokens, more than Gemma's sliding window, of a text that every LLM has read."""
    base = resolve_base(name)
    tokenizer = AutoTokenizer.from_pretrained(base)
    licence = (Path(__file__).parents[1] / "LICENSE").read_text()
    ids = tokenizer(licence, return_tensors="pt").input_ids[:, :700]
    loss = AutoModelForCausalLM.from_pretrained(base)(input_ids=ids, labels=ids).loss.item()
    print(f"\n{name}: {loss:.3f} nats per token")
    record_property("loss", loss)
    # For Gemma, a wrong rope theta or kind of attention costs 0.06 to 1.6, norms off by one 15.
    assert loss < {"smollm2": 2.75, "gemma3-270m": 2.31}[name]
    words = "The capital of France is Paris.\n  It's 3 °C."
    assert tokenizer.decode(tokenizer(words).input_ids, skip_special_tokens=True) == words


@torch.no_grad()
def test_batch_of_16_equals_one_by_one(name: str, record_property: Callable):
    """Law 1: float32, relative to the largest logit, to 1e-5."""
    model, processor = make_model(name)
    batch = processor(text=TEXTS, molecules=MOLECULES, return_tensors="pt", padding=True)
    together = model(**batch, logits_to_keep=1).logits[:, 0]
    with model.disable_adapter():
        adapter_off = model(**batch, logits_to_keep=1).logits[:, 0]
    assert (together - adapter_off).abs().amax(dim=1).min() > 0.1
    alone = []
    for text, molecule in zip(TEXTS, MOLECULES, strict=True):
        single = processor(text=[text], molecules=[molecule], return_tensors="pt")
        alone.append(model(**single, logits_to_keep=1).logits[0, 0])
    what = f"{name}, 16 molecules together and one by one"
    difference, largest = report(record_property, what, together, torch.stack(alone))
    assert difference <= 1e-5 * largest


@torch.no_grad()
def test_rows_without_a_molecule_are_the_base_bit_by_bit(name: str):
    """Law 3, against the base loaded on its own."""
    model, processor = make_model(name)
    molecules = [None if row % 3 == 1 else molecule for row, molecule in enumerate(MOLECULES)]
    batch = processor(text=TEXTS, molecules=molecules, return_tensors="pt", padding=True)
    text = {key: batch[key] for key in ("input_ids", "attention_mask")}
    mixed = model(**batch, logits_to_keep=4).logits
    with model.disable_adapter():
        adapter_off = model(**batch, logits_to_keep=4).logits
    del model
    # Frozen too: of weights that could learn, torch takes another product for the last positions
    # alone (mm in place of bmm), whose last bits differ on some CPUs.
    base = AutoModelForCausalLM.from_pretrained(resolve_base(name)).requires_grad_(False)
    expected = base(**text, logits_to_keep=4).logits
    assert torch.equal(adapter_off, expected)
    for row, molecule in enumerate(molecules):
        assert torch.equal(mixed[row], expected[row]) == (molecule is None)


def use_float64_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let RMSNorm compute in its input's dtype.

    It casts to float32 even in a float64 model; that alone makes logits of 30 differ by 2e-5 when
    its input changes in the last bit.
    """

    def normed(hidden: torch.Tensor, eps: float) -> torch.Tensor:
        return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)

    forwards = {
        LlamaRMSNorm: lambda self, hidden: self.weight * normed(hidden, self.variance_epsilon),
        Gemma3RMSNorm: lambda self, hidden: (1 + self.weight) * normed(hidden, self.eps),
    }
    for norm, forward in forwards.items():
        monkeypatch.setattr(norm, "forward", forward)


@torch.no_grad()
def test_exported_adapter_gives_the_same_logits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable
):
    """Law 6: in float64 to 1e-5, in float32 to 1e-5 of the largest logit."""
    model, processor = make_model(name)
    base = resolve_base(name)
    molecule = "CC(=O)Oc1ccccc1C(=O)O"
    export_lora(model, molecule, tmp_path)
    inputs = processor(
        text=f"HOMO-LUMO gap of {molecule} in hartree?", molecules=molecule, return_tensors="pt"
    )
    text = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    expected = model(**inputs).logits
    with model.disable_adapter():
        assert (model(**text).logits - expected).abs().max() > 1
    lora = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    what = f"{name}, MoRA and its exported adapter in PEFT"
    difference, largest = report(record_property, f"{what}, float32", lora(**text).logits, expected)
    assert difference <= 1e-5 * largest

    use_float64_norms(monkeypatch)
    graph = {key: value for key, value in inputs.items() if key.startswith("graph")}
    # Generated in float32, as they were for the export.
    weights = model.encode_molecules(**graph).double()
    expected = model.double()(**text, mora_weights=weights).logits
    del model, lora
    base_model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    lora = PeftModel.from_pretrained(base_model, tmp_path).double()
    got = lora(**text).logits
    assert expected.dtype == got.dtype == torch.float64
    difference, _ = report(record_property, f"{what}, float64", got, expected)
    assert difference <= 1e-5
