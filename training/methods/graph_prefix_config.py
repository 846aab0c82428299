# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of the graph prefix."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from modeling_mora.configuration_mora import MoraGraphConfig


@strict
class GraphPrefixConfig(PreTrainedConfig):
    r"""
    Configuration of [`GraphPrefixForCausalLM`].

    Args:
        text_config (`PreTrainedConfig` or `dict`): configuration of the frozen decoder LLM.
        graph_config (`MoraGraphConfig` or `dict`): configuration of the graph encoder.
        rank (`int`, defaults to 26): rank of LoRA.
        alpha (`float`, *optional*): LoRA is scaled by `alpha / rank`; `rank` when not given.
        target_modules (`list[str]`): whole names of the LLM's modules with LoRA.
        freeze_graph_encoder (`bool`, defaults to `False`): keep the graph encoder as it is.
        base_model_name_or_path, base_revision, base_fingerprint (`str`, *optional*):
            Which LLM it is, as in `MoraConfig`.
    """

    model_type = "mora_graph_prefix"
    sub_configs = {"text_config": AutoConfig, "graph_config": MoraGraphConfig}

    text_config: dict | PreTrainedConfig | None = None
    graph_config: dict | PreTrainedConfig | None = None
    rank: int = 26
    alpha: float | int | None = None
    target_modules: list[str] | None = None
    freeze_graph_encoder: bool = False
    base_model_name_or_path: str | None = None
    base_revision: str | None = None
    base_fingerprint: str | None = None

    def __post_init__(self, **kwargs):
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = AutoConfig.for_model(
                **{"model_type": "llama"} | (self.text_config or {})
            )
        if not isinstance(self.graph_config, PreTrainedConfig):
            self.graph_config = MoraGraphConfig(**(self.graph_config or {}))
        super().__post_init__(**kwargs)
        if self.alpha is None:
            self.alpha = self.rank


GraphPrefixConfig.register_for_auto_class()
