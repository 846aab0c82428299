# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of MoRA: the frozen LLM, the graph encoder and the generated low-rank weights."""

import copy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

AUTO_MAP = {
    "AutoConfig": "configuration_mora.MoraConfig",
    "AutoFeatureExtractor": "feature_extraction_mora.MoleculeFeatureExtractor",
    "AutoModel": "modeling_mora.MoraForCausalLM",
    "AutoModelForCausalLM": "modeling_mora.MoraForCausalLM",
    "AutoProcessor": "processing_mora.MoraProcessor",
}
# Only one, so that transformers.pipeline needs no task= to find it.
PIPELINE_TASK = "molecule-text-to-text"
CUSTOM_PIPELINES = {
    PIPELINE_TASK: {"impl": "pipeline_mora.MoraPipeline", "pt": ["AutoModelForCausalLM"]}
}

PAPER_SETTINGS = {
    "generator_type": "dense",
    "rank": 64,
    "alpha": 64,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "mlp"],
    "layer_stride": 4,
    "generator_dim": 1024,
    "generator_depth": 8,
    "generator_heads": 16,
    "generator_per_type": True,
    "freeze_graph_encoder": True,
}
"""The published setting (arXiv 2510.12245) without its graph encoder, see [`MoraConfig.paper`]."""


@strict
class MoraGraphConfig(PreTrainedConfig):
    r"""
    Configuration of [`MoraGraphEncoder`], a GIN with edge features over OGB's features.

    Args:
        form (`str`, defaults to `"prenorm"`):
            `"prenorm"`: residual layers with LayerNorm, trains well from scratch.
            `"moleculestm"`: MoleculeSTM's layers (BatchNorm, no residual), to load its checkpoint.
        hidden_size (`int`, defaults to 256): width of an atom state.
        num_layers (`int`, defaults to 5): number of message-passing steps.
        dropout (`float`, defaults to 0.0): dropout after each layer.
        atom_vocab_sizes (`list[int]`): number of values of each of OGB's 9 atom features.
        bond_vocab_sizes (`list[int]`): number of values of each of OGB's 3 bond features.
    """

    model_type = "mora_graph"
    base_config_key = "graph_config"

    form: str = "prenorm"
    hidden_size: int = 256
    num_layers: int = 5
    dropout: float = 0.0
    atom_vocab_sizes: list[int] | tuple[int, ...] = (119, 5, 12, 12, 10, 6, 6, 2, 2)
    bond_vocab_sizes: list[int] | tuple[int, ...] = (5, 6, 2)

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        _check_choice("form", self.form, ("prenorm", "moleculestm"))
        _check_positive("hidden_size", self.hidden_size)
        _check_positive("num_layers", self.num_layers)


