# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The weight generator: from a molecule's atom states to that molecule's own low-rank factors."""

import math

import torch
from torch import nn
from transformers import initialization as init

from .configuration_mora import MoraConfig
from .targets_mora import Target


class MoraWeightGenerator(nn.Module):
    """Learned queries, one per adapted module, read the atoms and are turned into factors.

    Each query (a layer embedding plus a module-type embedding) passes through `generator_depth`
    pre-norm blocks of self-attention, cross-attention to the atoms and feed-forward; a linear head
    per module type makes the factor of it (paper, section 3.2).

    Args:
        config: the model's configuration.
        targets: the adapted modules, sorted by `Target.group` (see [`find_targets`]).
    """

    def __init__(self, config: MoraConfig, targets: list[Target]):
        super().__init__()
        self.config = config
        dim = config.generator_dim
        self.groups = sorted({target.group for target in targets})
        layers = sorted({target.layer for target in targets})
        self.query_layers = [layers.index(target.layer) for target in targets]
        self.query_groups = [self.groups.index(target.group) for target in targets]
        self.layer_embedding = nn.Parameter(torch.empty(len(layers), dim))
        self.kind_embedding = nn.Parameter(torch.empty(len(self.groups), dim))

        self.atom_projection = nn.Linear(config.graph_config.hidden_size, dim)
        # The published generator reads the projected atom states as they are.
        is_core = config.generator_type == "core"
        self.atom_norm = nn.LayerNorm(dim) if is_core else nn.Identity()
        stacks = len(self.groups) if config.generator_per_type else 1
        self.stacks = nn.ModuleList([GeneratorStack(config) for _ in range(stacks)])
        self.heads = nn.ModuleList(
            [FactorHead(config, math.prod(shape)) for _, shape in self.groups]
        )
        if config.generator_type == "core":
            self.static_core = nn.Parameter(torch.empty(len(targets), config.core_dim, config.rank))

    def forward(self, atoms: torch.Tensor, atom_mask: torch.Tensor) -> torch.Tensor:
        """Generate the factors of a batch of molecules.

        Args:
            atoms: [B, N, graph hidden_size] atom states.
            atom_mask: [B, N], True on real atoms; all False where the row has no molecule.

        Returns:
            [B, P]: the factors of all targets, flattened and joined in the order of `targets`;
            zero in rows without a molecule, so that they get the base model.
        """
        atoms = self.atom_norm(self.atom_projection(atoms.to(self.atom_projection.weight.dtype)))
        queries = self.layer_embedding[self.query_layers] + self.kind_embedding[self.query_groups]
        queries = queries.expand(len(atoms), -1, -1)
        per_group = [self.query_groups.count(i) for i in range(len(self.groups))]
        if len(self.stacks) == 1:
            latents = self.stacks[0](queries, atoms, atom_mask).split(per_group, dim=1)
        else:
            latents = [
                stack(part, atoms, atom_mask)
                for stack, part in zip(self.stacks, queries.split(per_group, dim=1), strict=True)
            ]
        factors = torch.cat(
            [head(part).flatten(1) for head, part in zip(self.heads, latents, strict=True)], dim=1
        )
        if self.config.generator_type == "core":
            factors = factors + self.static_core.flatten()
        has_molecule = atom_mask.any(dim=1, keepdim=True)
        return torch.where(has_molecule, factors, torch.zeros_like(factors))

    def reset_parameters(self) -> None:
        """Small queries, so that the atoms make most of a latent and molecules differ at once.

        The static core picks the first `rank` columns of A.
        """
        init.normal_(self.layer_embedding, std=0.02)
        init.normal_(self.kind_embedding, std=0.02)
        if self.config.generator_type == "core":
            eye = torch.eye(self.config.core_dim, self.config.rank)
            init.copy_(self.static_core, eye.expand_as(self.static_core))


class GeneratorStack(nn.Module):
    """`generator_depth` decoder blocks and a final norm: queries [B, M, dim] to latents."""

    def __init__(self, config: MoraConfig):
        super().__init__()
        dim = config.generator_dim
        self.blocks = nn.ModuleList(
            [
                nn.TransformerDecoderLayer(
                    dim,
                    config.generator_heads,
                    dim_feedforward=4 * dim,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(config.generator_depth)
            ]
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, latents: torch.Tensor, atoms: torch.Tensor, atom_mask: torch.Tensor
    ) -> torch.Tensor:
        # A row without a molecule attends to its padding: a softmax over nothing is NaN.
        ignored = ~atom_mask & atom_mask.any(dim=1, keepdim=True)
        for block in self.blocks:
            latents = block(latents, atoms, memory_key_padding_mask=ignored)
        return self.norm(latents)


class FactorHead(nn.Linear):
    """Linear head from a normalised latent to a flattened factor.

    Its initial scale makes the generated part of a module's [d_in, rank] matrix
    `delta_init_scale` times as large as the A of PEFT's LoRA, uniform in ±1/sqrt(d_in). In the
    core form A is initialised so already and `A C` sums `core_dim` of its columns.
    """

    def __init__(self, config: MoraConfig, factor_size: int):
        if config.generator_type == "core":
            entry_std = 1 / math.sqrt(config.core_dim)
        else:
            d_in = factor_size // config.rank
            entry_std = 1 / math.sqrt(3 * d_in)
        self.weight_std = config.delta_init_scale * entry_std / math.sqrt(config.generator_dim)
        super().__init__(config.generator_dim, factor_size)

    def reset_parameters(self) -> None:
        # torch's own, which `from_pretrained` turns off while nn.Linear calls this too early.
        nn.init.normal_(self.weight, std=self.weight_std)
        nn.init.zeros_(self.bias)


__all__ = ["MoraWeightGenerator"]
