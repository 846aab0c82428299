# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""MoRA for causal language models: a frozen LLM with weights generated from each molecule."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from .checkpoint_mora import (
    HUB_KWARGS,
    base_fingerprint,
    check_adapter_tensors,
    check_base_config,
    check_base_fingerprint,
    drop_base_keys,
    ignore_missing_base_keys,
    load_adapter_tensors,
    load_base_config,
    resolve_base_revision,
)
from .configuration_mora import MoraConfig
from .feature_extraction_mora import MoleculeFeatureExtractor
from .graph_encoder_mora import MoraGraphEncoder
from .merging_mora import merged_weights

# Unused here: checkpoints carry the files that this one imports, and the configuration names it.
from .pipeline_mora import MoraPipeline  # noqa: F401
from .tuner_mora import MoraCheckpoint, MoraTuner, find_targets
from .weight_generator_mora import MoraWeightGenerator

GRAPH_INPUTS = (
    "graph_atoms",
    "graph_atom_mask",
    "graph_bonds",
    "graph_bond_features",
    "graph_bond_mask",
)


class MoraPreTrainedModel(PreTrainedModel):
    """Configuration, initialisation and capabilities shared by MoRA models."""

    config_class = MoraConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.MultiheadAttention):
            super()._init_weights(module)
            init.zeros_(module.in_proj_bias)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class MoraForCausalLM(MoraPreTrainedModel, GenerationMixin):
    """A frozen decoder LLM whose layers get low-rank weights generated from each molecule.

    Only the graph encoder, the weight generator and the shared adapter matrices are trained and
    saved; the base model is named in the configuration and loaded from its own place.
    """

    def __init__(self, config: MoraConfig):
        super().__init__(config)
        language_model = AutoModelForCausalLM.from_config(config.text_config)
        targets = find_targets(language_model, config)
        # Before the base, so that device_map="auto" offloads the adapter last.
        self.graph_encoder = MoraGraphEncoder(config.graph_config)
        self.weight_generator = MoraWeightGenerator(config, targets)
        self.tuner = MoraTuner(config, targets)
        self.language_model = language_model
        if not config.includes_base:
            self._keys_to_ignore_on_load_missing = [
                rf"^{name}\." for name in ("graph_encoder", "weight_generator", "tuner")
            ]
        self.register_load_state_dict_post_hook(ignore_missing_base_keys)
        self.post_init()
        self._prepare_adapter()

    def _prepare_adapter(self) -> None:
        """Freeze the base, keep the adapter in float32 and hook it onto the base's modules.

        Needed again after loading, which makes new parameters and may replace modules.

        Raises:
            ValueError: a `device_map` offloads the adapter.
        """
        for module in (self.graph_encoder, self.weight_generator, self.tuner):
            if hasattr(self, "hf_device_map") and any(p.is_meta for p in module.parameters()):
                raise ValueError(
                    "The device_map offloads a part of the adapter, which cannot be loaded so: put "
                    "graph_encoder, weight_generator and tuner on a device."
                )
            module.float().requires_grad_(True)
        self.graph_encoder.requires_grad_(not self.config.freeze_graph_encoder)
        self.language_model.requires_grad_(False)
        self.tuner.attach(self.language_model)

    @classmethod
    def from_base(
        cls,
        base_name_or_path: str,
        revision: str | None = None,
        graph_encoder: MoraGraphEncoder | None = None,
        **kwargs: Any,
    ) -> "MoraForCausalLM":
        """Make a new, untrained MoRA around a pretrained decoder LLM.

        Args:
            base_name_or_path: Hub id or folder of the LLM.
            revision: branch, tag or commit of the LLM on the Hub.
            graph_encoder: a pretrained encoder, whose configuration and weights are copied, such
                as that of [`MoraGraphEncoder.from_moleculestm`]; a new one when not given.
            kwargs: fields of [`MoraConfig`]; everything else goes to `from_pretrained` of the LLM
                (`dtype`, `device_map`, `attn_implementation`, `quantization_config`, `token`, …).

        Raises:
            OSError: if the base is not found.
            ValueError: if `target_modules` matches nothing, or a value is out of its range.
        """
        if graph_encoder is not None:
            if "graph_config" in kwargs:
                raise ValueError("graph_encoder has its own graph_config: give only one of them.")
            kwargs["graph_config"] = copy.deepcopy(graph_encoder.config)
        names = {field.name for field in fields(MoraConfig)} - {"dtype"}
        mora_kwargs = {key: kwargs.pop(key) for key in list(kwargs) if key in names}
        hub_kwargs = {key: kwargs[key] for key in HUB_KWARGS if key in kwargs}
        text_config = load_base_config(base_name_or_path, revision, **hub_kwargs)
        config = MoraConfig(
            text_config=text_config,
            base_model_name_or_path=str(base_name_or_path),
            base_revision=resolve_base_revision(base_name_or_path, revision, **hub_kwargs),
            **mora_kwargs,
        )
        model, _ = cls._load_base(config, **kwargs)
        if graph_encoder is not None:
            model.graph_encoder.load_state_dict(graph_encoder.state_dict())
        if not any(parameter.is_meta for parameter in model.language_model.parameters()):
            model.config.base_fingerprint = base_fingerprint(model.language_model)
        return model

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *model_args: Any,
        config: MoraConfig | None = None,
        **kwargs: Any,
    ) -> "MoraForCausalLM":
        """Load a MoRA checkpoint, and the base model that it names unless it holds it itself.

        `base_model_name_or_path=…` (and `base_revision=…`) loads the base from another place.

        Raises:
            OSError: if the checkpoint or its base is missing, truncated or corrupt.
            ValueError: if the base is not the one that the checkpoint was trained on.
        """
        hub_kwargs = {key: kwargs.pop(key) for key in HUB_KWARGS if key in kwargs}
        return_info = kwargs.pop("output_loading_info", False)
        if config is None:
            config, kwargs = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, return_unused_kwargs=True, **hub_kwargs, **kwargs
            )
        if config.includes_base:
            model, info = cls._load_with_base_included(
                pretrained_model_name_or_path, *model_args, config=config, **hub_kwargs, **kwargs
            )
        else:
            model, info = cls._load_adapter_only(
                pretrained_model_name_or_path, config, hub_kwargs, *model_args, **kwargs
            )
        model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        return (model, info) if return_info else model

    @classmethod
    def _load_with_base_included(
        cls, name_or_path: str, *model_args: Any, **kwargs: Any
    ) -> tuple["MoraForCausalLM", dict]:
        try:
            model, info = super().from_pretrained(
                name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise OSError(
                f"The weights in {name_or_path} are truncated or corrupt ({error}). Download or "
                "copy them again, or load an earlier checkpoint."
            ) from error
        if info["missing_keys"]:
            raise ValueError(
                f"The weights in {name_or_path} are incomplete: missing "
                f"{', '.join(sorted(info['missing_keys'])[:4])}."
            )
        model._prepare_adapter()
        return model, info

    @classmethod
    def _load_adapter_only(
        cls,
        name_or_path: str,
        config: MoraConfig,
        hub_kwargs: dict[str, Any],
        *model_args: Any,
        variant: str | None = None,
        adapter_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple["MoraForCausalLM", dict]:
        if config.base_model_name_or_path is None:
            raise ValueError(
                f"{name_or_path} holds only an adapter and names no base model: give it with "
                "base_model_name_or_path=…"
            )
        tensors = load_adapter_tensors(name_or_path, variant, **hub_kwargs)
        # The checkpoint's own revision, subfolder and so on say nothing about where the base is.
        access = {k: v for k, v in hub_kwargs.items() if k not in ("revision", "subfolder")}
        base_config = load_base_config(
            config.base_model_name_or_path, config.base_revision, **access
        )
        check_base_config(base_config, config)
        vocab_size = config.text_config.vocab_size
        config.text_config.vocab_size = base_config.get_text_config().vocab_size
        model, info = cls._load_base(config, *model_args, **access, **kwargs)
        check_base_fingerprint(
            model.language_model, config, quantized=getattr(model, "hf_quantizer", None) is not None
        )
        if config.resized_embeddings:
            model.resize_token_embeddings(vocab_size, mean_resizing=False)
        check_adapter_tensors(tensors, model._adapter_tensors(model.state_dict()), name_or_path)
        model.load_state_dict(tensors, strict=False)
        with suppress(OSError):  # A checkpoint without one keeps the base's.
            model.generation_config = GenerationConfig.from_pretrained(name_or_path, **hub_kwargs)
        return model, info

    @classmethod
    def _load_base(
        cls, config: MoraConfig, *model_args: Any, **kwargs: Any
    ) -> tuple["MoraForCausalLM", dict]:
        """Load the base's own checkpoint into `language_model`; the adapter is freshly made."""
        model, info = super().from_pretrained(
            config.base_model_name_or_path,
            *model_args,
            config=config,
            revision=config.base_revision or "main",
            output_loading_info=True,
            **kwargs,
        )
        model._prepare_adapter()
        return model, info

    def save_pretrained(
        self,
        save_directory: str,
        save_base: bool | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the adapter, or a self-contained checkpoint.

        Args:
            save_directory: folder to write to.
            save_base: whether the frozen LLM's weights are saved too; as the model was loaded when
                not given, which for a new model is the adapter only.
            state_dict: tensors to save instead of the model's own, as the Trainer gives them.
            kwargs: passed on to `PreTrainedModel.save_pretrained`.
        """
        if save_base is None:
            save_base = self.config.includes_base
        if save_base and self.tuner.state.merged:
            raise ValueError("A molecule is merged into the base: leave `merged` before saving it.")
        if state_dict is None:
            state_dict = self.state_dict()
        if not save_base:
            state_dict = self._adapter_tensors(state_dict)
        includes_base = self.config.includes_base
        self.config.includes_base = save_base
        try:
            super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        finally:
            self.config.includes_base = includes_base

    def _adapter_tensors(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What an adapter-only checkpoint holds; with the embeddings, if they were resized."""
        kept = drop_base_keys(state_dict)
        if self.config.resized_embeddings:
            embeddings = {self.get_input_embeddings(), self.get_output_embeddings()}
            names = tuple(
                f"{name}." for name, module in self.named_modules() if module in embeddings
            )
            kept |= {name: t for name, t in state_dict.items() if name.startswith(names)}
        return kept

    def encode_molecules(
        self,
        graph_atoms: torch.Tensor,
        graph_atom_mask: torch.Tensor,
        graph_bonds: torch.Tensor,
        graph_bond_features: torch.Tensor,
        graph_bond_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Generate the weights of a batch of molecules, in float32 whatever the base's dtype.

        Args:
            graph_atoms: [B, N, 9] atom features.
            graph_atom_mask: [B, N], True on real atoms; all False: no molecule in this row.
            graph_bonds: [B, 2, E] atom indices, both directions.
            graph_bond_features: [B, E, 3] bond features.
            graph_bond_mask: [B, E], True on real bonds.

        Returns:
            [B, P] weights, to be given as `mora_weights` to `forward` or `generate`.
        """
        with torch.autocast(device_type=graph_atoms.device.type, enabled=False):
            atoms = self.graph_encoder(
                graph_atoms, graph_atom_mask, graph_bonds, graph_bond_features, graph_bond_mask
            )
            return self.weight_generator(atoms, graph_atom_mask)

    def _weights_for(
        self, graph: dict[str, torch.Tensor | None], mora_weights: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The given weights, or those of the given graphs, or None for the base model alone."""
        given = [name for name, tensor in graph.items() if tensor is not None]
        if self.tuner.state.merged and (given or mora_weights is not None):
            raise ValueError(
                "A molecule is merged into the base: inside `merged` give text alone, without "
                "molecules and mora_weights."
            )
        if mora_weights is not None or not given or not self.tuner.state.enabled:
            return mora_weights
        if len(given) < len(graph):
            missing = ", ".join(name for name in graph if name not in given)
            raise ValueError(f"Of the graph tensors, {missing} is missing: give all or none.")
        return self.encode_molecules(**graph)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        graph_atoms: torch.Tensor | None = None,
        graph_atom_mask: torch.Tensor | None = None,
        graph_bonds: torch.Tensor | None = None,
        graph_bond_features: torch.Tensor | None = None,
        graph_bond_mask: torch.Tensor | None = None,
        mora_weights: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the base model with each row's own weights.

        Args:
            input_ids, attention_mask: [B, T] text, as for the base model.
            labels: [B, T]; the base model computes the loss.
            graph_atoms, …: the molecules, see [`encode_molecules`]; without them the base runs.
            mora_weights: [B, P] (or [1, P] for one molecule in all rows) weights from
                [`encode_molecules`], instead of the graphs.
            kwargs: passed on to the base model.
        """
        graph = {
            "graph_atoms": graph_atoms,
            "graph_atom_mask": graph_atom_mask,
            "graph_bonds": graph_bonds,
            "graph_bond_features": graph_bond_features,
            "graph_bond_mask": graph_bond_mask,
        }
        mora_weights = self._weights_for(graph, mora_weights)
        inputs = input_ids if input_ids is not None else inputs_embeds
        if mora_weights is not None and len(mora_weights) not in (1, len(inputs)):
            raise ValueError(
                f"{len(mora_weights)} molecules were given for {len(inputs)} rows of text: give "
                "one per row (None for a row without a molecule)."
            )
        optional = {"position_ids": position_ids, "past_key_values": past_key_values}
        kwargs.update({name: value for name, value in optional.items() if value is not None})
        with self.tuner.state.use(mora_weights):
            return self.language_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                labels=labels,
                **kwargs,
            )

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *args: Any,
        mora_weights: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate`, with each row's weights generated once at its start.

        One flat tensor is handed on, which `generate` repeats for beams and return sequences.

        Args:
            inputs: [B, T] `input_ids`, which may also be given by that name.
            args: passed on to `GenerationMixin.generate`.
            mora_weights: [B, P] (or [1, P] for one molecule in all rows) weights from
                [`encode_molecules`], instead of the graphs.
            kwargs: the `graph_…` tensors, the text tensors and all settings of generation.
        """
        graph = {name: kwargs.pop(name, None) for name in GRAPH_INPUTS}
        mora_weights = self._weights_for(graph, mora_weights)
        if mora_weights is not None:
            given = (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
            rows = next((len(text) for text in given if text is not None), 1)
            # One molecule for all rows must become one per row before beams repeat the rows.
            kwargs["mora_weights"] = mora_weights.expand(max(rows, len(mora_weights)), -1)
        return super().generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The base model's own preparation, which passes `mora_weights` through."""
        return self.language_model.prepare_inputs_for_generation(*args, **kwargs)

    def _supports_logits_to_keep(self) -> bool:
        return self.language_model._supports_logits_to_keep()

    @contextmanager
    def merged(
        self, molecule: Any, feature_extractor: MoleculeFeatureExtractor | None = None
    ) -> Iterator["MoraForCausalLM"]:
        """Inside this context one molecule's weights are part of the base model.

        Many questions about one molecule then cost what they cost the base model. Give them as
        text alone. In bfloat16 the merged weights are rounded, so that logits differ a little from
        those outside. Afterwards the base is restored bit by bit.

        Args:
            molecule: SMILES, SELFIES, InChI or RDKit `Mol`; or its [1, P] weights from
                [`encode_molecules`].
            feature_extractor: the checkpoint's own; the default settings when not given.

        Raises:
            MoleculeError: the molecule cannot become a graph.
            ValueError: not one molecule is given; a molecule is merged already or the adapter is
                disabled; or the base's weights cannot be changed (`"mlp"` targets, a quantised or
                offloaded base).
        """
        if self.tuner.state.merged or not self.tuner.state.enabled:
            raise ValueError(
                "`merged` works neither inside another `merged` nor inside `disable_adapter`."
            )
        weights = molecule
        if not isinstance(molecule, torch.Tensor):
            extract = feature_extractor or MoleculeFeatureExtractor()
            with torch.no_grad():
                weights = self.encode_molecules(
                    **extract(molecule, return_tensors="pt").to(self.device)
                )
        if weights.shape != (1, self.tuner.weights_size):
            raise ValueError(
                f"`merged` takes one molecule, [1, {self.tuner.weights_size}] weights, but got "
                f"{list(weights.shape)}."
            )
        with merged_weights(self.tuner, self.language_model, weights):
            yield self

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside this context the model is the base model, bit by bit."""
        if self.tuner.state.merged:
            raise ValueError("A molecule is merged into the base: leave `merged` first.")
        before = self.tuner.state.enabled
        self.tuner.state.enabled = False
        try:
            yield
        finally:
            self.tuner.state.enabled = before

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained, in PEFT's form."""
        trainable = self.num_parameters(only_trainable=True)
        total = self.num_parameters()
        print(
            f"trainable params: {trainable:,} || all params: {total:,} || "
            f"trainable%: {100 * trainable / total:.4f}"
        )

    def train(self, mode: bool = True) -> "MoraForCausalLM":
        """`nn.Module.train`, but a frozen graph encoder stays in evaluation mode (BatchNorm)."""
        super().train(mode)
        if self.config.freeze_graph_encoder:
            self.graph_encoder.eval()
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, **kwargs: Any
    ) -> None:
        checkpoint = gradient_checkpointing_func or torch.utils.checkpoint.checkpoint
        super()._set_gradient_checkpointing(
            enable, MoraCheckpoint(checkpoint, self.tuner.state), **kwargs
        )

    def get_input_embeddings(self) -> nn.Module:
        """The base model's input embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the base model's input embeddings."""
        self.language_model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the base model's vocabulary; adapter-only checkpoints then hold the embeddings."""
        before = self.config.text_config.vocab_size
        embeddings = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        if self.config.text_config.vocab_size != before:
            self.config.resized_embeddings = True
        return embeddings

    def get_output_embeddings(self) -> nn.Module | None:
        """The base model's output head."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the base model's output head."""
        self.language_model.set_output_embeddings(new_embeddings)


__all__ = ["MoraForCausalLM", "MoraPreTrainedModel"]
