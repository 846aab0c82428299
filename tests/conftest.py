# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: a tiny random LLM with a byte-level tokenizer, and MoRA models around it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraProcessor

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Chains, rings, charges, stereo, several components: sizes from 1 to 21 heavy atoms.
MOLECULES = [
    "C",
    "CCO",
    "c1ccccc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "[Na+].[Cl-]",
    "CCO.CC(=O)O.O=S(=O)(O)O",
    "F/C=C/F",
    "C1CC1",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "N#N",
    "OCC(O)CO",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "C#CC",
    "[NH4+]",
    "O=C1CCCCC1",
]
LINEAR_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, so that any text goes through it and back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(SPECIAL_TOKENS + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def processor(tokenizer: PreTrainedTokenizerFast) -> MoraProcessor:
    return MoraProcessor(MoleculeFeatureExtractor(), tokenizer)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Folder of a random Llama with grouped-query attention, and its tokenizer."""
    path = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def make_model(tiny_base: Path) -> Callable[..., MoraForCausalLM]:
    """Make a small MoRA; its B matrices are random, as after training, so that deltas show."""

    def make(base: Path = tiny_base, **kwargs: object) -> MoraForCausalLM:
        settings = {
            "rank": 4,
            "target_modules": LINEAR_MODULES,
            "generator_dim": 32,
            "generator_heads": 4,
            "graph_config": {"hidden_size": 32, "num_layers": 3},
        }
        torch.manual_seed(1)
        model = MoraForCausalLM.from_base(base, **(settings | kwargs))
        with torch.no_grad():
            for delta in model.tuner.deltas.values():
                delta.B.normal_(std=0.1)
        return model

    return make
