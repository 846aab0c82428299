# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`MoraConfig`: round trip and checks of values."""

import copy

import pytest
import torch
from transformers import AutoConfig, LlamaConfig

from modeling_mora import MoraConfig, MoraForCausalLM, MoraGraphConfig


def test_round_trip(tmp_path):
    config = MoraConfig(
        text_config=LlamaConfig(hidden_size=64, num_hidden_layers=2),
        graph_config=MoraGraphConfig(hidden_size=48),
        rank=4,
        core_dim=9,
        target_modules=["q_proj"],
        layers_to_transform=[0, 1],
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    expected = config.to_dict() | {"_name_or_path": str(tmp_path)}
    assert loaded.to_dict() == expected
    assert loaded.text_config.hidden_size == 64
    assert loaded.graph_config.hidden_size == 48
    assert copy.copy(config).to_dict() == copy.deepcopy(config).to_dict() == config.to_dict()


def test_defaults_follow_the_rank():
    config = MoraConfig(rank=6)
    assert (config.core_dim, config.alpha) == (6, 6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, "rank=0 must be at least 1"),
        ({"rank": 8, "core_dim": 4}, "core_dim=4 is smaller than rank=8"),
        ({"generator_type": "lora"}, "generator_type='lora' is not known: use one of core, dense"),
        ({"generator_dim": 100, "generator_heads": 8}, "generator_dim=100 is not a multiple"),
        ({"layer_stride": 4, "layers_to_transform": [1]}, "both choose layers"),
        ({"graph_config": {"form": "gat"}}, "form='gat' is not known"),
    ],
)
def test_bad_values_are_clear_errors(values, message):
    with pytest.raises(ValueError, match=message):
        MoraConfig(**values)


def test_published_setting_of_a_7b_base():
    """Layers 4, 8, 12, …; heads of 1024 · 4096 · 64 weights for each of the five module types."""
    base = LlamaConfig(hidden_size=4096, num_hidden_layers=32, intermediate_size=11008)
    with torch.device("meta"):
        model = MoraForCausalLM(MoraConfig.paper(base))
    layers = {target.layer + 1 for target in model.tuner.targets}
    assert layers == {4, 8, 12, 16, 20, 24, 28, 32}
    assert len(model.tuner.targets) == 8 * 5
    heads = sum(p.numel() for head in model.weight_generator.heads for p in head.parameters())
    assert heads == 5 * (1024 + 1) * 4096 * 64
    assert len(model.weight_generator.stacks) == 5
    assert not any(p.requires_grad for p in model.graph_encoder.parameters())
