# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the encoder learns to tell of a whole molecule, computed by RDKit from its structure.

Work goes through `datasets`' `map`: several processes, and a cache that makes a second start
immediate.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, Features, List, Value
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdFingerprintGenerator

from modeling_mora.feature_extraction_mora import ATOM_VOCAB_SIZES, BOND_VOCAB_SIZES
from modeling_mora.molecule_list_mora import refuse_extension
from modeling_mora.molecules_mora import MoleculeError, canonical_smiles, parse_molecule
from training.data.build import cache_file, code_fingerprint, processes
from training.data.rejections import Rejections

# From RDKit's list `rdkit.Chem.Descriptors.descList`. Left out are the counts of fragments (fr_…),
# which the Morgan bits tell too, Ipc, which grows beyond all bounds, what is another one again
# (ExactMolWt, HeavyAtomMolWt, Chi…n), and what takes long (BCUT2D, VSA_EState, qed).
DESCRIPTORS = (
    # size and composition
    *("MolWt", "HeavyAtomCount", "NumValenceElectrons", "NumRadicalElectrons", "NumHeteroatoms"),
    *("NOCount", "NHOHCount", "NumHAcceptors", "NumHDonors", "NumAmideBonds", "FractionCSP3"),
    # rings, branches and stereo
    *("RingCount", "NumAromaticRings", "NumAliphaticRings", "NumSaturatedRings"),
    *("NumHeterocycles", "NumAromaticHeterocycles", "NumAromaticCarbocycles"),
    *("NumSpiroAtoms", "NumBridgeheadAtoms", "NumRotatableBonds", "NumAtomStereoCenters"),
    # topology
    *("BalabanJ", "BertzCT", "HallKierAlpha", "Kappa1", "Kappa2", "Kappa3", "Phi"),
    *("Chi0", "Chi1", "Chi0v", "Chi1v", "Chi2v", "Chi3v", "Chi4v", "AvgIpc"),
    # lipophilicity, polarity, charges
    *("MolLogP", "MolMR", "TPSA", "LabuteASA"),
    *("MaxPartialCharge", "MinPartialCharge", "MaxAbsPartialCharge", "MinAbsPartialCharge"),
    *("MaxEStateIndex", "MinEStateIndex", "MaxAbsEStateIndex", "MinAbsEStateIndex"),
    # surface by charge, refractivity, lipophilicity and electrotopological state
    *(f"PEOE_VSA{i}" for i in range(1, 15)),
    *(f"SMR_VSA{i}" for i in range(1, 11)),
    *(f"SlogP_VSA{i}" for i in range(1, 13)),
    *(f"EState_VSA{i}" for i in range(1, 12)),
)
MORGAN_RADIUS = 2
MORGAN_BITS = 2048

REJECTED = "rejected"
# Graphs lie flat; `MoleculeFeatureExtractor.pad` gives them their shape back.
FEATURES = Features(
    {
        "smiles": Value("string"),
        "atoms": Value("int32"),
        "graph_atoms": List(Value("uint8")),
        "graph_bonds": List(Value("uint16")),
        "graph_bond_features": List(Value("uint8")),
        "descriptors": List(Value("float32")),
        "morgan_bits": List(Value("uint16")),
        "source": Value("string"),
        REJECTED: Value("string"),
    }
)


def build_targets(
    rows: Dataset,
    feature_extractor: Any,
    rejections: Mapping[str, Rejections],
    num_proc: int | None = None,
) -> Dataset:
    """Graph, descriptors and fingerprint of every molecule, or a rejection that says why not.

    Args:
        rows: columns as from `open_molecules`.
        feature_extractor: a `MoleculeFeatureExtractor`; what it does not take is rejected.
        rejections: by source; rejected rows are added, accepted ones counted.
        num_proc: processes; None for one.

    Returns:
        Columns `smiles` (canonical), `atoms` (their number N), `graph_atoms` [N * 9],
        `graph_bonds` [2 * E] and `graph_bond_features` [E * 3] as from `featurize` but flat,
        `descriptors` (those of `DESCRIPTORS`, NaN where there is none), `morgan_bits` (positions
        of the bits that are set) and `source`.
    """
    job = _Job(feature_extractor, code_fingerprint(_build_batch))
    built = rows.map(
        _build_batch,
        batched=True,
        remove_columns=rows.column_names,
        features=FEATURES,
        fn_kwargs={"job": job},
        num_proc=processes(num_proc, len(rows)),
        cache_file_name=cache_file(rows, job),
        desc="Descriptors and fingerprints",
    )
    rejected = built.data.column(REJECTED)
    for line in rejected.drop_null().to_pylist():
        entry = json.loads(line)
        rejections[entry.pop("source")].add(**entry)
    good = pc.is_null(rejected).to_numpy()
    if not good.all():
        built = built.select(good.nonzero()[0])
    for source, count in Counter(built["source"][:]).items():
        rejections[source].accepted += count
    return built.remove_columns(REJECTED)


def calculate_descriptors(mol) -> list[float]:
    """Those of `DESCRIPTORS`; NaN for one that RDKit cannot tell or that is not finite."""
    values = []
    with rdBase.BlockLogs():
        for function in _descriptor_functions():
            try:
                value = float(function(mol))
            except (ArithmeticError, RuntimeError, ValueError):
                value = math.nan
            values.append(value if abs(value) < np.finfo(np.float32).max else math.nan)
    return values


