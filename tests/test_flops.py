# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""FLOPs of a training step, against those that torch counts while it runs."""

from pathlib import Path

import pytest
import torch
from bases import random_base
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast

from modeling_mora import MoraProcessor
from training.arguments import ModelArguments
from training.collator import MoraCollator
from training.flops import PEAKS, UnknownFlopsError, count_flops, peak_flops
from training.methods.models import READS_GRAPHS, make_model
from training.tokenization import tokenize_example

QUESTIONS = {"CCO": "Yes", "c1ccccc1O": "No", "CC(=O)Oc1ccccc1C(=O)O": "0.2471 hartree"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Six layers with grouped-query attention, wide enough to outweigh what reads the graph."""
    folder = tmp_path_factory.mktemp("flops")
    model = random_base("llama", tokenizer, hidden_size=128, num_hidden_layers=6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL = {
    "rank": 4,
    "target_modules": ["all-linear"],
    "generator_dim": 32,
    "generator_depth": 2,
    "generator_heads": 2,
    "graph_config": '{"hidden_size": 32, "num_layers": 2}',
}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("mora", {}),
        ("mora", {"layers_to_transform": [3, 4, 5]}),
        ("mora", {"layers_to_transform": [5], "target_modules": ["down_proj"]}),
        ("mora", {"generator_type": "dense", "generator_per_type": True}),
        ("mora", {"core_dim": 64, "target_modules": ["q_proj", "v_proj"], "layer_stride": 2}),
        ("mora", {"freeze_graph_encoder": True}),
        ("lora", {}),
        ("lora", {"layers_to_transform": [4, 5]}),
        ("graph_prefix", {"layers_to_transform": [4, 5]}),
        ("full_finetune", {}),
    ],
)
def test_flops_of_a_step(method: str, settings: dict, base: Path, processor: MoraProcessor):
    arguments = ModelArguments(method=method, base=str(base), **(SMALL | settings))
    model = make_model(arguments)
    model.set_attn_implementation("eager")
    rows = [
        tokenize_example(f"What of {smiles}?", answer, processor.tokenizer, 200)
        | {"molecule": smiles}
        for smiles, answer in QUESTIONS.items()
    ]
    batch = MoraCollator(processor, graphs=method in READS_GRAPHS)(rows)
    # torch has no formula for the fused attention of CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.train()(**batch).loss.backward()
    counted = count_flops(model).of(batch)
    # k_proj and v_proj read what q_proj reads, but are counted as if they came behind it.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.03)
    # What the usual rule of 6 FLOPs per weight would give is far away for a frozen base.
    if method != "full_finetune":
        assert counted < 0.8 * count_flops(model.requires_grad_(True)).of(batch)


def test_experts_are_not_counted(tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(UnknownFlopsError, match="experts.*is no matrix"):
        count_flops(random_base("mixtral", tokenizer))


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 2060", None),
        ("Tesla V100-SXM2-32GB", 125e12),
    ],
)
def test_peak_by_the_name_of_the_device(name: str, peak: float | None):
    assert peak_flops(name) == peak


def test_every_peak_can_be_found():
    """No entry stands behind one that takes its names."""
    for words, peak in PEAKS.items():
        assert peak_flops(f"NVIDIA {' '.join(words)} 80GB") == peak


@pytest.mark.parametrize("family", ["gpt2", "phi3", "gemma3_text"])
def test_bases_of_other_families(family: str, tokenizer: PreTrainedTokenizerFast):
    """GPT-2 has transposed matrices, Phi-3 fused ones, Gemma heads of their own width."""
    model = random_base(family, tokenizer)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 200, (2, 50))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    batch = {"input_ids": ids, "labels": ids}
    assert count_flops(model).of(batch) == counter.get_total_flops()
