# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""One molecule's weights folded into the base model for a while, so that decoding costs no more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .targets_mora import Target
from .tuner_mora import MoraTuner, adapted_module

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@contextmanager
def merged_weights(
    tuner: MoraTuner, language_model: PreTrainedModel, weights: torch.Tensor
) -> Iterator[None]:
    """Inside this context `language_model` holds one molecule's weights.

    The hooks stay and do nothing: compiled code does not notice that hooks come and go.

    The sums are computed in float32 or wider and rounded once to the base's dtype. The changed
    weights need their memory twice; afterwards the base has its own tensors back.

    Args:
        tuner: the tuner attached to `language_model`.
        language_model: the base model.
        weights: [1, P] weights of one molecule.

    Raises:
        ValueError: an adapted module has no weight matrix in memory that could be changed.
    """
    modules = [adapted_module(language_model, target) for target in tuner.targets]
    for target, module in zip(tuner.targets, modules, strict=True):
        _check_mergeable(target, module)
    originals: list[tuple[torch.Tensor, torch.Tensor]] = []
    tuner.state.merged = True
    try:
        with torch.no_grad():
            matrices = tuner.lora_matrices(weights)
            for module, (_, lora_a, lora_b) in zip(modules, matrices, strict=True):
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


def _check_mergeable(target: Target, module: nn.Module) -> None:
    if not target.is_linear:
        raise ValueError(
            f"{target.name} is adapted as a whole, from its input to its output, which no weight "
            "matrix can express: use encode_molecules and mora_weights=… instead of merged."
        )
    weight = getattr(module, "weight", None)
    if weight is None or weight.is_meta or weight.dtype not in DTYPES:
        form = "no weight" if weight is None else f"{weight.dtype} on {weight.device}"
        raise ValueError(
            f"The weights of {target.name} are quantised or offloaded ({form}) and cannot be "
            "merged: load the base in memory in a floating-point dtype, or use encode_molecules "
            "and mora_weights=… instead of merged."
        )


__all__ = ["merged_weights"]
