# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From the arguments of a run to the model that it trains, one function per method."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_pt_utils import get_model_param_count

from modeling_mora import MoraForCausalLM, MoraGraphConfig, MoraGraphEncoder
from modeling_mora.checkpoint_mora import base_fingerprint, resolve_base_revision
from training.arguments import ModelArguments
from training.methods.graph_prefix import GraphPrefixForCausalLM, make_projector
from training.methods.lora import lora_settings

# The methods whose models take the molecules' graphs.
READS_GRAPHS = ("mora", "graph_prefix")


def make_model(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None = None
) -> PreTrainedModel | PeftModel:
    """Make the untrained model of `model_args.method`.

    Args:
        model_args: `base` is a folder or a Hub id here.
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
        dtype=model_args.base_dtype,
        **model_args.mora_settings(),
    )


def make_lora(model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None) -> PeftModel:
    """A frozen base with PEFT's LoRA on the modules that MoRA would adapt."""
    settings = lora_settings(model_args, graph_encoder)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules=settings["target_modules"],
    )
    base = AutoModelForCausalLM.from_pretrained(model_args.base, dtype=model_args.base_dtype)
    return get_peft_model(base, config, revision=resolve_base_revision(model_args.base, None))


def make_graph_prefix(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None
) -> GraphPrefixForCausalLM:
    """A frozen base with LoRA that reads each molecule's atoms in front of the text."""
    graph_config = MoraGraphConfig(**model_args.mora_settings().get("graph_config", {}))
    if graph_encoder is not None:
        graph_config = graph_encoder.config
    freeze = bool(model_args.freeze_graph_encoder)
    with torch.device("meta"):
        width = AutoConfig.from_pretrained(model_args.base).get_text_config().hidden_size
        others = get_model_param_count(
            make_projector(graph_config.hidden_size, width), trainable_only=True
        )
        if not freeze:
            others += get_model_param_count(MoraGraphEncoder(graph_config), trainable_only=True)
    return GraphPrefixForCausalLM.from_base(
        model_args.base,
        graph_encoder=graph_encoder,
        graph_config=graph_config,
        freeze_graph_encoder=freeze,
        dtype=model_args.base_dtype,
        **lora_settings(model_args, graph_encoder, others),
    )


def make_full_finetune(
    model_args: ModelArguments, graph_encoder: MoraGraphEncoder | None
) -> PreTrainedModel:
    """The base, all of whose weights are trained; its configuration notes where it came from."""
    model = AutoModelForCausalLM.from_pretrained(model_args.base, dtype=model_args.base_dtype)
    model.config.base_model_name_or_path = model_args.base
    model.config.base_revision = resolve_base_revision(model_args.base, None)
    model.config.base_fingerprint = None
    if not is_deepspeed_zero3_enabled():  # which leaves each process a part of the weights
        model.config.base_fingerprint = base_fingerprint(model)
    return model
