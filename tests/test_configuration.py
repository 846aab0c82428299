# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""`MoraConfig`: round trip and checks of values."""

import copy

import pytest
from transformers import AutoConfig, LlamaConfig

from modeling_mora import MoraConfig, MoraGraphConfig


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


def test_the_folder_of_the_base_is_said_once(tiny_base, tmp_path):
    """Not in the LLM's own configuration too, where it would stay when the base is renamed."""
    config = MoraConfig(text_config=AutoConfig.from_pretrained(tiny_base))
    config.save_pretrained(tmp_path)
    assert str(tiny_base) not in (tmp_path / "config.json").read_text()
