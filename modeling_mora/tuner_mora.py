# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The tuner: finds the modules to adapt and adds each sample's own delta to their outputs."""

import difflib
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
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
        ValueError: if nothing matches (the nearest module names are in the message), or if a
            matching module is neither a linear layer nor an MLP, or a single expert, which does
            not see every token of a row.
    """
    matcher = _Matcher(language_model, config)
    modules = dict(language_model.named_modules())
    targets = [
        _make_target(name, module, config) for name, module in modules.items() if matcher(name)
    ]
    if not targets:
        raise ValueError(_no_match_message(config, matcher, modules))
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


def adapted_module(language_model: PreTrainedModel, target: Target) -> nn.Module:
    """The module of `target`, also where PEFT has wrapped it and may unwrap it again."""
    module = language_model.get_submodule(target.name)
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _no_match_message(config: MoraConfig, matcher: _Matcher, modules: dict[str, nn.Module]) -> str:
    wanted = matcher.target_modules
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    leaves = sorted(
        {name.rsplit(".", 1)[-1] for name, module in modules.items() if hasattr(module, "weight")}
    )
    near = sorted(
        {near for w in wanted for near in difflib.get_close_matches(w, leaves, cutoff=0.4)}
    )
    layers = sorted({layer for name in modules if (layer := layer_of(name)) is not None})
    where = ""
    if config.layers_to_transform is not None or config.layer_stride is not None:
        where = (
            f" with layers_to_transform={config.layers_to_transform} and "
            f"layer_stride={config.layer_stride} (the base has layers {layers[0]} to {layers[-1]})"
            if layers
            else ""
        )
    return (
        f"target_modules={config.target_modules or wanted} matches no module of the base model "
        f"({config.text_config.model_type}){where}. Nearest module names: "
        f"{', '.join(near or leaves)}."
    )


class MoraState:
    """The per-sample weights that the hooks read while a forward pass runs."""

    def __init__(self) -> None:
        self.weights: torch.Tensor | None = None
        self.enabled = True
        self.merged = False
        self.lock = threading.RLock()

    @contextmanager
    def use(self, weights: torch.Tensor | None) -> Iterator[None]:
        """Let the hooks read `weights` [B, P] (None: the base model alone) inside the block.

        Threads that share a model take turns, so that none sees another's molecules.
        """
        with nullcontext() if torch.compiler.is_compiling() else self.lock:
            before = self.weights
            self.weights = weights if self.enabled else None
            try:
                yield
            finally:
                self.weights = before

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        self.lock = threading.RLock()


class MoraDelta(nn.Module):
    """The shared matrices of one adapted module: `alpha / rank * ((x A) C_i) B`.

    In the dense form A is generated, and only B is here.
    """

    def __init__(self, target: Target, config: MoraConfig):
        super().__init__()
        self.scaling = config.alpha / config.rank
        if config.generator_type == "core":
            self.A = nn.Parameter(torch.empty(target.d_in, config.core_dim))
        else:
            self.register_parameter("A", None)
        self.B = nn.Parameter(torch.empty(config.rank, target.d_out))

    def forward(self, inputs: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """[B, T, d_in] inputs and [B, rows, rank] factors to the [B, T, d_out] delta."""
        hidden = inputs.to(self.B).reshape(len(factor), -1, inputs.shape[-1])
        if self.A is not None:
            hidden = hidden @ self.A
        delta = (hidden @ factor.to(hidden)) @ self.B
        return self.scaling * delta.reshape(*inputs.shape[:-1], -1)

    def reset_parameters(self) -> None:
        """PEFT's initialisation of LoRA: A uniform in ±1/sqrt(d_in), B zero."""
        if self.A is not None:
            bound = 1 / math.sqrt(self.A.shape[0])
            init.uniform_(self.A, -bound, bound)
        init.zeros_(self.B)


