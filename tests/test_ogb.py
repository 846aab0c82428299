# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Our graphs against OGB's own, on QM9, on RDKit's NCI file and on MoleculeNet.

A fixed share of QM9 is compared, and all with `MORA_ALL_MOLECULES=1`. MoleculeNet is read from
`$MORA_DATA/moleculenet`, a folder with its CSV files, and left out where that is not given.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, RDConfig, rdBase

from modeling_mora import MoleculeError, MoleculeFeatureExtractor
from training.data.qm9 import read_qm9

ogb = pytest.importorskip("ogb.utils.mol")

COMPARE_ALL = os.environ.get("MORA_ALL_MOLECULES", "0") not in ("", "0")
MOLECULENET = Path(os.environ.get("MORA_DATA", "")) / "moleculenet"
MOLECULENET_FILES = sorted(MOLECULENET.glob("*.csv*")) if "MORA_DATA" in os.environ else []


def ogb_graph(smiles: str) -> dict[str, np.ndarray] | None:
    """OGB's graph of the canonical SMILES, or None where RDKit cannot read it.

    None for a placeholder atom too: we refuse it, where OGB takes it for an unknown element.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None or any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
            return None
        graph = ogb.smiles2graph(Chem.MolToSmiles(mol))
    return {
        "graph_atoms": graph["node_feat"],
        "graph_bonds": graph["edge_index"],
        "graph_bond_features": graph["edge_feat"],
    }


def compare(molecules: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each molecule with `"same"`, `"different"`, `"both fail"` or `"one fails"`."""
    # SIDER has 20 molecules above the default of 256 atoms.
    extract = MoleculeFeatureExtractor(max_atoms=1000, molecule_format="smiles")
    for smiles in molecules:
        expected = ogb_graph(smiles)
        try:
            found = extract.featurize(smiles)
        except MoleculeError:
            found = None
        if found is None or expected is None:
            yield smiles, "both fail" if found is expected else "one fails"
        else:
            same = all(np.array_equal(found[name], expected[name]) for name in expected)
            yield smiles, "same" if same else "different"


def check(molecules: list[str], unreadable: int) -> None:
    outcomes = list(compare(molecules))
    wrong = [pair for pair in outcomes if pair[1] in ("different", "one fails")]
    assert not wrong, f"{len(wrong)} of {len(molecules)}, such as {wrong[0]}"
    assert sum(outcome == "both fail" for _, outcome in outcomes) == unreadable


@pytest.mark.skipif(importlib.util.find_spec("qm9pack") is None, reason="qm9pack not installed")
def test_qm9():
    molecules = read_qm9()["SMILES"].tolist()
    assert len(molecules) == 130_831
    check(molecules if COMPARE_ALL else molecules[::10], unreadable=0)


def test_nci():
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    check([line.split()[0] for line in lines], unreadable=8)


@pytest.mark.skipif(not MOLECULENET_FILES, reason="MORA_DATA names no folder with moleculenet")
@pytest.mark.parametrize("path", MOLECULENET_FILES, ids=lambda path: path.name.split(".")[0])
def test_moleculenet(path: Path):
    table = pd.read_csv(path)
    molecules = table["smiles" if "smiles" in table else "mol"].tolist()
    unreadable = {"BBBP": 11, "clintox": 5, "tox21": 8, "HIV": 7}
    check(molecules, unreadable.get(path.name.split(".")[0], 0))
