# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Tiny random base models of every family that MoRA is tested on."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

# A window shorter than the prompts of the tests, so that sliding attention shows.
GROUPED = {"num_key_value_heads": 2}
WINDOWED = {"num_key_value_heads": 2, "sliding_window": 16}
LOCAL_AND_GLOBAL = ["sliding_attention", "full_attention", "sliding_attention"]
# What differs from `COMMON`, by model type.
BASES = {
    "llama": GROUPED,
    "mistral": WINDOWED,
    "qwen2": GROUPED,
    "qwen3": {"head_dim": 16, **GROUPED},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, **WINDOWED},
    "gemma3_text": {"head_dim": 16, "layer_types": LOCAL_AND_GLOBAL, **WINDOWED},
    "phi3": GROUPED,
    "olmo2": GROUPED,
    "granite": GROUPED,
    "gpt_neox": {},
    "gpt2": {},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "mixtral": {"num_local_experts": 4, **GROUPED},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        **GROUPED,
    },
}
COMMON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}


def random_base(model_type: str, tokenizer, **settings: object) -> PreTrainedModel:
    """A random model of that type with the tokenizer's vocabulary, the same at each call."""
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(COMMON | BASES[model_type] | settings),
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()
