# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The graph tokenizer: molecules in, padded integer tensors of atoms and bonds out.

Features and their indices are those of the Open Graph Benchmark (`ogb.utils.features`, Hu et al.
2020), the vocabulary MoleculeSTM was trained with. The graph of a molecule is OGB's graph of its
canonical SMILES: OGB's chirality feature depends on the order in which a SMILES names the
neighbours, so only a canonical order gives one molecule one graph however it was written.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .molecules_mora import (
    MOLECULE_FORMATS,
    MoleculeError,
    call_rdkit,
    canonical_smiles,
    describe,
    parse_molecule,
)

try:
    from rdkit import Chem
except ImportError:
    Chem = None

ATOM_VOCAB_SIZES = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Atomic number, chirality, degree, charge, hydrogens, radical electrons, hybridisation, aromatic,
in a ring; the last index of the first seven means "anything else"."""

BOND_VOCAB_SIZES = (5, 6, 2)
"""Bond type (the last index means "anything else"), stereo, conjugated."""


def _indexed(values: Iterable) -> dict:
    return {value: index for index, value in enumerate(values)}


_CHIRALITY = _indexed(["CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER"])
_DEGREE = _indexed(range(11))
_CHARGE = _indexed(range(-5, 6))
_HYDROGENS = _indexed(range(9))
_RADICALS = _indexed(range(5))
_HYBRIDIZATION = _indexed(["SP", "SP2", "SP3", "SP3D", "SP3D2"])
_BOND_TYPE = _indexed(["SINGLE", "DOUBLE", "TRIPLE", "AROMATIC"])
_BOND_STEREO = _indexed(
    ["STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY"]
)


class MoleculeFeatureExtractor(FeatureExtractionMixin):
    """Turn molecules into the graph tensors that `MoraForCausalLM` takes.

    Args:
        max_atoms: largest number of heavy atoms accepted; larger molecules are errors, never cut.
        molecule_format: how strings are read, see `parse_molecule`.

    Example:

        >>> graphs = MoleculeFeatureExtractor()(["CCO", None], return_tensors="pt")
        >>> graphs["graph_atoms"].shape
        torch.Size([2, 3, 9])
    """

    model_input_names = [
        "graph_atoms",
        "graph_atom_mask",
        "graph_bonds",
        "graph_bond_features",
        "graph_bond_mask",
    ]

    def __init__(self, max_atoms: int = 256, molecule_format: str = "auto", **kwargs):
        super().__init__(**kwargs)
        if max_atoms < 1:
            raise ValueError(f"max_atoms is {max_atoms}, but must be at least 1.")
        if molecule_format not in MOLECULE_FORMATS:
            raise ValueError(
                f"molecule_format {molecule_format!r} is unknown: use one of "
                f"{', '.join(MOLECULE_FORMATS)}."
            )
        self.max_atoms = max_atoms
        self.molecule_format = molecule_format

    def __call__(
        self,
        molecules: Any,
        return_tensors: str | None = None,
        molecule_format: str | None = None,
    ) -> BatchFeature:
        """Featurise and pad a batch.

        Args:
            molecules: one molecule, or a list of B; each a SMILES, SELFIES, InChI, RDKit `Mol`, or
                None for a row without a molecule.
            return_tensors: `"pt"` or `"np"`; NumPy arrays by default.
            molecule_format: overrides the extractor's own for this call.

        Returns:
            The tensors of `pad`; one molecule gives a batch of one.

        Raises:
            MoleculeError: a molecule cannot become a graph; the message names its row.
        """
        if _is_single(molecules):
            graphs = [self.featurize(molecules, molecule_format)]
        else:
            graphs = [
                self.featurize(molecule, molecule_format, row)
                for row, molecule in enumerate(molecules)
            ]
        return self.pad(graphs, return_tensors)

    def featurize(
        self, molecule: Any, molecule_format: str | None = None, row: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return the graph of one molecule, unpadded.

        Args:
            molecule: SMILES, SELFIES, InChI, RDKit `Mol`, or None for no molecule.
            molecule_format: overrides the extractor's own.
            row: position in the caller's list, for error messages.

        Returns:
            int64 arrays `graph_atoms` [N, 9], `graph_bonds` [2, E] and `graph_bond_features`
            [E, 3]; N is the number of heavy atoms in canonical order, E twice the number of bonds
            (i→j next to j→i). N = E = 0 for None.

        Raises:
            MoleculeError: unreadable, larger than `max_atoms`, or with an atom that is no element.
        """
        if molecule is None:
            return _graph(atoms=[], bonds=[], bond_features=[])
        mol = parse_molecule(molecule, molecule_format or self.molecule_format, row)
        name = describe(molecule, row)
        if mol.GetNumAtoms() > self.max_atoms:
            raise MoleculeError(
                f"{name} has {mol.GetNumAtoms()} heavy atoms, more than "
                f"max_atoms={self.max_atoms}: drop the row or raise the feature "
                "extractor's max_atoms."
            )
        for atom in mol.GetAtoms():
            if atom.GetAtomicNum() == 0:
                raise MoleculeError(
                    f"{name} holds a placeholder ('*' or an R group) at atom {atom.GetIdx()}: "
                    "replace it by an element or drop the row."
                )
        return _canonical_graph(mol, name)

    def combine(self, molecules: list, row: int | None = None):
        """Join several molecules into one `Mol`, of which each is a component."""
        combined = parse_molecule(molecules[0], self.molecule_format, row)
        for molecule in molecules[1:]:
            combined = Chem.CombineMols(
                combined, parse_molecule(molecule, self.molecule_format, row)
            )
        return combined

    def pad(self, graphs: list[dict], return_tensors: str | None = None) -> BatchFeature:
        """Pad graphs from `featurize` to the largest of the batch.

        Args:
            graphs: B graphs, as arrays or as the nested lists a stored dataset gives back.
            return_tensors: `"pt"` or `"np"`; NumPy arrays by default.

        Returns:
            int64 `graph_atoms` [B, N, 9], `graph_bonds` [B, 2, E], `graph_bond_features`
            [B, E, 3] and bool `graph_atom_mask` [B, N], `graph_bond_mask` [B, E], with N and E at
            least 1. Padding is zeros under a False mask; a row without a molecule is all padding.
        """
        graphs = [
            _graph(graph["graph_atoms"], graph["graph_bonds"], graph["graph_bond_features"])
            for graph in graphs
        ]
        batch = len(graphs)
        atoms = max([1] + [len(graph["graph_atoms"]) for graph in graphs])
        bonds = max([1] + [len(graph["graph_bond_features"]) for graph in graphs])
        padded = {
            "graph_atoms": np.zeros((batch, atoms, len(ATOM_VOCAB_SIZES)), dtype=np.int64),
            "graph_atom_mask": np.zeros((batch, atoms), dtype=bool),
            "graph_bonds": np.zeros((batch, 2, bonds), dtype=np.int64),
            "graph_bond_features": np.zeros((batch, bonds, len(BOND_VOCAB_SIZES)), dtype=np.int64),
            "graph_bond_mask": np.zeros((batch, bonds), dtype=bool),
        }
        for row, graph in enumerate(graphs):
            n, e = len(graph["graph_atoms"]), len(graph["graph_bond_features"])
            padded["graph_atoms"][row, :n] = graph["graph_atoms"]
            padded["graph_atom_mask"][row, :n] = True
            padded["graph_bonds"][row, :, :e] = graph["graph_bonds"]
            padded["graph_bond_features"][row, :e] = graph["graph_bond_features"]
            padded["graph_bond_mask"][row, :e] = True
        return BatchFeature(padded, tensor_type=return_tensors)


