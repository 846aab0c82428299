# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The graph tokenizer: molecules in, padded integer tensors of atoms and bonds out.

Features and their indices are those of the Open Graph Benchmark (`ogb.utils.features`, Hu et al.
2020), the vocabulary MoleculeSTM was trained with. The graph of a molecule is OGB's graph of its
canonical SMILES: OGB's chirality feature depends on the order in which a SMILES names the
neighbours, so only a canonical order gives one molecule one graph however it was written.
"""

import contextlib
import re
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

try:
    from rdkit import Chem, rdBase
except ImportError:
    Chem = None

try:
    import selfies
except ImportError:
    selfies = None

MOLECULE_FORMATS = ("auto", "smiles", "selfies", "inchi")

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

# RDKit's log is one per process, so only one thread at a time may capture it.
_RDKIT_LOG = threading.Lock()


class MoleculeError(ValueError):
    """A molecule that cannot become a graph; the message names the row, the value and the fix."""


def parse_molecule(molecule: Any, molecule_format: str = "auto", row: int | None = None):
    """Read one molecule.

    With `molecule_format="auto"` a string that starts with `InChI=` is an InChI; a string made
    only of bracket tokens that the SELFIES grammar accepts is a SELFIES, so `[C][C][O]` is ethanol
    and `[C]` is methane (pass `"smiles"` to read them as bare atoms); all else is a SMILES.

    Args:
        molecule: SMILES, SELFIES, InChI or RDKit `Mol`. A `Mol` is copied, sanitised, and its
            explicit hydrogens are folded into the heavy atoms, as they are when a SMILES is read.
        molecule_format: `"auto"`, `"smiles"`, `"selfies"` or `"inchi"`; ignored for a `Mol`.
        row: position in the caller's list, for the error message.

    Returns:
        A sanitised `rdkit.Chem.Mol` with at least one atom, atoms in the order they were given.

    Raises:
        MoleculeError: empty, unparsable or chemically impossible, with RDKit's own reason.
        ImportError: RDKit (or, for a SELFIES, selfies) is not installed.
    """
    if Chem is None:
        raise ImportError("Reading molecules needs RDKit: pip install rdkit")
    if molecule_format not in MOLECULE_FORMATS:
        raise ValueError(
            f"molecule_format {molecule_format!r} is unknown: use one of "
            f"{', '.join(MOLECULE_FORMATS)}."
        )
    name = _describe(molecule, row)
    if isinstance(molecule, Chem.Mol):
        mol, reason = _call_rdkit(Chem.RemoveHs, molecule)
        kind = "molecule"
    elif isinstance(molecule, str):
        text = molecule.strip()
        if not text:
            raise MoleculeError(f"{name} is empty: pass None for a row without a molecule.")
        # RDKit would take what follows a blank for the molecule's name and drop it silently.
        if len(text.split()) > 1:
            raise MoleculeError(
                f"{name} contains blanks: pass the molecule alone, and join several molecules "
                "with a dot, as in 'CCO.CC'."
            )
        kind = _detect_format(text) if molecule_format == "auto" else molecule_format
        if kind == "selfies":
            text = _decode_selfies(text, name)
        mol, reason = _call_rdkit(
            Chem.MolFromInchi if kind == "inchi" else Chem.MolFromSmiles, text
        )
    else:
        raise MoleculeError(
            f"{name} has type {type(molecule).__name__}: pass a SMILES, SELFIES or InChI "
            "string, an RDKit Mol, or None for a row without a molecule."
        )
    if mol is None:
        label = {"smiles": "SMILES", "selfies": "SELFIES", "inchi": "InChI"}.get(kind, kind)
        raise MoleculeError(
            f"{name} is not a valid {label}: {reason or 'RDKit gives no reason'}. Correct it or "
            "drop the row."
        )
    if mol.GetNumAtoms() == 0:
        raise MoleculeError(f"{name} has no atoms: pass None for a row without a molecule.")
    return mol


def canonical_smiles(mol) -> str:
    """RDKit's canonical SMILES of a sanitised `Mol`, without atom maps."""
    mol = Chem.Mol(mol)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return Chem.MolToSmiles(mol)


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
        name = _describe(molecule, row)
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
    mol, reason = _call_rdkit(Chem.MolFromSmiles, smiles)
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


def _describe(molecule: Any, row: int | None) -> str:
    if Chem is not None and isinstance(molecule, Chem.Mol):
        # Unsanitised molecules can still be written, as long as RDKit is asked not to think.
        molecule = f"Mol {Chem.MolToSmiles(molecule, canonical=False)!r}"
    else:
        molecule = f"Molecule {molecule!r}"
    if len(molecule) > 200:
        molecule = f"{molecule[:200]}…"
    return molecule if row is None else f"Row {row}: {molecule}"


def _detect_format(text: str) -> str:
    if text.startswith("InChI="):
        return "inchi"
    if not re.fullmatch(r"(\[[^\[\]]+\]\.?)+", text):
        return "smiles"
    if selfies is None:
        raise ImportError(
            f"{text!r} may be a SELFIES or a SMILES: pip install selfies, or pass "
            "molecule_format='smiles'."
        )
    try:
        selfies.decoder(text)
    except selfies.DecoderError:
        return "smiles"
    return "selfies"


def _decode_selfies(text: str, name: str) -> str:
    if selfies is None:
        raise ImportError("Reading SELFIES needs the selfies package: pip install selfies")
    try:
        smiles = selfies.decoder(text)
    except selfies.DecoderError as error:
        reason = str(error).splitlines()[0]
        raise MoleculeError(
            f"{name} is not a valid SELFIES: {reason}. Correct it or drop the row."
        ) from error
    if not smiles:
        raise MoleculeError(
            f"{name} is a SELFIES of no atoms: pass None for a row without a molecule."
        )
    return smiles


def _call_rdkit(function, argument) -> tuple[Any, str]:
    """Return the result (None on failure) and the reason RDKit logged or raised, in one line."""
    # RDKit before 2026.3 cannot capture its log: the reason then stays unknown.
    capture = getattr(rdBase, "CaptureErrorLog", contextlib.nullcontext)
    with _RDKIT_LOG, rdBase.BlockLogs(), capture() as log:
        try:
            result = function(argument)
        except (ValueError, RuntimeError) as error:
            return None, _one_line(str(error))
    return result, _one_line(getattr(log, "messages", ""))


def _one_line(log: str) -> str:
    lines = []
    for line in log.splitlines():
        line = re.sub(r"^\[\d\d:\d\d:\d\d\] ", "", line)
        line = re.sub(r"^(SMILES Parse Error|ERROR): ", "", line).strip().rstrip(".:")
        # What RDKit draws under the input to point at a position cannot be read in one line.
        drawing = not line or " " not in line or line.startswith("Failed parsing SMILES")
        if not drawing and line not in lines:
            lines.append(line)
    return "; ".join(lines)
