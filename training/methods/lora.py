# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Static LoRA on MoRA's modules, at its rank or with its number of trained parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import set_zero3_state
from transformers.trainer_pt_utils import get_model_param_count

from modeling_mora import MoraConfig, MoraForCausalLM, MoraGraphEncoder
from modeling_mora.targets_mora import Target, find_targets
from training.arguments import ModelArguments


def lora_settings(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None, others: int = 0
) -> dict[str, Any]:
    """`rank`, `alpha` and `target_modules` of a LoRA that is comparable with a MoRA.

    The modules are exactly those of the MoRA with these settings, and so is the scale, alpha/rank.

    Args:
        model_args: the settings; `lora_match` chooses the rank.
        graph_encoder: the pretrained encoder of the MoRA, if there is one.
        others: number of parameters that are trained beside LoRA.

    Raises:
        ValueError: the settings choose no modules, or modules that LoRA cannot adapt.
    """
    text_config = AutoConfig.from_pretrained(model_args.base_path)
    settings = model_args.mora_settings()
    if graph_encoder is not None:
        settings["graph_config"] = graph_encoder.config
    config = MoraConfig(text_config=text_config, **settings)
    with without_values():
        targets = find_targets(AutoModelForCausalLM.from_config(text_config), config)
    whole_mlps = [target.name for target in targets if not target.is_linear]
    if whole_mlps:
        raise ValueError(
            f"target_modules: method={model_args.method} has no counterpart of MoRA's `mlp`, a "
            f"delta from the input of {whole_mlps[0]} to its output. Name its linear modules, such "
            "as up_proj and down_proj, for both methods."
        )
    rank = config.rank
    if model_args.lora_match == "parameters":
        with without_values():
            wanted = get_model_param_count(MoraForCausalLM(config), trainable_only=True)
        rank = nearest_rank(wanted - others, targets)
        print(
            f"Rank {rank} trains {others + lora_size(rank, targets):,} parameters, MoRA with these "
            f"settings (rank {config.rank}) {wanted:,}."
        )
    return {
        "rank": rank,
        "alpha": config.alpha / config.rank * rank,
        "target_modules": [target.name for target in targets],
    }


@contextmanager
def without_values() -> Iterator[None]:
    """Inside this context models are made on torch's meta device, under ZeRO-3 as well."""
    # Takes for given that ZeRO-3 cuts up what is made, so that transformers does not begin to.
    with torch.device("meta"), set_zero3_state():
        yield


def lora_size(rank: int, targets: list[Target]) -> int:
    """Number of parameters of LoRA's A [rank, d_in] and B [d_out, rank] on all targets."""
    return rank * sum(target.d_in + target.d_out for target in targets)


def nearest_rank(parameters: int, targets: list[Target]) -> int:
    """The rank, from 1, with which LoRA on `targets` has nearly so many parameters."""
    return max(1, round(parameters / lora_size(1, targets)))