def _canonical_graph(mol, name: str) -> dict[str, np.ndarray]:
    """Return OGB's graph of the canonical SMILES of `mol`, without atom maps."""
    smiles = canonical_smiles(mol)
    mol, reason = call_rdkit(Chem.MolFromSmiles, smiles)
    if mol is None:
        raise MoleculeError(
            f"{name} has the canonical SMILES {smiles!r}, which RDKit itself cannot "
            f"read: {reason}. Drop the row."
        )
    bonds, bond_features = [], []
    for bond in mol.GetBonds():
        begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        features = _bond_features(bond)
        bonds += [(begin, end), (end, begin)]
        bond_features += [features, features]
    return _graph(
        atoms=[_atom_features(atom) for atom in mol.GetAtoms()],
        bonds=list(zip(*bonds, strict=True)),
        bond_features=bond_features,
    )


def _graph(atoms, bonds, bond_features) -> dict[str, np.ndarray]:
    # An empty list has lost its second dimension; the reshapes give it back.
    return {
        "graph_atoms": np.asarray(atoms, dtype=np.int64).reshape(-1, len(ATOM_VOCAB_SIZES)),
        "graph_bonds": np.asarray(bonds, dtype=np.int64).reshape(2, -1),
        "graph_bond_features": np.asarray(bond_features, dtype=np.int64).reshape(
            -1, len(BOND_VOCAB_SIZES)
        ),
    }


def _atom_features(atom) -> list[int]:
    return [
        atom.GetAtomicNum() - 1,
        _CHIRALITY.get(str(atom.GetChiralTag()), len(_CHIRALITY)),
        _DEGREE.get(atom.GetTotalDegree(), len(_DEGREE)),
        _CHARGE.get(atom.GetFormalCharge(), len(_CHARGE)),
        _HYDROGENS.get(atom.GetTotalNumHs(), len(_HYDROGENS)),
        _RADICALS.get(atom.GetNumRadicalElectrons(), len(_RADICALS)),
        _HYBRIDIZATION.get(str(atom.GetHybridization()), len(_HYBRIDIZATION)),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
    ]


def _bond_features(bond) -> list[int]:
    return [
        _BOND_TYPE.get(str(bond.GetBondType()), len(_BOND_TYPE)),
        _BOND_STEREO[str(bond.GetStereo())],
        int(bond.GetIsConjugated()),
    ]


def _is_single(molecules: Any) -> bool:
    if isinstance(molecules, str) or not isinstance(molecules, Iterable):
        return True
    return Chem is not None and isinstance(molecules, Chem.Mol)