@strict
class MoraConfig(PreTrainedConfig):
    r"""
    Configuration of [`MoraForCausalLM`]: `y = base(x) + alpha / rank * ((x A) C_i) B`, where
    the core `C_i` is generated from the graph of molecule i.

    Args:
        text_config (`PreTrainedConfig` or `dict`): configuration of the frozen decoder LLM.
        graph_config (`MoraGraphConfig` or `dict`): configuration of the graph encoder.
        generator_type (`str`, defaults to `"core"`):
            `"core"`: A and B are shared, the molecule's own part is the small core `C_i`.
            `"dense"`: the published design, the whole `A_i` [d_in, rank] is generated.
        rank (`int`, defaults to 26): rank of the delta added to a module.
        core_dim (`int`, *optional*): c, the number of columns of A; `rank` when not given.
        alpha (`float`, *optional*): the delta is scaled by `alpha / rank`; `rank` when not given.
        target_modules (`str` or `list[str]`, *optional*):
            Modules to adapt, as in PEFT: a list of name endings, a regular expression or
            `"all-linear"`. `"mlp"` in a list adds a delta from the MLP's input to its output.
            PEFT's default for the base's model type when not given.
        layers_to_transform (`int` or `list[int]`, *optional*): adapt only these decoder layers.
        layer_stride (`int`, *optional*):
            Adapt every n-th decoder layer: with 4, the layers 4, 8, 12, … counted from one.
        generator_dim (`int`, defaults to 128): width of the weight generator.
        generator_depth (`int`, defaults to 2): number of its blocks.
        generator_heads (`int`, defaults to 8): number of its attention heads.
        generator_per_type (`bool`, defaults to `False`):
            A separate stack of blocks for each module type, as published.
        delta_init_scale (`float`, defaults to 1.0):
            Size at the start of the generated part of `A C_i`, relative to A as PEFT's LoRA
            initialises it.
        freeze_graph_encoder (`bool`, defaults to `False`): keep the graph encoder as it is.
        base_model_name_or_path (`str`, *optional*): Hub id or folder of the frozen LLM.
        base_revision (`str`, *optional*): its commit on the Hub.
        base_fingerprint (`str`, *optional*): fingerprint of its weights (`checkpoint_mora.py`).
        includes_base (`bool`, defaults to `False`):
            Whether the checkpoint holds the frozen LLM's weights too. Set by `save_pretrained`.
        resized_embeddings (`bool`, defaults to `False`):
            Whether the vocabulary differs from the base's, so that every checkpoint holds the
            embeddings. Set by `resize_token_embeddings`.
    """

    model_type = "mora"
    sub_configs = {"text_config": AutoConfig, "graph_config": MoraGraphConfig}

    text_config: dict | PreTrainedConfig | None = None
    graph_config: dict | PreTrainedConfig | None = None
    generator_type: str = "core"
    rank: int = 26
    core_dim: int | None = None
    alpha: float | int | None = None
    target_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layer_stride: int | None = None
    generator_dim: int = 128
    generator_depth: int = 2
    generator_heads: int = 8
    generator_per_type: bool = False
    delta_init_scale: float | int = 1.0
    freeze_graph_encoder: bool = False
    base_model_name_or_path: str | None = None
    base_revision: str | None = None
    base_fingerprint: str | None = None
    includes_base: bool = False
    resized_embeddings: bool = False

    def __post_init__(self, **kwargs):
        # Before super(), which hands settings such as the dtype down to the sub-configurations.
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = AutoConfig.for_model(
                **{"model_type": "llama"} | (self.text_config or {})
            )
        # A folder of the machine of the training; `base_model_name_or_path` is what others need.
        self.text_config.name_or_path = ""
        if not isinstance(self.graph_config, PreTrainedConfig):
            self.graph_config = MoraGraphConfig(**(self.graph_config or {}))
        super().__post_init__(**kwargs)
        if self.core_dim is None:
            self.core_dim = self.rank
        if self.alpha is None:
            self.alpha = self.rank
        if getattr(self, "auto_map", None) is None:
            self.auto_map = dict(AUTO_MAP)
        if getattr(self, "custom_pipelines", None) is None:
            self.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
        self._check_values()

    @classmethod
    def paper(cls, text_config: PreTrainedConfig, **overrides: Any) -> "MoraConfig":
        """The published setting (arXiv 2510.12245), for a base with Llama's module names.

        The generator writes the whole A, from MoleculeSTM's frozen graph encoder: 2.0 billion
        trained parameters for a 7B base. Two things are not as in the published code: a query is
        the sum of a layer's and a module type's embedding, and A starts at the scale of LoRA's.

        Args:
            text_config: configuration of the frozen LLM.
            overrides: settings that differ, such as `target_modules` for other module names.
        """
        encoder = MoraGraphConfig(form="moleculestm", hidden_size=300)
        settings = PAPER_SETTINGS | {"graph_config": encoder} | overrides
        return cls(text_config=text_config, **settings)

    def _check_values(self) -> None:
        _check_choice("generator_type", self.generator_type, ("core", "dense"))
        for name in ("rank", "generator_dim", "generator_depth", "generator_heads"):
            _check_positive(name, getattr(self, name))
        if self.core_dim < self.rank:
            raise ValueError(
                f"core_dim={self.core_dim} is smaller than rank={self.rank}: the core C has shape "
                "[core_dim, rank] and needs core_dim >= rank. Raise core_dim or lower rank."
            )
        if self.generator_dim % self.generator_heads:
            raise ValueError(
                f"generator_dim={self.generator_dim} is not a multiple of "
                f"generator_heads={self.generator_heads}."
            )
        if (
            isinstance(self.target_modules, str)
            and self.target_modules != "all-linear"
            and self.layers_to_transform is not None
        ):
            raise ValueError(
                f"layers_to_transform={self.layers_to_transform} has no effect on the regular "
                f"expression target_modules={self.target_modules!r}: write the layers into it, or "
                "give a list of name endings."
            )
        if not self.alpha > 0:
            raise ValueError(f"alpha={self.alpha} must be above 0.")
        if self.layer_stride is not None and self.layers_to_transform is not None:
            raise ValueError(
                f"layer_stride={self.layer_stride} and layers_to_transform="
                f"{self.layers_to_transform} both choose layers: give only one of them."
            )
        if self.layer_stride is not None:
            _check_positive("layer_stride", self.layer_stride)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not known: use one of {', '.join(choices)}.")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1.")


__all__ = ["MoraConfig", "MoraGraphConfig"]
