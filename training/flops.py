# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How many floating-point operations a training step takes, and how many a GPU could do.

A multiplication with a matrix takes 2 FLOPs per weight and position in the forward pass, 2 more for
the gradient of its input and 2 more for that of its weights. A frozen base needs only what leads to
something trained: no gradients of its own weights, and none at all below the lowest adapted layer.
Norms, activations and the recomputation of activation checkpointing are not counted, as usual.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from modeling_mora import MoraForCausalLM
from modeling_mora.targets_mora import Target, layer_of
from training.methods.graph_prefix import GraphPrefixForCausalLM

# Dense FLOP/s in bfloat16 without sparsity, by the makers' data sheets (V100 and T4: float16). The
# words stand in the device's name; the first entry all of whose words do is taken.
PEAKS: dict[tuple[str, ...], float] = {
    ("B200",): 2250e12,
    ("GH200",): 989e12,
    ("H200", "NVL"): 835e12,
    ("H200",): 989e12,
    ("H100", "PCIe"): 756e12,
    ("H100", "NVL"): 835e12,
    ("H100",): 989e12,
    ("A100",): 312e12,
    ("A40",): 150e12,
    ("A30",): 165e12,
    ("A10",): 125e12,
    ("L40S",): 362e12,
    ("L40",): 181e12,
    ("L4",): 121e12,
    ("RTX", "4090"): 165e12,
    ("RTX", "3090"): 71e12,
    ("RTX", "A6000"): 155e12,
    ("V100",): 125e12,
    ("T4",): 65e12,
    ("MI300X",): 1307e12,
}


class UnknownFlopsError(ValueError):
    """A model whose FLOPs are not known."""


@dataclass
class Flops:
    """FLOPs of forward and backward pass, by what they grow with.

    Attributes:
        per_token: for each position of the text (and of the graph prefix), padding included.
        per_pair: attention, for each pair of positions of a row.
        per_logit: the LM head, for each position whose logits are computed.
        per_atom: graph encoder, projector, and the generator's reading of the atoms.
        per_row: the rest of the weight generator.
        has_prefix: whether the atoms stand in front of the text.
    """

    per_token: int = 0
    per_pair: int = 0
    per_logit: int = 0
    per_atom: int = 0
    per_row: int = 0
    has_prefix: bool = False

    def of(self, inputs: Mapping[str, Any]) -> int:
        """FLOPs of a batch of `MoraCollator`, as it is computed: with its padding."""
        rows, length = inputs["input_ids"].shape
        atoms = inputs["graph_atoms"].shape[1] if "graph_atoms" in inputs else 0
        if self.has_prefix:
            length += atoms
        return rows * (
            length * self.per_token
            + length**2 * self.per_pair
            + inputs["labels"].shape[1] * self.per_logit
            + atoms * self.per_atom
            + self.per_row
        )


def count_flops(model: nn.Module) -> Flops:
    """Count the FLOPs of a model of any method of `training.finetune`, from the sizes of its parts.

    Raises:
        UnknownFlopsError: the base has weights that are no matrices, such as a mixture of experts;
            one is named.
    """
    flops = Flops(has_prefix=isinstance(model, GraphPrefixForCausalLM))
    targets: dict[str, Target] = {}
    if isinstance(model, MoraForCausalLM):
        targets = {target.name: target for target in model.tuner.targets}
        add_generator(flops, model)
    if targets or flops.has_prefix:
        add_encoder(flops, model)
    base = model.language_model if targets or flops.has_prefix else model
    head = base.get_output_embeddings()
    layers = base.config.get_text_config().num_hidden_layers
    # Whether what a module reads depends on something trained, so that it takes part in the
    # backward pass; and from which layer on the attention does.
    learns = flops.has_prefix
    lowest = 0 if learns else layers
    for name, module in base.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if len(getattr(parameter, "ds_shape", parameter.shape)) > 2:  # ZeRO-3 cuts them up
                raise UnknownFlopsError(f"{name}.{key} is no matrix, so its FLOPs are not known")
        trains = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        of_matrix = 2 * matrix_size(module) * (1 + learns + trains)
        if module is head:
            flops.per_logit += of_matrix
        else:
            flops.per_token += of_matrix
        if name in targets:
            is_core = model.config.generator_type == "core"
            flops.per_token += delta_flops(targets[name], is_core, learns)
        if not learns and (trains or name in targets):
            learns = True
            lowest = (layer_of(name) or 0) + ("mlp" in name)
    config = base.config.get_text_config()
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    # Scores and sums over the values; their backward pass takes twice as much.
    flops.per_pair = 4 * width * (layers + 2 * (layers - lowest))
    return flops


def matrix_size(module: nn.Module) -> int:
    """Weights of a linear layer, also where they are stored in fewer bits; 0 for anything else."""
    if hasattr(module, "base_layer"):  # PEFT's wrapper, whose parts are modules of their own
        return 0
    if isinstance(module, Conv1D):
        return math.prod(module.weight.shape)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return module.in_features * module.out_features
    return 0


def delta_flops(target: Target, is_core: bool, learns: bool) -> int:
    """FLOPs per token of MoRA's delta of one module, all of whose factors get gradients.

    Args:
        target: the module.
        is_core: `((x A) C) B`; otherwise A is generated and there is no C.
        learns: whether the gradient of x is needed.
    """
    rows, rank = target.factor_shape
    first = target.d_in * (rows if is_core else rank)
    others = (rows * rank if is_core else 0) + rank * target.d_out
    return 2 * (first * (2 + learns) + others * 3)


def add_encoder(flops: Flops, model: MoraForCausalLM | GraphPrefixForCausalLM) -> None:
    """Add the graph encoder and the projector of a graph prefix."""
    trains = any(parameter.requires_grad for parameter in model.graph_encoder.parameters())
    flops.per_atom += 2 * sum(map(matrix_size, model.graph_encoder.modules())) * (1 + 2 * trains)
    if flops.has_prefix:
        flops.per_atom += 6 * sum(map(matrix_size, model.projector.modules()))


def add_generator(flops: Flops, model: MoraForCausalLM) -> None:
    """Add the weight generator: queries that attend to one another and to the atoms, and heads."""
    generator, config = model.weight_generator, model.config
    dim, depth = config.generator_dim, config.generator_depth
    queries = len(generator.query_groups)
    per_stack = [queries]
    if config.generator_per_type:
        per_stack = [generator.query_groups.count(i) for i in range(len(generator.groups))]
    # Self-attention 4 dim², cross-attention 2 dim² (and 2 dim² per atom), feed-forward 8 dim².
    per_row = depth * (queries * 14 * dim**2 + 2 * dim * sum(number**2 for number in per_stack))
    per_row += sum(dim * math.prod(target.factor_shape) for target in model.tuner.targets)
    per_atom = depth * (len(per_stack) * 2 * dim**2 + 2 * dim * queries)
    flops.per_row += 6 * per_row
    flops.per_atom += 6 * (per_atom + matrix_size(generator.atom_projection))


def peak_flops(device_name: str) -> float | None:
    """Dense FLOP/s of a GPU in bfloat16, or None for one that is not in `PEAKS`.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
    """
    words = set(re.split(r"[^A-Za-z0-9]+", device_name))
    if "MIG" in words:  # a part of a GPU
        return None
    return next((peak for key, peak in PEAKS.items() if words.issuperset(key)), None)
