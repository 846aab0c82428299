# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The graph encoder with a head for each task of its pretraining."""

from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from modeling_mora import MoraGraphConfig, MoraGraphEncoder
from training.graph_pretraining.collator import IGNORE_INDEX
from training.graph_pretraining.targets import MORGAN_BITS, Statistics

TASKS = ("descriptors", "morgan", "atoms", "bonds")
# Standardised descriptors end here, so that one freak molecule does not rule its batch.
LARGEST_DEVIATION = 6.0
# What never occurred in the training data is taken for this likely; 0 has no logarithm.
RAREST = 1e-4


@strict
class GraphPretrainingConfig(PreTrainedConfig):
    """Configuration of [`GraphPretrainingModel`].

    Args:
        graph_config (`MoraGraphConfig` or `dict`): configuration of the encoder.
        descriptor_mean (`list[float]`): for standardising.
        descriptor_std (`list[float]`): likewise; 0 leaves a descriptor out.
        constant_losses (`dict`): see [`Statistics`]; each task's loss is divided by its own.
        mean_atoms (`float`): heavy atoms per molecule of the training data.
    """

    model_type = "mora_graph_pretraining"
    sub_configs = {"graph_config": MoraGraphConfig}

    graph_config: dict | PreTrainedConfig | None = None
    descriptor_mean: list[float] | tuple[float, ...] = ()
    descriptor_std: list[float] | tuple[float, ...] = ()
    constant_losses: dict | None = None
    mean_atoms: float = 1.0

    def __post_init__(self, **kwargs):
        if not isinstance(self.graph_config, PreTrainedConfig):
            self.graph_config = MoraGraphConfig(**(self.graph_config or {}))
        super().__post_init__(**kwargs)


@dataclass
class GraphPretrainingOutput(ModelOutput):
    """What a batch of B molecules gives.

    Attributes:
        loss: mean over tasks of each one's loss, as a share of the constant prediction's.
        descriptors: [B, D], standardised.
        morgan_logits: [B, MORGAN_BITS].
        hidden: [B, 2, 3]: for atoms and bonds, the sum of losses, the number that is right, and
            the number that was hidden.
    """

    loss: torch.Tensor | None = None
    descriptors: torch.Tensor | None = None
    morgan_logits: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


