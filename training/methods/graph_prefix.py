# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Graph prefix: the encoded atoms stand as embeddings in front of the text.

The input-space alignment of InstructMol (Cao et al., 2023) and LLaVA-1.5 (Liu et al., 2023): each
atom state of a graph encoder passes through an MLP of two layers with GELU and becomes one
embedding of a frozen LLM with LoRA. InstructMol puts them at the start or end of the user's turn;
here they stand in front of the whole text, so that no chat template has to be taken apart.

Checkpoints carry this file and `graph_prefix_config.py` as remote code, so they import nothing else
of `training`; the package `modeling_mora` has to be installed where they are loaded.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from modeling_mora.base_models_mora import resolve_base
from modeling_mora.checkpoint_mora import (
    HUB_KWARGS,
    base_fingerprint,
    check_adapter_tensors,
    check_base_fingerprint,
    has_comparable_weights,
    load_adapter_tensors,
    load_base_config,
    resolve_base_revision,
)
from modeling_mora.feature_extraction_mora import MoleculeFeatureExtractor
from modeling_mora.graph_encoder_mora import MoraGraphEncoder
from modeling_mora.sharding_mora import (
    cast_zero3_parameters,
    whole_tensor,
    without_fsdp_class,
)

from .graph_prefix_config import GraphPrefixConfig

GRAPH_INPUTS = tuple(MoleculeFeatureExtractor.model_input_names)


