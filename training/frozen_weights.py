# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of DeepSpeed without the weights of the frozen LLM."""

from typing import Any

import torch


def is_frozen(tensor: torch.Tensor) -> bool:
    """Whether a tensor of a model is a parameter that is not trained, and not a buffer."""
    return isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad


def leave_out_frozen(engine: torch.nn.Module) -> None:
    """Keep what is not trained out of the checkpoints of a DeepSpeed engine.

    `exclude_frozen_parameters` alone forgets a tied output head, which is in a state dict under a
    second name. Loading does not miss what is not there.
    """
    save_checkpoint = engine.save_checkpoint
    module_state_dict = engine.module_state_dict
    load_module_state_dict = engine.load_module_state_dict

    def save(save_dir: str, **kwargs: Any) -> Any:
        return save_checkpoint(save_dir, **(kwargs | {"exclude_frozen_parameters": True}))

    def state_dict(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        parameters = engine.module.named_parameters(remove_duplicate=False)
        frozen = {name for name, parameter in parameters if is_frozen(parameter)}
        state = module_state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in state.items() if name not in frozen}

    def load(checkpoint: dict[str, Any], strict: bool = True, **kwargs: Any) -> None:
        load_module_state_dict(checkpoint, strict=False, **kwargs)

    engine.save_checkpoint = save
    engine.module_state_dict = state_dict
    engine.load_module_state_dict = load
