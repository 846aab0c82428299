# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""On a CUDA device: placement, layers offloaded to the CPU, bfloat16 with a static cache."""

import pytest
import torch

from modeling_mora import MoraForCausalLM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TEXTS = [f"Question {'x' * i}?" for i in range(4)]
ROWS = ["CCO", None, "c1ccccc1O", "[Na+].[Cl-]"]
ADAPTER = ("graph_encoder", "weight_generator", "tuner")


@pytest.fixture
def inputs(processor):
    return processor(text=TEXTS, molecules=ROWS, return_tensors="pt", padding=True)


@pytest.fixture
def saved(make_model, tmp_path) -> str:
    make_model().save_pretrained(tmp_path / "mora")
    return str(tmp_path / "mora")


@torch.no_grad()
def test_device_map_auto(saved, inputs):
    expected = MoraForCausalLM.from_pretrained(saved)(**inputs).logits
    model = MoraForCausalLM.from_pretrained(saved, device_map="auto")
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    found = model(**inputs.to("cuda")).logits.cpu()
    torch.testing.assert_close(found[:, -1], expected[:, -1], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_layers_offloaded_to_the_cpu(saved, inputs):
    """As `device_map="auto"` does when the base does not fit on the GPU."""
    expected = MoraForCausalLM.from_pretrained(saved)(**inputs).logits
    names = [f"language_model.model.{name}" for name in ("embed_tokens", "norm", "rotary_emb")]
    names += [f"language_model.model.layers.{i}" for i in range(3)] + ["language_model.lm_head"]
    places = dict.fromkeys([*names, *ADAPTER], 0) | {"language_model.model.layers.2": "cpu"}
    model = MoraForCausalLM.from_pretrained(saved, device_map=places)
    found = model(**inputs.to("cuda")).logits.cpu()
    torch.testing.assert_close(found[:, -1], expected[:, -1], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_bfloat16_generation_with_a_static_cache(saved, inputs):
    """transformers compiles the decoding step then."""
    model = MoraForCausalLM.from_pretrained(saved, dtype=torch.bfloat16).to("cuda")
    settings = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(**inputs.to("cuda"), **settings)
    found = model.generate(**inputs.to("cuda"), **settings, cache_implementation="static")
    start = inputs["input_ids"].shape[1]
    assert (found == expected)[:, start:].float().mean() > 0.9
