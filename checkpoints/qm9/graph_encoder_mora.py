# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The graph encoder: a GIN with edge features, from atom and bond features to atom states."""

import os

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_mora import MoraGraphConfig
from .moleculestm_mora import convert_moleculestm, infer_config, read_moleculestm


class CategoricalEmbedding(nn.Module):
    """Sum of one embedding per categorical feature: [..., F] integers to [..., dim]."""

    def __init__(self, vocab_sizes: list[int] | tuple[int, ...], dim: int):
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(size, dim) for size in vocab_sizes])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return sum(table(features[..., i]) for i, table in enumerate(self.tables))


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm whose statistics come from real atoms only, never from padding."""

    def forward(self, states: torch.Tensor, atom_mask: torch.Tensor) -> torch.Tensor:
        # A single atom has no variance; it is seen as in evaluation.
        if not self.training or atom_mask.sum() < 2:
            return nn.functional.batch_norm(
                states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        out = torch.zeros_like(states)
        out[atom_mask] = super().forward(states[atom_mask])
        return out


class GINConv(nn.Module):
    """One GIN step, `(1 + eps) x_i + sum_j relu(x_j + bond_ij)` (Hu et al., ICLR 2020)."""

    def __init__(self, dim: int, bond_vocab_sizes: list[int] | tuple[int, ...]):
        super().__init__()
        self.bond_embedding = CategoricalEmbedding(bond_vocab_sizes, dim)
        self.eps = nn.Parameter(torch.zeros(1))

    def forward(self, atoms: torch.Tensor, graph: "FlatBonds") -> torch.Tensor:
        """[A, dim] atom states to [A, dim] sums over each atom and its neighbours."""
        bonds = self.bond_embedding(graph.features)
        messages = torch.relu(atoms[graph.source] + bonds) * graph.mask.unsqueeze(-1).to(
            atoms.dtype
        )
        received = torch.zeros_like(atoms).index_add(0, graph.target, messages)
        return (1 + self.eps) * atoms + received


class PreNormLayer(nn.Module):
    """Residual GIN layer: `x + mlp(gin(norm(x)))`."""

    def __init__(self, config: MoraGraphConfig):
        super().__init__()
        dim = config.hidden_size
        self.norm = nn.LayerNorm(dim)
        self.conv = GINConv(dim, config.bond_vocab_sizes)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, atoms: torch.Tensor, graph: "FlatBonds", atom_mask: torch.Tensor
    ) -> torch.Tensor:
        return atoms + self.dropout(self.mlp(self.conv(self.norm(atoms), graph)))


class MoleculeSTMLayer(nn.Module):
    """MoleculeSTM's GIN layer: BatchNorm inside and after the MLP, no residual."""

    def __init__(self, config: MoraGraphConfig, is_last: bool):
        super().__init__()
        dim = config.hidden_size
        self.conv = GINConv(dim, config.bond_vocab_sizes)
        self.linear_in = nn.Linear(dim, 2 * dim)
        self.norm_in = MaskedBatchNorm(2 * dim)
        self.linear_out = nn.Linear(2 * dim, dim)
        self.norm_out = MaskedBatchNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.is_last = is_last

    def forward(
        self, atoms: torch.Tensor, graph: "FlatBonds", atom_mask: torch.Tensor
    ) -> torch.Tensor:
        hidden = torch.relu(self.norm_in(self.linear_in(self.conv(atoms, graph)), atom_mask))
        atoms = self.norm_out(self.linear_out(hidden), atom_mask)
        return self.dropout(atoms if self.is_last else torch.relu(atoms))


class FlatBonds:
    """The bonds of a batch of molecules as one graph over the `B * N` atoms.

    `source`, `target`, `mask`: [B * E]; `features`: [B * E, 3].
    """

    def __init__(
        self, bonds: torch.Tensor, features: torch.Tensor, mask: torch.Tensor, atoms_per_row: int
    ):
        first_atom = torch.arange(len(bonds), device=bonds.device).unsqueeze(-1) * atoms_per_row
        self.source = (bonds[:, 0] + first_atom).flatten()
        self.target = (bonds[:, 1] + first_atom).flatten()
        self.features = features.flatten(0, 1)
        self.mask = mask.flatten()


class MoraGraphEncoder(PreTrainedModel):
    """GIN with edge features (Xu et al., ICLR 2019; Hu et al., ICLR 2020), node states out."""

    config_class = MoraGraphConfig
    base_model_prefix = "graph_encoder"
    main_input_name = "graph_atoms"
    # It has no attention, so it fits whatever implementation the language model is asked to use.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: MoraGraphConfig):
        super().__init__(config)
        self.atom_embedding = CategoricalEmbedding(config.atom_vocab_sizes, config.hidden_size)
        if config.form == "prenorm":
            self.layers = nn.ModuleList([PreNormLayer(config) for _ in range(config.num_layers)])
            self.norm = nn.LayerNorm(config.hidden_size)
        else:
            last = config.num_layers - 1
            self.layers = nn.ModuleList(
                [MoleculeSTMLayer(config, is_last=i == last) for i in range(config.num_layers)]
            )
            self.norm = nn.Identity()
        self.post_init()

    @classmethod
    def from_moleculestm(cls, path: str | os.PathLike) -> "MoraGraphEncoder":
        """Make the encoder of MoleculeSTM's published GIN checkpoint, in evaluation mode.

        Args:
            path: MoleculeSTM's `molecule_model.pth`, or the bare GIN that GraphMVP saves. Width
                and number of layers are those of the file.

        Returns:
            An encoder of the form `"moleculestm"`, to be given to `MoraForCausalLM.from_base` as
            `graph_encoder`.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the file is corrupt or holds anything but tensors.
            ValueError: tensors are missing, unexpected or of another shape; they are named.
        """
        tensors = read_moleculestm(path)
        encoder = cls(infer_config(tensors))
        encoder.load_state_dict(convert_moleculestm(tensors, encoder.state_dict()))
        return encoder.eval()

    def forward(
        self,
        graph_atoms: torch.Tensor,
        graph_atom_mask: torch.Tensor,
        graph_bonds: torch.Tensor,
        graph_bond_features: torch.Tensor,
        graph_bond_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Encode a padded batch of molecules.

        Args:
            graph_atoms: [B, N, 9] atom features.
            graph_atom_mask: [B, N], True on real atoms.
            graph_bonds: [B, 2, E] atom indices (source, target), both directions.
            graph_bond_features: [B, E, 3] bond features.
            graph_bond_mask: [B, E], True on real bonds.

        Returns:
            [B, N, hidden_size] atom states; zero on padding.
        """
        batch, atoms_per_row, _ = graph_atoms.shape
        graph = FlatBonds(graph_bonds, graph_bond_features, graph_bond_mask, atoms_per_row)
        atom_mask = graph_atom_mask.flatten()
        atoms = self.atom_embedding(graph_atoms).flatten(0, 1)
        for layer in self.layers:
            atoms = layer(atoms, graph, atom_mask)
        atoms = self.norm(atoms) * atom_mask.unsqueeze(-1).to(atoms.dtype)
        return atoms.view(batch, atoms_per_row, -1)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, GINConv):
            init.zeros_(module.eps)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
        else:
            super()._init_weights(module)


__all__ = ["MoraGraphEncoder"]
