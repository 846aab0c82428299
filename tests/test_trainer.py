# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The Trainer of all methods: 16 bit, and what a DeepSpeed engine saves and loads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from modeling_mora import MoraForCausalLM
from training.frozen_weights import leave_out_frozen
from training.trainer import MoraTrainer


def enable(monkeypatch: pytest.MonkeyPatch, wrapper: str) -> None:
    """Let the Trainer take DeepSpeed or FSDP for enabled."""
    start = Trainer.create_accelerator_and_postprocess

    def start_wrapped(self: Trainer) -> None:
        start(self)
        setattr(self, wrapper, True)

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", start_wrapped)


@pytest.mark.parametrize("wrapper", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_16_bit_that_would_reach_the_weight_generator(
    wrapper: str,
    make_model: Callable[..., MoraForCausalLM],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    arguments = TrainingArguments(output_dir=tmp_path, bf16=True, use_cpu=True)
    MoraTrainer(model=make_model(), args=arguments, data_settings={})
    enable(monkeypatch, wrapper)
    with pytest.raises(ValueError, match="Leave them off and give `base_dtype: bfloat16`"):
        MoraTrainer(model=make_model(), args=arguments, data_settings={})


def test_fsdp1_is_refused(
    make_model: Callable[..., MoraForCausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    enable(monkeypatch, "is_fsdp_enabled")
    arguments = TrainingArguments(output_dir=tmp_path, use_cpu=True)
    with pytest.raises(ValueError, match="set fsdp_version: 2"):
        MoraTrainer(model=make_model(), args=arguments, data_settings={})


def test_attention_of_cudnn_is_not_used(make_model: Callable[..., MoraForCausalLM], tmp_path: Path):
    """With a mask its gradients are NaN at some lengths; seen in step 4 on an H200, torch 2.11."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    arguments = TrainingArguments(output_dir=tmp_path, use_cpu=True)
    MoraTrainer(model=make_model(), args=arguments, data_settings={})
    assert not torch.backends.cuda.cudnn_sdp_enabled()


class Engine:
    """What `leave_out_frozen` needs of a DeepSpeed engine."""

    def __init__(self, module: torch.nn.Module):
        self.module = module

    def module_state_dict(self, exclude_frozen_parameters: bool = False) -> dict:
        return self.module.state_dict()

    def save_checkpoint(self, save_dir: str, exclude_frozen_parameters: bool = False) -> bool:
        return exclude_frozen_parameters

    def load_module_state_dict(self, checkpoint: dict, strict: bool = True) -> None:
        self.module.load_state_dict(checkpoint["module"], strict=strict)


def test_engine_leaves_out_what_is_frozen():
    """A tied head is left out by both of its names; buffers and trained weights are not."""
    module = torch.nn.ModuleDict(
        {
            "embeddings": torch.nn.Embedding(5, 4),
            "norm": torch.nn.BatchNorm1d(4),
            "head": torch.nn.Linear(4, 5, bias=False),
        }
    )
    module["head"].weight = module["embeddings"].weight
    module["embeddings"].requires_grad_(False)
    engine = Engine(module)
    leave_out_frozen(engine)
    saved = {name: tensor.clone() for name, tensor in engine.module_state_dict().items()}
    buffers = ["running_mean", "running_var", "num_batches_tracked"]
    assert list(saved) == [f"norm.{name}" for name in ["weight", "bias", *buffers]]
    assert engine.save_checkpoint("folder") is True
    assert engine.save_checkpoint("folder", exclude_frozen_parameters=False) is True
    with torch.no_grad():
        module["norm"].weight.fill_(7)
    engine.load_module_state_dict({"module": saved}, strict=True)
    assert torch.equal(module["norm"].weight, torch.ones(4))
