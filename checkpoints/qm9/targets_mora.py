# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Which modules of the base model are adapted: PEFT's ways to name them, and a few more."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .configuration_mora import MoraConfig


@dataclass(frozen=True)
class Target:
    """A module of the base model that gets a delta.

    Attributes:
        name: its path in the base model, such as `model.layers.3.self_attn.q_proj`.
        layer: index of its decoder layer.
        kind: its path inside the layer, such as `self_attn.q_proj`.
        d_in, d_out: sizes of its input and output.
        factor_shape: shape of the factor that is generated for each molecule.
        is_linear: whether it is one linear layer, and not a whole MLP.
    """

    name: str
    layer: int
    kind: str
    d_in: int
    d_out: int
    factor_shape: tuple[int, int]
    is_linear: bool

    @property
    def group(self) -> tuple[str, tuple[int, int]]:
        """Targets of one group share a generator head; some families size layers differently."""
        return self.kind, self.factor_shape


def find_targets(language_model: PreTrainedModel, config: MoraConfig) -> list[Target]:
    """List the modules of `language_model` that `config` selects, sorted by kind and layer.

    Raises:
        ValueError: if a name or a layer matches nothing (the nearest module names are in the
            message), or a matching module is neither a linear layer nor an MLP, or is a single
            expert, which does not see every token of a row.
    """
    matcher = _Matcher(language_model, config)
    modules = dict(language_model.named_modules())
    check_layers(config, modules)
    if config.target_modules is not None:
        check_target_modules(matcher.target_modules, modules)
    targets = [
        _make_target(name, module, config) for name, module in modules.items() if matcher(name)
    ]
    if not targets:
        raise ValueError(
            f"target_modules={matcher.target_modules!r}, layers_to_transform="
            f"{config.layers_to_transform} and layer_stride={config.layer_stride} together match "
            "no module of the base model."
        )
    return sorted(targets, key=lambda target: (*target.group, target.layer))


class _Matcher:
    """PEFT's matching of `target_modules`, plus `layer_stride` and "all-linear" with layers."""

    def __init__(self, language_model: PreTrainedModel, config: MoraConfig):
        self.layer_stride = config.layer_stride
        self.layers_to_transform = config.layers_to_transform
        self.exclude_modules = None
        self.target_modules = config.target_modules
        if self.target_modules is None:
            self.target_modules = default_target_modules(language_model)
        if self.target_modules == "all-linear":
            self.target_modules = linear_kinds(language_model)

    def __call__(self, name: str) -> bool:
        if not check_target_module_exists(self, name):
            return False
        layer = layer_of(name)
        if layer is None:
            return False
        return self.layer_stride is None or (layer + 1) % self.layer_stride == 0


def default_target_modules(language_model: PreTrainedModel) -> list[str]:
    """PEFT's default LoRA targets for the model's type, such as `["q_proj", "v_proj"]` for llama.

    Raises:
        ValueError: PEFT has none; the message lists the base's linear modules.
    """
    model_type = language_model.config.model_type
    if model_type not in TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING:
        raise ValueError(
            f"PEFT has no default target modules for the model type {model_type!r}: give "
            f'target_modules, "all-linear" or some of {", ".join(linear_kinds(language_model))}.'
        )
    return TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[model_type]


def linear_kinds(language_model: PreTrainedModel) -> list[str]:
    """Paths inside a decoder layer of all linear modules except single experts.

    Not whole names: those would bypass `layers_to_transform`.
    """
    return sorted(
        {
            kind_of(name)
            for name, module in language_model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D))
            and layer_of(name) is not None
            and not is_expert(name)
        }
    )


def is_expert(name: str) -> bool:
    """Whether a module belongs to one expert of a mixture, which sees only some tokens of a row."""
    return ".experts." in name


def check_layers(config: MoraConfig, names: Iterable[str]) -> None:
    """Raise a ValueError if a chosen layer does not exist in modules of these names."""
    number = 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)
    chosen = config.layers_to_transform
    chosen = [chosen] if isinstance(chosen, int) else chosen or []
    if any(not 0 <= layer < number for layer in chosen):
        raise ValueError(
            f"layers_to_transform={config.layers_to_transform}: the base has layers 0 to "
            f"{number - 1}."
        )
    if config.layer_stride is not None and config.layer_stride > number:
        raise ValueError(
            f"layer_stride={config.layer_stride} chooses no layer: the base has only {number}."
        )


def check_target_modules(wanted: str | list[str], modules: dict[str, nn.Module]) -> None:
    """Raise unless `wanted` (a regular expression or name endings) matches modules in layers.

    Args:
        wanted: the regular expression, or the list, each entry of which has to match.
        modules: the base's modules by name.

    Raises:
        ValueError: names what does not match, and the nearest module names.
    """
    if isinstance(wanted, str):
        try:
            matches = {wanted: [name for name in modules if re.fullmatch(wanted, name)]}
        except re.error as error:
            raise ValueError(
                f"target_modules={wanted!r} is not a regular expression: {error}."
            ) from error
    else:
        matches = {w: [name for name in modules if _ends_with(name, w)] for w in wanted}
    for entry, names in matches.items():
        if names and not any(layer_of(name) is not None for name in names):
            raise ValueError(
                f"target_modules: {entry!r} matches only {', '.join(names)}, in no decoder layer. "
                "MoRA adapts modules of the layers."
            )
    unmatched = [entry for entry, names in matches.items() if not names]
    if unmatched:
        leaves = {n.rsplit(".", 1)[-1] for n, m in modules.items() if hasattr(m, "weight")}
        near = {n for w in unmatched for n in difflib.get_close_matches(w, leaves, cutoff=0.4)}
        hint = " A string is a regular expression for whole names: give name endings as a list."
        raise ValueError(
            f"target_modules: {', '.join(map(repr, unmatched))} matches no module of the base "
            f"model.{hint if isinstance(wanted, str) else ''} Nearest module names: "
            f"{', '.join(sorted(near or leaves))}."
        )


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def layer_of(name: str) -> int | None:
    """Index of the decoder layer in a module's path, or None if it is in no layer."""
    match = re.search(r"\.(\d+)\.", name)
    return int(match[1]) if match else None


def kind_of(name: str) -> str:
    """A module's path inside its decoder layer, such as `self_attn.q_proj`."""
    return name.split(f".{layer_of(name)}.", 1)[1]


def _make_target(name: str, module: nn.Module, config: MoraConfig) -> Target:
    if is_expert(name):
        raise ValueError(
            f"The target module {name} belongs to one expert: it sees some tokens of all rows "
            "mixed together, so a row's own weights cannot be added. Adapt the attention instead."
        )
    is_linear = isinstance(module, Conv1D) or hasattr(module, "in_features")
    if isinstance(module, Conv1D):
        d_in, d_out = module.weight.shape
    elif is_linear:
        d_in, d_out = module.in_features, module.out_features
    elif name.endswith(".mlp"):
        d_in = d_out = config.text_config.hidden_size
    else:
        raise ValueError(
            f"The target module {name} is a {type(module).__name__}: MoRA adapts linear layers and "
            "`mlp`. Name the linear layers inside it in target_modules."
        )
    rows = config.core_dim if config.generator_type == "core" else d_in
    return Target(
        name=name,
        layer=layer_of(name),
        kind=kind_of(name),
        d_in=d_in,
        d_out=d_out,
        factor_shape=(rows, config.rank),
        is_linear=is_linear,
    )


__all__ = ["Target", "find_targets"]
