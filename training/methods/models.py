# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From the arguments of a run to the model that it trains, one function per method."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_pt_utils import get_model_param_count

from modeling_mora import MoraConfig, MoraForCausalLM, MoraGraphConfig, MoraGraphEncoder
from modeling_mora.checkpoint_mora import (
    base_fingerprint,
    load_base_config,
    resolve_base_revision,
)
from modeling_mora.sharding_mora import cast_zero3_parameters
from training.arguments import ModelArguments
from training.methods.graph_prefix import GraphPrefixForCausalLM, make_projector
from training.methods.graph_prefix_config import GraphPrefixConfig
from training.methods.lora import lora_settings, without_values

# The methods whose models take the molecules' graphs.
READS_GRAPHS = ("mora", "graph_prefix")


def make_model(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None = None
) -> PreTrainedModel | PeftModel:
    """Make the untrained model of `model_args.method`.

    Args:
        model_args: its settings.
        graph_encoder: a pretrained encoder for the methods that read graphs.

    Raises:
        OSError: the base is not found.
        ValueError: a setting that does not fit the base or the method.
    """
    makers = {
        "mora": make_mora,
        "lora": make_lora,
        "graph_prefix": make_graph_prefix,
        "full_finetune": make_full_finetune,
    }
    return makers[model_args.method](model_args, graph_encoder)


def make_mora(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None
) -> MoraForCausalLM:
    """A frozen base with weights generated from each molecule."""
    return MoraForCausalLM.from_base(
        model_args.base,
        graph_encoder=graph_encoder,
        **model_args.loading_settings(),
        **model_args.mora_settings(),
    )


def make_lora(model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None) -> PeftModel:
    """A frozen base with PEFT's LoRA on the modules that MoRA would adapt."""
    config = lora_config(model_args, graph_encoder)
    base = AutoModelForCausalLM.from_pretrained(
        model_args.base_path, **model_args.loading_settings()
    )
    cast_zero3_parameters(base, base.config.dtype)
    return get_peft_model(base, config, revision=resolve_base_revision(model_args.base_path, None))


def lora_config(model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None) -> LoraConfig:
    """The settings of `make_lora`, for PEFT."""
    settings = lora_settings(model_args, graph_encoder)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules=settings["target_modules"],
    )


def make_graph_prefix(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None
) -> GraphPrefixForCausalLM:
    """A frozen base with LoRA that reads each molecule's atoms in front of the text."""
    return GraphPrefixForCausalLM.from_base(
        model_args.base,
        graph_encoder=graph_encoder,
        **model_args.loading_settings(),
        **graph_prefix_settings(model_args, graph_encoder),
    )


def graph_prefix_settings(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None
) -> dict[str, Any]:
    """The settings of `make_graph_prefix`: those of `GraphPrefixConfig` beside the base."""
    graph_config = MoraGraphConfig(**model_args.mora_settings().get("graph_config", {}))
    if graph_encoder is not None:
        graph_config = graph_encoder.config
    freeze = bool(model_args.freeze_graph_encoder)
    with without_values():
        width = AutoConfig.from_pretrained(model_args.base_path).get_text_config().hidden_size
        others = get_model_param_count(
            make_projector(graph_config.hidden_size, width), trainable_only=True
        )
        if not freeze:
            others += get_model_param_count(MoraGraphEncoder(graph_config), trainable_only=True)
    return {
        "graph_config": graph_config,
        "freeze_graph_encoder": freeze,
        **lora_settings(model_args, graph_encoder, others),
    }


def make_full_finetune(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None
) -> PreTrainedModel:
    """The base, all of whose weights are trained; its configuration notes where it came from."""
    model = AutoModelForCausalLM.from_pretrained(
        model_args.base_path, **model_args.loading_settings()
    )
    model.config.base_model_name_or_path = model_args.base_path
    model.config.base_revision = resolve_base_revision(model_args.base_path, None)
    model.config.base_fingerprint = None
    if not is_deepspeed_zero3_enabled():  # which leaves each process a part of the weights
        model.config.base_fingerprint = base_fingerprint(model)
    return model


def outline_model(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None = None
) -> PreTrainedModel | PeftModel:
    """The model of `make_model` on torch's meta device: all but the values, in no time and memory.

    Of the base only its configuration is read.
    """
    base_config = load_base_config(model_args.base, None)
    if model_args.base_dtype != "auto":
        base_config.dtype = getattr(torch, model_args.base_dtype)
    with without_values():
        if model_args.method == "mora":
            settings = model_args.mora_settings()
            if graph_encoder is not None:
                settings["graph_config"] = graph_encoder.config
            return MoraForCausalLM(
                MoraConfig(
                    text_config=base_config,
                    base_model_name_or_path=model_args.base,
                    **settings,
                )
            )
        base = AutoModelForCausalLM.from_config(base_config)
        if model_args.method == "lora":
            return get_peft_model(base, lora_config(model_args, graph_encoder))
        if model_args.method == "graph_prefix":
            settings = graph_prefix_settings(model_args, graph_encoder)
            config = GraphPrefixConfig(
                text_config=base_config, base_model_name_or_path=model_args.base, **settings
            )
            model = GraphPrefixForCausalLM(config, base)
            model.add_lora()
            return model
        return base
