# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Making, loading and saving MoRA models: the base from its own place, the adapter beside it."""

import copy
import difflib
from contextlib import suppress
from dataclasses import fields
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers import initialization as init
from transformers.integrations import is_fsdp_enabled

from .base_models_mora import resolve_base
from .checkpoint_mora import (
    HUB_KWARGS,
    base_fingerprint,
    check_adapter_tensors,
    check_base_config,
    check_base_fingerprint,
    drop_base_keys,
    has_comparable_weights,
    load_adapter_tensors,
    load_base_config,
    resolve_base_revision,
)
from .configuration_mora import MoraConfig
from .graph_encoder_mora import MoraGraphEncoder
from .sharding_mora import (
    cast_zero3_parameters,
    gathered,
    materialise,
    whole_tensor,
    without_fsdp_class,
)


class MoraPreTrainedModel(PreTrainedModel):
    """How MoRA models are initialised, loaded and saved, and what they can do.

    A subclass has a `language_model`, a `graph_encoder`, a `weight_generator` and a `tuner`.
    """

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

    @property
    def dtype(self) -> torch.dtype:
        """The base's, since the adapter is float32 whatever the base is."""
        return self.language_model.dtype

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

    def _finish_loading(self) -> None:
        """What is left to do when `PreTrainedModel.from_pretrained` has read the files."""
        cast_zero3_parameters(self.language_model, self.config.dtype)
        if is_fsdp_enabled():
            materialise(self.graph_encoder, self.weight_generator, self.tuner)
        self._prepare_adapter()

    @classmethod
    def from_base(
        cls,
        base_name_or_path: str,
        revision: str | None = None,
        graph_encoder: MoraGraphEncoder | None = None,
        **kwargs: Any,
    ) -> "MoraPreTrainedModel":
        """Make a new, untrained MoRA around a pretrained decoder LLM.

        Args:
            base_name_or_path: Hub id or folder of the LLM; or `"smollm2"` or another one of
                `base_models_mora.WHEEL_BASES`, which need no network.
            revision: branch, tag or commit of the LLM on the Hub.
            graph_encoder: a pretrained encoder, whose configuration and weights are copied, such
                as that of [`MoraGraphEncoder.from_moleculestm`]; a new one when not given.
            kwargs: fields of [`MoraConfig`]; everything else goes to `from_pretrained` of the LLM
                (`dtype`, `device_map`, `attn_implementation`, `quantization_config`, `token`, …).

        Raises:
            OSError: if the base is not found.
            ValueError: if `target_modules` matches nothing, or a value is out of its range.
        """
        if "subfolder" in kwargs:
            raise ValueError(
                f"subfolder={kwargs['subfolder']!r}: a checkpoint names its base without one. Copy "
                "the base into a folder or repository of its own."
            )
        if graph_encoder is not None:
            if "graph_config" in kwargs:
                raise ValueError("graph_encoder has its own graph_config: give only one of them.")
            kwargs["graph_config"] = copy.deepcopy(graph_encoder.config)
            # The weights are copied too, so where they lay is nobody's business any more.
            kwargs["graph_config"].name_or_path = ""
        names = {field.name for field in fields(MoraConfig)} - {"dtype"}
        _check_names(kwargs, names)
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
            encoder_tensors = graph_encoder.state_dict(keep_vars=True)
            tensors = {name: whole_tensor(t) for name, t in encoder_tensors.items()}
            with gathered(model.graph_encoder.parameters(), modify=True):
                model.graph_encoder.load_state_dict(tensors)
        if has_comparable_weights(model):
            model.config.base_fingerprint = base_fingerprint(model.language_model)
        return model

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *model_args: Any,
        config: MoraConfig | None = None,
        **kwargs: Any,
    ) -> "MoraPreTrainedModel":
        """Load a MoRA checkpoint, and the base model that it names unless it holds it itself.

        `base_model_name_or_path=…` (and `base_revision=…`) loads the base from another place.

        Raises:
            OSError: if the checkpoint or its base is missing, truncated or corrupt.
            ValueError: if the base is not the one that the checkpoint was trained on.
        """
        hub_kwargs = {key: kwargs.pop(key) for key in HUB_KWARGS if key in kwargs}
        return_info = kwargs.pop("output_loading_info", False)
        if config is None:
            try:
                config, kwargs = cls.config_class.from_pretrained(
                    pretrained_model_name_or_path, return_unused_kwargs=True, **hub_kwargs, **kwargs
                )
            except OSError as error:
                raise OSError(
                    f"{str(pretrained_model_name_or_path)!r} is neither a folder with a MoRA "
                    f"checkpoint nor one on the Hub that can be read from here: {error}"
                ) from error
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
    ) -> tuple["MoraPreTrainedModel", dict]:
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
        model._finish_loading()
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
    ) -> tuple["MoraPreTrainedModel", dict]:
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
        check_base_fingerprint(model)
        if config.resized_embeddings:
            model.resize_token_embeddings(vocab_size, mean_resizing=False)
        expected = model._adapter_tensors(model.state_dict(keep_vars=True))
        with gathered(expected.values(), modify=True):
            check_adapter_tensors(tensors, expected, name_or_path)
            model.load_state_dict(tensors, strict=False)
        with suppress(OSError):  # A checkpoint without one keeps the base's.
            model.generation_config = GenerationConfig.from_pretrained(name_or_path, **hub_kwargs)
        return model, info

    @classmethod
    def _load_base(
        cls, config: MoraConfig, *model_args: Any, **kwargs: Any
    ) -> tuple["MoraPreTrainedModel", dict]:
        """Load the base's own checkpoint into `language_model`; the adapter is freshly made."""
        model, info = super().from_pretrained(
            resolve_base(config.base_model_name_or_path),
            *model_args,
            config=config,
            revision=config.base_revision or "main",
            output_loading_info=True,
            **kwargs,
        )
        model._finish_loading()
        return model, info

    def save_pretrained(
        self,
        save_directory: str,
        save_base: bool | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the adapter, or a self-contained checkpoint.

        Of a model that is cut up by ZeRO-3 or FSDP2, all processes have to take part unless
        `state_dict` is given, each with its own `is_main_process`.

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
            state_dict = self.whole_state_dict(save_base)
        if not save_base:
            state_dict = self._adapter_tensors(state_dict)
        includes_base = self.config.includes_base
        self.config.includes_base = save_base
        try:
            with without_fsdp_class(self):
                super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        finally:
            self.config.includes_base = includes_base

    def whole_state_dict(self, save_base: bool | None = None) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint, put together where ZeRO-3 or FSDP2 has cut them up.

        All processes have to take part. The tensors of a model that is cut up are copies.

        Args:
            save_base: see `save_pretrained`.
        """
        save_base = self.config.includes_base if save_base is None else save_base
        tensors = self.state_dict(keep_vars=True)
        if not save_base:
            tensors = self._adapter_tensors(tensors)
        return {name: whole_tensor(tensor) for name, tensor in tensors.items()}

    def _adapter_tensors(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What an adapter-only checkpoint holds; with the embeddings, if they were resized."""
        kept = drop_base_keys(state_dict)
        if self.config.resized_embeddings:
            embeddings = {self.get_input_embeddings(), self.get_output_embeddings()}
            names = tuple(
                f"{name}." for name, module in self.named_modules() if module in embeddings
            )
            kept |= {
                name: t
                for name, t in state_dict.items()
                if name.startswith(names) and name not in self.all_tied_weights_keys
            }
        return kept

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


def _check_names(given: dict[str, Any], names: set[str]) -> None:
    """Raise for what is most likely a slip in a setting's name, or PEFT's name for it."""
    of_peft = {"r": "rank", "lora_rank": "rank", "lora_alpha": "alpha"}
    for name in given.keys() - names:
        near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.75)
        meant = of_peft.get(name) or (near[0] if near else None)
        if meant is not None:
            raise TypeError(f"{name}={given[name]!r} is no setting: did you mean {meant!r}?")


__all__ = ["MoraPreTrainedModel"]
