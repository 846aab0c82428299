# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The tuner: adds each sample's own delta to the outputs of the adapted modules."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_mora import MoraConfig
from .targets_mora import Target


class MoraState:
    """The per-sample weights that the hooks read while a forward pass runs.

    Args:
        sizes: how many of a sample's weights belong to each hook, in order.
        scaling: alpha / rank.
    """

    def __init__(self, sizes: list[int], scaling: float) -> None:
        self.sizes = sizes
        self.scaling = scaling
        self.weights: torch.Tensor | None = None
        self.factors: tuple[torch.Tensor, ...] | None = None
        self.enabled = True
        self.merged = False
        self.lock = threading.RLock()

    @contextmanager
    def use(self, weights: torch.Tensor | None) -> Iterator[None]:
        """Let the hooks read `weights` [B, P] (None: the base model alone) inside the block.

        Threads that share a model take turns, so that none sees another's molecules.
        """
        with self.turn():
            before = self.weights, self.factors
            self.weights = weights if self.enabled else None
            # Once for all hooks: done by each, it is a tenth of the kernels of a training step.
            self.factors = (
                None
                if self.weights is None
                else (self.scaling * self.weights).split(self.sizes, dim=1)
            )
            try:
                yield
            finally:
                self.weights, self.factors = before

    def turn(self) -> AbstractContextManager:
        """Hold the model for this thread; compiled code has nothing to wait for."""
        return nullcontext() if torch.compiler.is_compiling() else self.lock

    def __getstate__(self) -> dict[str, Any]:
        if self.merged:
            raise ValueError("A molecule is merged into the base: leave `merged` before copying.")
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        self.lock = threading.RLock()


class MoraDelta(nn.Module):
    """The shared matrices of one adapted module: `((x A) C_i) B`, with C_i times alpha / rank.

    In the dense form A is generated, and only B is here. A and B are float32 whatever the base is;
    the products are computed in the number format of the inputs, as the base's own are.
    """

    def __init__(self, target: Target, config: MoraConfig):
        super().__init__()
        if config.generator_type == "core":
            self.A = nn.Parameter(torch.empty(target.d_in, config.core_dim))
        else:
            self.register_parameter("A", None)
        self.B = nn.Parameter(torch.empty(config.rank, target.d_out))

    def forward(self, inputs: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """[B, T, d_in] inputs and [B, rows, rank] factors to the [B, T, d_out] delta."""
        hidden = inputs.reshape(len(factor), -1, inputs.shape[-1])
        if self.A is not None:
            hidden = hidden @ self.A.to(hidden)
        low_rank = hidden @ factor.to(hidden)
        return (low_rank @ self.B.to(hidden)).reshape(*inputs.shape[:-1], -1)

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

    def __init__(self, state: MoraState, delta: MoraDelta, target: Target, index: int):
        self.state = state
        self.delta = delta
        self.shape = target.factor_shape
        self.index = index

    def __call__(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        if self.state.factors is None:
            return None
        inputs = args[0] if args else next(iter(kwargs.values()))
        factor = self.state.factors[self.index].view(-1, *self.shape)
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


def adapted_module(language_model: PreTrainedModel, target: Target) -> nn.Module:
    """The module of `target`, also where PEFT has wrapped it and may unwrap it again."""
    module = language_model.get_submodule(target.name)
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


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
        sizes = [math.prod(target.factor_shape) for target in targets]
        self.state = MoraState(sizes, self.scaling)
        self.deltas = nn.ModuleDict(
            {target.name.replace(".", "_"): MoraDelta(target, config) for target in targets}
        )

    @property
    def weights_size(self) -> int:
        """P, the number of generated values per molecule."""
        return sum(self.state.sizes)

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
        factors = weights.flatten().split(self.state.sizes)
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
        for index, (target, delta) in enumerate(
            zip(self.targets, self.deltas.values(), strict=True)
        ):
            hook = DeltaHook(self.state, delta, target, index)
            module = adapted_module(language_model, target)
            # Layers of some quantisations have buffers only.
            tensor = next(chain(module.parameters(), module.buffers()))
            # Meta: offloaded, or not loaded yet.
            if not tensor.is_meta and not delta.B.is_meta:
                delta.to(tensor.device)
            module.register_forward_hook(hook, with_kwargs=True)


__all__ = ["MoraTuner"]