class DeltaHook:
    """Forward hook that adds a module's per-sample delta to its output.

    A class and not a closure, so that a model with hooks can be copied and pickled.
    """

    def __init__(self, state: MoraState, delta: MoraDelta, target: Target, start: int):
        self.state = state
        self.delta = delta
        self.shape = target.factor_shape
        self.start = start

    def __call__(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        if self.state.weights is None:
            return None
        inputs = args[0] if args else next(iter(kwargs.values()))
        rows, rank = self.shape
        factor = self.state.weights[:, self.start : self.start + rows * rank].view(-1, rows, rank)
        return (output + self.delta(inputs, factor).to(output.device)).to(output.dtype)


class MoraCheckpoint:
    """Activation checkpointing that hands the per-sample weights to the recomputation.

    The recomputation runs in the backward pass, when `MoraState` is already cleared; so the
    weights become an explicit input of the checkpointed call, which also gives them gradients
    with `use_reentrant=True`.
    """

    def __init__(self, checkpoint: Callable, state: MoraState):
        self.checkpoint = checkpoint
        self.state = state

    def __call__(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.checkpoint(
            _WithWeights(function, self.state), self.state.weights, *args, **kwargs
        )


class _WithWeights:
    def __init__(self, function: Callable, state: MoraState):
        self.function = function
        self.state = state

    def __call__(self, weights: torch.Tensor | None, *args: Any, **kwargs: Any) -> Any:
        with self.state.use(weights):
            return self.function(*args, **kwargs)


class MoraTuner(nn.Module):
    """Holds the deltas of all targets and hooks them onto the base model, whose keys stay as is.

    Args:
        config: the model's configuration.
        targets: the modules to adapt, from [`find_targets`].
    """

    def __init__(self, config: MoraConfig, targets: list[Target]):
        super().__init__()
        self.targets = targets
        self.scaling = config.alpha / config.rank
        self.state = MoraState()
        self.deltas = nn.ModuleDict(
            {target.name.replace(".", "_"): MoraDelta(target, config) for target in targets}
        )

    @property
    def weights_size(self) -> int:
        """P, the number of generated values per molecule."""
        return sum(math.prod(target.factor_shape) for target in self.targets)

    @torch.no_grad()
    def lora_matrices(
        self, weights: torch.Tensor
    ) -> Iterator[tuple[Target, torch.Tensor, torch.Tensor]]:
        """One molecule's weights as a static LoRA: `alpha / rank * (x A) B` is the delta.

        Args:
            weights: [P] or [1, P] weights of one molecule.

        Yields:
            Each target with its A [d_in, rank] and B [rank, d_out].
        """
        sizes = [math.prod(target.factor_shape) for target in self.targets]
        factors = weights.flatten().split(sizes)
        for target, delta, factor in zip(self.targets, self.deltas.values(), factors, strict=True):
            factor = factor.view(target.factor_shape).to(delta.B.device)
            yield target, factor if delta.A is None else delta.A @ factor, delta.B

    def attach(self, language_model: PreTrainedModel) -> None:
        """Hook the deltas onto `language_model`, each on its module's device.

        Hooks of an earlier call are replaced.
        """
        for module in language_model.modules():
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, DeltaHook):
                    del module._forward_hooks[key]
                    module._forward_hooks_with_kwargs.pop(key, None)
        start = 0
        for target, delta in zip(self.targets, self.deltas.values(), strict=True):
            hook = DeltaHook(self.state, delta, target, start)
            module = adapted_module(language_model, target)
            # Layers of some quantisations have buffers only.
            tensor = next(chain(module.parameters(), module.buffers()))
            # Meta: offloaded, or not loaded yet.
            if not tensor.is_meta and not delta.B.is_meta:
                delta.to(tensor.device)
            module.register_forward_hook(hook, with_kwargs=True)
            start += math.prod(target.factor_shape)


__all__ = ["MoraTuner", "Target", "find_targets"]
