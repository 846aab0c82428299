# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""From molecules to a batch that shows each of them twice: whole, and with atoms hidden."""

import zlib
from typing import Any

import numpy as np
import torch

from modeling_mora.feature_extraction_mora import ATOM_VOCAB_SIZES, BOND_VOCAB_SIZES
from training.graph_pretraining.targets import MORGAN_BITS

MASK_SHARE = 0.15
IGNORE_INDEX = -100
# A hidden atom or bond has the last value of every feature, which for most means "anything else".
# No graph of the feature extractor holds one of the two: it refuses atoms that are no element, and
# only double bonds can have a stereo. So they are free to mean "hidden", in OGB's own vocabulary.
HIDDEN_ATOM = torch.tensor(ATOM_VOCAB_SIZES) - 1
HIDDEN_BOND = torch.tensor(BOND_VOCAB_SIZES) - 1


class PretrainingCollator:
    """Pads graphs and hides atoms in a copy of them.

    In the copy, 15% of each molecule's atoms (at least one) and all their bonds lose all features;
    nothing of what they were is left in it but what their neighbours tell. Which ones depends on
    the molecules of the batch and the seed alone: an epoch that mixes them anew hides others, and
    a resumed run hides the same.

    Args:
        feature_extractor: a `MoleculeFeatureExtractor`.
        seed: of what is hidden.
    """

    def __init__(self, feature_extractor: Any, seed: int = 0):
        self.feature_extractor = feature_extractor
        self.seed = seed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows: B rows as from `build_targets`.

        Returns:
            The `graph_…` tensors of the whole molecules; `hidden_atoms` [B, N, 9] and
            `hidden_bond_features` [B, E, 3], which replace `graph_atoms` and `graph_bond_features`
            in the copy; and the targets: `descriptors` [B, D] (NaN where there is none),
            `morgan_bits` [B, MORGAN_BITS], `atom_types` [B, N] and `bond_types` [B, E], what was
            hidden, -100 elsewhere and at the second direction of each bond.
        """
        batch = dict(self.feature_extractor.pad(rows, return_tensors="pt"))
        text = f"{self.seed} {' '.join(row['smiles'] for row in rows)}"
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        hidden = choose_atoms(batch["graph_atom_mask"], generator)
        # [B, 2, E]: whether an end of a bond is hidden.
        ends = hidden.gather(1, batch["graph_bonds"].flatten(1)).view(batch["graph_bonds"].shape)
        hidden_bonds = ends.any(dim=1) & batch["graph_bond_mask"]
        first_direction = torch.arange(hidden_bonds.shape[1]) % 2 == 0
        morgan = np.zeros((len(rows), MORGAN_BITS), dtype=np.float32)
        for row, target in zip(rows, morgan, strict=True):
            target[row["morgan_bits"]] = 1
        return batch | {
            "hidden_atoms": torch.where(hidden[..., None], HIDDEN_ATOM, batch["graph_atoms"]),
            "hidden_bond_features": torch.where(
                hidden_bonds[..., None], HIDDEN_BOND, batch["graph_bond_features"]
            ),
            "descriptors": torch.from_numpy(np.stack([row["descriptors"] for row in rows])),
            "morgan_bits": torch.from_numpy(morgan),
            "atom_types": batch["graph_atoms"][..., 0].masked_fill(~hidden, IGNORE_INDEX),
            "bond_types": batch["graph_bond_features"][..., 0].masked_fill(
                ~(hidden_bonds & first_direction), IGNORE_INDEX
            ),
        }


def choose_atoms(atom_mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[B, N] real atoms to [B, N] those that are hidden, at random."""
    count = (MASK_SHARE * atom_mask.sum(dim=1)).round().clamp(min=1)
    lots = torch.rand(atom_mask.shape, generator=generator).masked_fill(~atom_mask, 2.0)
    return (lots.argsort(dim=1).argsort(dim=1) < count[:, None]) & atom_mask