class GraphPrefixForCausalLM(PreTrainedModel, GenerationMixin):
    """A frozen decoder LLM with LoRA that reads a molecule's atoms as embeddings before the text.

    Graph encoder, projector and LoRA are trained and saved; the LLM is loaded from its own place.
    A row without a molecule has no prefix, but LoRA; `disable_adapter` gives the LLM alone. Texts
    are padded on the left.

    Args:
        config: the configuration.
        language_model: the LLM that the configuration names, see `from_base`.
    """

    config_class = GraphPrefixConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: GraphPrefixConfig, language_model: PreTrainedModel):
        super().__init__(config)
        width = language_model.config.get_text_config().hidden_size
        self.graph_encoder = MoraGraphEncoder(config.graph_config)
        self.projector = make_projector(config.graph_config.hidden_size, width)
        self.language_model = language_model
        self.generation_config = language_model.generation_config
        self.adapter_enabled = True
        self.register_load_state_dict_post_hook(_ignore_missing_base_keys)
        self.post_init()

    @classmethod
    def from_base(
        cls,
        base_name_or_path: str,
        revision: str | None = None,
        graph_encoder: MoraGraphEncoder | None = None,
        graph_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> "GraphPrefixForCausalLM":
        """Make a new, untrained model around a pretrained decoder LLM.

        Args:
            base_name_or_path: Hub id or folder of the LLM, or a name of `WHEEL_BASES`.
            revision: branch, tag or commit of the LLM on the Hub.
            graph_encoder: a pretrained encoder, whose configuration and weights are copied.
            graph_config: settings of a new encoder.
            kwargs: `rank`, `alpha`, `target_modules` and `freeze_graph_encoder` of
                [`GraphPrefixConfig`]; everything else goes to `from_pretrained` of the LLM.

        Raises:
            OSError: the base is not found.
        """
        if graph_encoder is not None:
            graph_config = copy.deepcopy(graph_encoder.config)
            graph_config.name_or_path = ""  # its weights are copied, too
        names = ("rank", "alpha", "target_modules", "freeze_graph_encoder")
        config = GraphPrefixConfig(
            text_config=load_base_config(base_name_or_path, revision),
            graph_config=graph_config,
            base_model_name_or_path=str(base_name_or_path),
            base_revision=resolve_base_revision(base_name_or_path, revision),
            **{name: kwargs.pop(name) for name in names if name in kwargs},
        )
        model = cls._around_base(config, **kwargs)
        if graph_encoder is not None:
            model.graph_encoder.load_state_dict(graph_encoder.state_dict())
        return model

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *model_args: Any,
        config: GraphPrefixConfig | None = None,
        **kwargs: Any,
    ) -> "GraphPrefixForCausalLM":
        """Load a checkpoint, and the base model that it names.

        Raises:
            OSError: the checkpoint or its base is missing, truncated or corrupt.
            ValueError: the base is not the one that the checkpoint was trained on.
        """
        hub_kwargs = {key: kwargs.pop(key) for key in HUB_KWARGS if key in kwargs}
        kwargs.pop("adapter_kwargs", None)
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, return_unused_kwargs=True, **hub_kwargs, **kwargs
            )
        tensors = load_adapter_tensors(pretrained_model_name_or_path, **hub_kwargs)
        # The checkpoint's own revision and subfolder say nothing about where the base is.
        access = {k: v for k, v in hub_kwargs.items() if k not in ("revision", "subfolder")}
        load_base_config(config.base_model_name_or_path, config.base_revision, **access)
        model = cls._around_base(config, **access, **kwargs)
        expected = model._adapter_tensors(model.state_dict())
        check_adapter_tensors(tensors, expected, pretrained_model_name_or_path)
        model.load_state_dict(tensors, strict=False)
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        return model.eval()

    @classmethod
    def _around_base(cls, config: GraphPrefixConfig, **kwargs: Any) -> "GraphPrefixForCausalLM":
        """Load the LLM and put a fresh adapter around it."""
        language_model = AutoModelForCausalLM.from_pretrained(
            resolve_base(config.base_model_name_or_path),
            revision=config.base_revision or "main",
            **kwargs,
        )
        cast_zero3_parameters(language_model, language_model.config.dtype)
        model = cls(config, language_model)
        # Before LoRA, which changes the names of the base's parameters.
        check_base_fingerprint(model)
        if config.base_fingerprint is None and has_comparable_weights(model):
            config.base_fingerprint = base_fingerprint(language_model)
        model.add_lora()
        return model

    def add_lora(self) -> None:
        """Freeze the base and put LoRA on it; all that is trained is float32, on its device."""
        self.language_model.requires_grad_(False)
        self.language_model.add_adapter(
            LoraConfig(
                r=self.config.rank,
                lora_alpha=self.config.alpha,
                target_modules=self.config.target_modules,
            )
        )
        for parameter in self.language_model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        device = self.get_input_embeddings().weight.device
        self.projector.to(device).float()
        self.graph_encoder.to(device).float()
        self.graph_encoder.requires_grad_(not self.config.freeze_graph_encoder)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        graph_atoms: torch.Tensor | None = None,
        graph_atom_mask: torch.Tensor | None = None,
        graph_bonds: torch.Tensor | None = None,
        graph_bond_features: torch.Tensor | None = None,
        graph_bond_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the base model over the prefix and the text.

        Args:
            input_ids, attention_mask: [B, T] text, padded on the left.
            position_ids: [B, T]; counted anew where a prefix comes first.
            inputs_embeds: [B, T, d] in place of `input_ids`.
            labels: [B, K] for the last K positions of the text; the prefix carries no loss.
            logits_to_keep: number of logits from the end, 0 for all T of the text; or positions [K]
                in the text.
            graph_atoms, …: the molecules, see `MoraGraphEncoder`.
            kwargs: passed on to the base model.

        Returns:
            The base model's output, with logits [B, T, V] of the text alone.

        Raises:
            ValueError: not one molecule per row, or a text padded on the right.
        """
        graph = (graph_atoms, graph_atom_mask, graph_bonds, graph_bond_features, graph_bond_mask)
        if graph_atoms is None or not self.adapter_enabled:
            return self.language_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                labels=labels,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        embeds, mask = self._put_prefix(inputs_embeds, attention_mask, graph)
        if isinstance(logits_to_keep, torch.Tensor):
            logits_to_keep = logits_to_keep + graph_atoms.shape[1]
        else:
            logits_to_keep = logits_to_keep or inputs_embeds.shape[1]
        return self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _put_prefix(
        self,
        text: torch.Tensor,
        text_mask: torch.Tensor | None,
        graph: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, N + T, d] embeddings and their mask: all padding, then the atoms, then the text.

        With the padding of both at the left, atoms and text are neighbours whatever the batch, as
        a sliding window sees them, and the text ends where it ended.
        """
        if text_mask is None:
            text_mask = torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
        atoms, atom_mask = graph[:2]
        if len(atoms) != len(text):
            raise ValueError(
                f"{len(atoms)} molecules were given for {len(text)} rows of text: give one per row "
                "(None for a row without a molecule)."
            )
        if not text_mask[:, -1].all():
            raise ValueError(
                "A text is padded on the right: set the tokenizer's padding_side to left."
            )
        with torch.autocast(device_type=atoms.device.type, enabled=False):
            prefix = self.projector(self.graph_encoder(*graph)).to(text.dtype)
        mask = torch.cat([atom_mask, text_mask.bool()], dim=1).long()
        order = mask.argsort(dim=1, stable=True)
        embeds = torch.cat([prefix, text], dim=1).take_along_dim(order.unsqueeze(-1), dim=1)
        return embeds, mask.take_along_dim(order, dim=1)

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """The base model's `generate`; the prefix goes in once, with the prompt.

        Args:
            inputs: [B, T] `input_ids`, which may also be given by that name.
            kwargs: the `graph_…` tensors, `attention_mask` and all settings of generation, of
                which `max_length` counts the prefix too.

        Returns:
            As without a prefix: the given tokens and the new ones.
        """
        graph = tuple(kwargs.pop(name, None) for name in GRAPH_INPUTS)
        input_ids = kwargs.pop("input_ids", inputs)
        kwargs.setdefault("generation_config", self.generation_config)
        if graph[0] is None or not self.adapter_enabled:
            return self.language_model.generate(input_ids, **kwargs)
        text = self.get_input_embeddings()(input_ids)
        embeds, mask = self._put_prefix(text, kwargs.pop("attention_mask", None), graph)
        kwargs.pop("position_ids", None)
        # generate counts tokens by ids. Repeating one of the prompt's own for the atoms leaves the
        # set of tokens, which a repetition penalty looks at, as it is.
        prefix_ids = input_ids[:, -1:].expand(-1, graph[0].shape[1])
        result = self.language_model.generate(
            torch.cat([prefix_ids, input_ids], dim=1),
            inputs_embeds=embeds,
            attention_mask=mask,
            **kwargs,
        )
        sequences = result if isinstance(result, torch.Tensor) else result.sequences
        prompt = input_ids.repeat_interleave(len(sequences) // len(input_ids), dim=0)
        sequences = torch.cat([prompt, sequences[:, embeds.shape[1] :]], dim=1)
        if isinstance(result, torch.Tensor):
            return sequences
        result.sequences = sequences
        return result

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside this context the model is the base model, bit by bit: no prefix and no LoRA."""
        before = self.adapter_enabled
        self.adapter_enabled = False
        self.language_model.disable_adapters()
        try:
            yield
        finally:
            self.adapter_enabled = before
            if before:
                self.language_model.enable_adapters()

    def save_pretrained(
        self,
        save_directory: str,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save graph encoder, projector and LoRA; the base's weights never.

        Args:
            save_directory: folder to write to.
            state_dict: tensors to save instead of the model's own, as the Trainer gives them.
            kwargs: passed on to `PreTrainedModel.save_pretrained`.
        """
        if state_dict is None:
            state_dict = self.whole_state_dict()
        with without_fsdp_class(self):
            tensors = self._adapter_tensors(state_dict)
            super().save_pretrained(save_directory, state_dict=tensors, **kwargs)

    def whole_state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint, put together where ZeRO-3 or FSDP2 has cut them up.

        All processes have to take part. The tensors of a model that is cut up are copies.
        """
        tensors = self._adapter_tensors(self.state_dict(keep_vars=True))
        return {name: whole_tensor(tensor) for name, tensor in tensors.items()}

    @staticmethod
    def _adapter_tensors(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: t for name, t in state_dict.items() if not _is_of_base(name)}

    def train(self, mode: bool = True) -> "GraphPrefixForCausalLM":
        """`nn.Module.train`, but a frozen graph encoder stays in evaluation mode (BatchNorm)."""
        super().train(mode)
        if self.config.freeze_graph_encoder:
            self.graph_encoder.eval()
        return self

    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        """The base's, since what is trained is float32 whatever the base is."""
        return self.get_input_embeddings().weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        """The base model's input embeddings."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        """The base model's output head."""
        return self.language_model.get_output_embeddings()


def make_projector(graph_width: int, width: int) -> nn.Sequential:
    """LLaVA-1.5's projector: two layers and GELU, [..., graph_width] to [..., width]."""
    return nn.Sequential(nn.Linear(graph_width, width), nn.GELU(), nn.Linear(width, width))


def _is_of_base(name: str) -> bool:
    return name.startswith("language_model.") and ".lora_" not in name


def _ignore_missing_base_keys(module: nn.Module, incompatible_keys: Any) -> None:
    """Post hook of `load_state_dict`: a checkpoint without the base is complete."""
    incompatible_keys.missing_keys[:] = [
        key for key in incompatible_keys.missing_keys if not _is_of_base(key)
    ]


GraphPrefixForCausalLM.register_for_auto_class("AutoModelForCausalLM")
