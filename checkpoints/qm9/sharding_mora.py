# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Models whose tensors are cut into parts, one on each process: DeepSpeed ZeRO-3 and FSDP2.

What is here has to be called by all processes, since the parts of all make up a tensor.
"""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


def is_zero3_parameter(tensor: torch.Tensor) -> bool:
    """Whether ZeRO-3 has cut a parameter up: between its uses it is empty then."""
    return hasattr(tensor, "ds_id")


def gathered(tensors: Iterable[torch.Tensor], modify: bool = False) -> AbstractContextManager:
    """Inside this context, parameters that ZeRO-3 has cut up are whole on every process.

    Args:
        tensors: parameters and buffers; all but ZeRO-3's parameters are left as they are.
        modify: whether the values of process 0 at the end are the new ones.
    """
    parameters = [tensor for tensor in tensors if is_zero3_parameter(tensor)]
    if not parameters:
        return nullcontext()
    # By name, as remote code may not ask for DeepSpeed where nothing is cut up.
    zero = importlib.import_module("deepspeed").zero
    return zero.GatheredParameters(parameters, modifier_rank=0 if modify else None)


def cast_zero3_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Give the parameters that ZeRO-3 has cut up another dtype; it makes all of them float32."""
    for parameter in module.parameters():
        if is_zero3_parameter(parameter):
            parameter.ds_tensor.data = parameter.ds_tensor.data.to(dtype)
            parameter.data = parameter.data.to(dtype)


def materialise(*modules: nn.Module) -> None:
    """Give parameters without values some memory.

    FSDP's `cpu_ram_efficient_loading` makes fresh parameters on process 0 alone. Those of the other
    processes get their values later, but accelerate knows an optimizer's parameters by address.
    """
    for module in modules:
        if any(parameter.is_meta for parameter in module.parameters()):
            module.to_empty(device="cpu")


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor; a copy in main memory, put together from all processes, if it was cut up."""
    if is_zero3_parameter(tensor):
        with gathered([tensor]):
            return tensor.detach().to("cpu", copy=True)
    tensor = tensor.detach()
    # An FSDP2 parameter is a DTensor.
    return tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor


@contextmanager
def without_fsdp_class(module: nn.Module) -> Iterator[None]:
    """Inside this context a module has the class it was written as.

    FSDP2 gives it one made at run time, whose code cannot be put into a checkpoint.
    """
    sharded = type(module)
    if sharded.__name__.startswith("FSDP"):
        module.__class__ = sharded.__bases__[1]
    try:
        yield
    finally:
        module.__class__ = sharded


__all__ = ["gathered", "whole_tensor"]