def morgan_bits(mol) -> list[int]:
    """Positions of the bits that are set in the Morgan fingerprint, without chirality."""
    return list(_morgan_generator().GetFingerprint(mol).GetOnBits())


@dataclass(frozen=True)
class Statistics:
    """What a prediction that is the same for all molecules can know of the training molecules.

    Attributes:
        descriptor_mean: [D] of the finite values; 0 for a descriptor that has none.
        descriptor_std: [D]; 0 for a descriptor that is the same everywhere.
        morgan_frequency: [MORGAN_BITS] shares of molecules that set a bit.
        atom_frequency: [119] shares of atomic numbers, as OGB counts them, among atoms.
        bond_frequency: [5] shares of bond types among bonds.
        mean_atoms: heavy atoms per molecule.
    """

    descriptor_mean: np.ndarray
    descriptor_std: np.ndarray
    morgan_frequency: np.ndarray
    atom_frequency: np.ndarray
    bond_frequency: np.ndarray
    mean_atoms: float

    @property
    def constant_losses(self) -> dict[str, float]:
        """Loss of each task for that prediction: one squared deviation, and entropies in nats."""
        p = np.clip(self.morgan_frequency, 1e-12, 1 - 1e-12)
        return {
            "descriptors": 1.0,
            "morgan": float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()),
            "atoms": _entropy(self.atom_frequency),
            "bonds": _entropy(self.bond_frequency),
        }


def measure(dataset: Dataset) -> Statistics:
    """Statistics of molecules that `build_targets` made."""
    values = np.zeros((3, len(DESCRIPTORS)))  # number, sum, sum of squares of the finite ones
    bits, atoms, bonds = (
        np.zeros(n) for n in (MORGAN_BITS, ATOM_VOCAB_SIZES[0], BOND_VOCAB_SIZES[0])
    )
    for batch in dataset.with_format("numpy").iter(batch_size=5000):
        descriptors = np.stack(list(batch["descriptors"])).astype(np.float64)
        finite = np.isfinite(descriptors)
        descriptors = np.where(finite, descriptors, 0)
        values += np.stack([finite.sum(0), descriptors.sum(0), (descriptors**2).sum(0)])
        for counts, column, stride in (
            (bits, "morgan_bits", 1),
            (atoms, "graph_atoms", len(ATOM_VOCAB_SIZES)),
            (bonds, "graph_bond_features", len(BOND_VOCAB_SIZES)),
        ):
            flat = np.concatenate(list(batch[column]))[::stride].astype(np.int64)
            counts += np.bincount(flat, minlength=len(counts))
    mean = values[1] / np.maximum(values[0], 1)
    variance = values[2] / np.maximum(values[0], 1) - mean**2
    # What is left of a constant by rounding is no variance.
    variance[variance < 1e-10 * np.maximum(mean**2, 1)] = 0
    return Statistics(
        descriptor_mean=mean,
        descriptor_std=np.sqrt(variance),
        morgan_frequency=bits / len(dataset),
        atom_frequency=atoms / atoms.sum(),
        bond_frequency=bonds / max(bonds.sum(), 1),
        mean_atoms=float(atoms.sum() / len(dataset)),
    )


@dataclass(frozen=True)
class _Job:
    """All that the targets depend on besides the rows; its hash is part of the cache's key."""

    feature_extractor: Any
    code: str


def _build_batch(batch: dict[str, list], job: _Job) -> dict[str, list]:
    built = {column: [] for column in FEATURES}
    for values in zip(*batch.values(), strict=True):
        row = dict(zip(batch, values, strict=True))
        try:
            made = _build_row(row, job.feature_extractor)
        except MoleculeError as error:
            rejection = {
                "source": row["source"],
                "split": row["split"],
                "id": row["name"] or f"row {row['row']}",
                "row": row["row"],
                "column": "molecule",
                "value": row["molecule"],
                "reason": str(error),
            }
            made = {REJECTED: json.dumps(rejection, ensure_ascii=False)}
        made["source"] = row["source"]
        for column, cells in built.items():
            cells.append(made.get(column))
    return built


def _build_row(row: dict[str, Any], feature_extractor: Any) -> dict[str, Any]:
    text = row["molecule"]
    if text is None or not text.strip():
        raise MoleculeError("is empty")
    refuse_extension(text, row["name"])
    smiles = canonical_smiles(parse_molecule(text, feature_extractor.molecule_format))
    graph = feature_extractor.featurize(smiles, "smiles")
    mol = Chem.MolFromSmiles(smiles)
    return {
        "smiles": smiles,
        "atoms": len(graph["graph_atoms"]),
        **{name: array.flatten() for name, array in graph.items()},
        "descriptors": calculate_descriptors(mol),
        "morgan_bits": morgan_bits(mol),
    }


@cache
def _descriptor_functions() -> list:
    known = dict(Descriptors.descList)
    return [known[name] for name in DESCRIPTORS]


@cache
def _morgan_generator():
    return rdFingerprintGenerator.GetMorganGenerator(radius=MORGAN_RADIUS, fpSize=MORGAN_BITS)


def _entropy(frequency: np.ndarray) -> float:
    p = frequency[frequency > 0]
    return float(-(p * np.log(p)).sum())
