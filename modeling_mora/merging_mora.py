# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""One molecule's weights folded into the base model for a while, so that decoding costs no more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .tuner_mora import MoraTuner


@contextmanager
def merged_weights(
    tuner: MoraTuner, language_model: PreTrainedModel, weights: torch.Tensor
) -> Iterator[None]:
    """Inside this context `language_model` holds one molecule's weights and has no hooks.

    The sums are computed in float32 or wider and rounded once to the base's dtype. The changed
    weights need their memory twice; afterwards the base has its own tensors back.

    Args:
        tuner: the tuner attached to `language_model`.
        language_model: the base model.
        weights: [1, P] weights of one molecule.

    Raises:
        ValueError: an adapted module has no weight matrix in memory that could be changed.
    """
    modules = {target.name: language_model.get_submodule(target.name) for target in tuner.targets}
    for name, module in modules.items():
        _check_mergeable(name, module)
    originals: list[tuple[torch.Tensor, torch.Tensor]] = []
    tuner.detach(language_model)
    tuner.state.merged = True
    try:
        with torch.no_grad():
            for target, lora_a, lora_b in tuner.lora_matrices(weights):
                module = modules[target.name]
                weight = module.weight
                originals.append((weight, weight.data))
                delta = (tuner.scaling * (lora_a @ lora_b)).to(weight.device)
                weight.data = (weight + (delta if isinstance(module, Conv1D) else delta.T)).to(
                    weight.dtype
                )
        yield
    finally:
        for weight, original in reversed(originals):
            weight.data = original
        tuner.state.merged = False
        tuner.attach(language_model)


def _check_mergeable(name: str, module: nn.Module) -> None:
    weight = getattr(module, "weight", None)
    if weight is None:
        raise ValueError(
            f"{name} is adapted as a whole, from its input to its output, which no weight matrix "
            "can express: use encode_molecules and mora_weights=… instead of merged."
        )
    if weight.is_meta or not weight.is_floating_point() or weight.dim() != 2:
        raise ValueError(
            f"The weights of {name} are quantised or offloaded ({weight.dtype} on {weight.device}) "
            "and cannot be merged: load the base in memory in a floating-point dtype, or use "
            "encode_molecules and mora_weights=… instead of merged."
        )