class GraphPretrainingModel(PreTrainedModel):
    """Descriptors and Morgan bits of the whole molecule, types of what is hidden in its copy.

    A molecule is the mean and the sum of its atom states, the sum divided by the number of atoms
    of an average molecule; a hidden atom is predicted from its own state, a hidden bond from the
    sum of its ends' states. Only `graph_encoder` is kept after pretraining.
    """

    config_class = GraphPretrainingConfig
    base_model_prefix = "model"
    main_input_name = "graph_atoms"

    def __init__(self, config: GraphPretrainingConfig):
        super().__init__(config)
        dim = config.graph_config.hidden_size
        self.graph_encoder = MoraGraphEncoder(config.graph_config)
        self.descriptor_head = _head(dim, len(config.descriptor_mean))
        self.morgan_head = _head(dim, MORGAN_BITS)
        self.atom_head = nn.Linear(dim, config.graph_config.atom_vocab_sizes[0])
        self.bond_head = nn.Linear(dim, config.graph_config.bond_vocab_sizes[0])
        self.post_init()

    @classmethod
    def from_statistics(
        cls, graph_config: MoraGraphConfig, statistics: Statistics
    ) -> "GraphPretrainingModel":
        """A new model whose heads start near the best constant prediction."""
        config = GraphPretrainingConfig(
            graph_config=graph_config,
            descriptor_mean=statistics.descriptor_mean.tolist(),
            descriptor_std=statistics.descriptor_std.tolist(),
            constant_losses=statistics.constant_losses,
            mean_atoms=statistics.mean_atoms,
        )
        model = cls(config)
        with torch.no_grad():
            bits = torch.from_numpy(statistics.morgan_frequency).clamp(RAREST, 1 - RAREST)
            model.morgan_head[-1].bias.copy_(bits.logit())
            for head, frequency in (
                (model.atom_head, statistics.atom_frequency),
                (model.bond_head, statistics.bond_frequency),
            ):
                head.bias.copy_(torch.from_numpy(frequency).clamp(min=RAREST).log())
        return model

    def forward(
        self,
        graph_atoms: torch.Tensor,
        graph_atom_mask: torch.Tensor,
        graph_bonds: torch.Tensor,
        graph_bond_features: torch.Tensor,
        graph_bond_mask: torch.Tensor,
        hidden_atoms: torch.Tensor,
        hidden_bond_features: torch.Tensor,
        descriptors: torch.Tensor,
        morgan_bits: torch.Tensor,
        atom_types: torch.Tensor,
        bond_types: torch.Tensor,
    ) -> GraphPretrainingOutput:
        """Encode whole molecules and their copies, and predict; see `PretrainingCollator`."""
        states = self.graph_encoder(
            graph_atoms, graph_atom_mask, graph_bonds, graph_bond_features, graph_bond_mask
        )
        molecules = self.pool(states, graph_atom_mask)
        predicted = self.descriptor_head(molecules)
        morgan_logits = self.morgan_head(molecules)
        states = self.graph_encoder(
            hidden_atoms, graph_atom_mask, graph_bonds, hidden_bond_features, graph_bond_mask
        )
        ends = graph_bonds.unsqueeze(-1).expand(-1, -1, -1, states.shape[-1])
        bonds = states.gather(1, ends[:, 0]) + states.gather(1, ends[:, 1])
        hidden = torch.stack(
            [
                score_hidden(self.atom_head, states, atom_types),
                score_hidden(self.bond_head, bonds, bond_types),
            ],
            dim=1,
        )
        losses = {
            "descriptors": self._descriptor_loss(predicted, descriptors),
            "morgan": binary_cross_entropy_with_logits(morgan_logits, morgan_bits),
            "atoms": hidden[:, 0, 0].sum() / hidden[:, 0, 2].sum().clamp(min=1),
            "bonds": hidden[:, 1, 0].sum() / hidden[:, 1, 2].sum().clamp(min=1),
        }
        # Where all is alike, there is nothing to learn and nothing to divide by.
        constant = {name: loss or 1.0 for name, loss in self.config.constant_losses.items()}
        return GraphPretrainingOutput(
            loss=sum(losses[task] / constant[task] for task in TASKS) / len(TASKS),
            descriptors=predicted,
            morgan_logits=morgan_logits,
            hidden=hidden.detach(),
        )

    def pool(self, states: torch.Tensor, atom_mask: torch.Tensor) -> torch.Tensor:
        """[B, N, dim] atom states, zero on padding, to [B, 2 * dim] molecules."""
        total = states.sum(dim=1)
        atoms = atom_mask.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.cat([total / atoms, total / self.config.mean_atoms], dim=-1)

    def _descriptor_loss(self, predicted: torch.Tensor, descriptors: torch.Tensor) -> torch.Tensor:
        target = standardise(descriptors, self.config)
        known = target.isfinite()
        error = torch.where(known, predicted - target.nan_to_num(), 0.0)
        return error.square().sum() / known.sum().clamp(min=1)

    def _init_weights(self, module: nn.Module) -> None:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def standardise(descriptors: torch.Tensor, config: GraphPretrainingConfig) -> torch.Tensor:
    """[B, D] descriptors in units of their standard deviation; NaN where there is none."""
    mean, std = (
        descriptors.new_tensor(values) for values in (config.descriptor_mean, config.descriptor_std)
    )
    scaled = ((descriptors - mean) / std).clamp(-LARGEST_DEVIATION, LARGEST_DEVIATION)
    return scaled.masked_fill(std == 0, torch.nan)


def score_hidden(head: nn.Module, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """Predict the types of what is hidden.

    Args:
        head: states to logits.
        states: [B, M, dim] of atoms or bonds.
        types: [B, M], -100 on what is not hidden.

    Returns:
        [B, 3]: sum of cross-entropies in nats, number of right ones, number of hidden ones.
    """
    hidden = types != IGNORE_INDEX
    logits, types = head(states[hidden]), types[hidden]
    loss = cross_entropy(logits, types, reduction="none")
    right = (logits.argmax(dim=-1) == types).to(loss.dtype)
    scores = torch.stack([loss, right, torch.ones_like(loss)], dim=-1)
    return scores.new_zeros(len(hidden), 3).index_add(0, hidden.nonzero()[:, 0], scores)


def _head(dim: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, outputs))
