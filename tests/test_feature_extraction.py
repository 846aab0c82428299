# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Molecules to graph tensors: OGB's features, every notation, padding, and errors that help."""

import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem, RDConfig

from modeling_mora import molecules_mora
from modeling_mora.feature_extraction_mora import (
    ATOM_VOCAB_SIZES,
    BOND_VOCAB_SIZES,
    MoleculeFeatureExtractor,
)
from modeling_mora.molecules_mora import MoleculeError, canonical_smiles, parse_molecule

ETHANOL = {
    "graph_atoms": [
        # element, chirality, degree, charge, hydrogens, radicals, hybridisation, aromatic, ring
        [5, 0, 4, 5, 3, 0, 2, 0, 0],
        [5, 0, 4, 5, 2, 0, 2, 0, 0],
        [7, 0, 2, 5, 1, 0, 2, 0, 0],
    ],
    "graph_bonds": [[0, 1, 1, 2], [1, 0, 2, 1]],
    "graph_bond_features": [[0, 0, 0]] * 4,
}
STEREO = [
    "C[C@H](N)C(=O)O",
    "C[C@@H](N)C(=O)O",
    "F/C=C/F",
    "F/C=C\\F",
    "C[C@H]1CC[C@@H](O)CC1",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "Cl[C@H](/C=C/C)Br",
]


@pytest.fixture
def extract() -> MoleculeFeatureExtractor:
    return MoleculeFeatureExtractor()


def nci_smiles(count: int) -> list[str]:
    """Every n-th molecule of the NCI file that comes with RDKit."""
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    smiles = [line.split()[0] for line in lines[:: len(lines) // count]]
    return [s for s in smiles if Chem.MolFromSmiles(s) is not None]


def assert_same_graph(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_ethanol_by_hand(extract):
    graph = extract.featurize("CCO")
    assert_same_graph(graph, ETHANOL)
    assert all(array.dtype == np.int64 for array in graph.values())


def test_features_by_hand(extract):
    """Charge, aromaticity, ring, chirality, bond stereo, radical and components show."""
    assert extract.featurize("[NH4+]")["graph_atoms"].tolist() == [[6, 0, 4, 6, 4, 0, 2, 0, 0]]
    assert extract.featurize("[CH3]")["graph_atoms"].tolist() == [[5, 0, 3, 5, 3, 1, 2, 0, 0]]
    assert extract.featurize("[Na+].[Cl-]")["graph_atoms"][:, [0, 3]].tolist() in (
        [[10, 6], [16, 4]],
        [[16, 4], [10, 6]],
    )
    benzene = extract.featurize("c1ccccc1")
    assert (benzene["graph_atoms"] == [5, 0, 3, 5, 1, 0, 1, 1, 1]).all()
    assert (benzene["graph_bond_features"] == [3, 0, 1]).all()
    # The example in OGB's own source, whose SMILES is not RDKit's canonical one.
    chiral = extract.featurize("Cl[C@H](/C=C/C)Br")
    assert sorted(chiral["graph_atoms"][:, 1].tolist()) in ([0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 2])
    assert [1, 2, 0] in chiral["graph_bond_features"].tolist()


@pytest.mark.parametrize("smiles", [STEREO, nci_smiles(300)], ids=["stereo", "nci"])
def test_equal_to_ogb(extract, smiles):
    features = pytest.importorskip("ogb.utils.mol")
    for text in smiles:
        expected = features.smiles2graph(Chem.CanonSmiles(text))
        found = extract.featurize(text)
        np.testing.assert_array_equal(found["graph_atoms"], expected["node_feat"], err_msg=text)
        np.testing.assert_array_equal(found["graph_bonds"], expected["edge_index"], err_msg=text)
        np.testing.assert_array_equal(
            found["graph_bond_features"], expected["edge_feat"], err_msg=text
        )


def test_features_stay_inside_the_vocabulary(extract):
    odd = ["[U+6]", "F[P-](F)(F)(F)(F)F", "[Og]", "N->[Cu+2]", "F[S](F)(F)(F)(F)F", "[C]", "[SiH4]"]
    for smiles in odd + STEREO + nci_smiles(300):
        graph = extract.featurize(smiles)
        assert (graph["graph_atoms"] >= 0).all()
        assert (graph["graph_atoms"] < ATOM_VOCAB_SIZES).all(), smiles
        assert (graph["graph_bond_features"] >= 0).all()
        assert (graph["graph_bond_features"] < BOND_VOCAB_SIZES).all(), smiles
    # What the vocabulary does not name is the last index, "anything else".
    assert extract.featurize("[U+6]")["graph_atoms"][0, 3] == ATOM_VOCAB_SIZES[3] - 1
    assert 4 in extract.featurize("N->[Cu+2]")["graph_bond_features"][:, 0]


@pytest.mark.parametrize("smiles", [*STEREO, *nci_smiles(30)])
def test_graph_is_that_of_the_molecule_not_of_its_smiles(extract, smiles):
    mol = Chem.MolFromSmiles(smiles)
    expected = extract.featurize(smiles)
    order = list(range(mol.GetNumAtoms()))
    for seed in range(5):
        random.Random(seed).shuffle(order)
        renumbered = Chem.RenumberAtoms(mol, order)
        assert_same_graph(extract.featurize(renumbered), expected)
        rewritten = Chem.MolToSmiles(renumbered, doRandom=True, canonical=False)
        assert_same_graph(extract.featurize(rewritten), expected)


@pytest.mark.parametrize("pair", [STEREO[0:2], STEREO[2:4]])
def test_stereoisomers_differ(extract, pair):
    one, other = (extract.featurize(smiles) for smiles in pair)
    assert not all((one[name] == other[name]).all() for name in one)


def test_every_notation_gives_the_same_graph(extract):
    for ethanol in (
        " OCC\n",
        "[C][C][O]",
        "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3",
        "[CH3:7][CH2:2][OH:1]",
        "[H]OCC",
        Chem.MolFromSmiles("CCO"),
        Chem.AddHs(Chem.MolFromSmiles("CCO")),
        Chem.MolFromSmiles("CCO", sanitize=False),
    ):
        assert_same_graph(extract.featurize(ethanol), ETHANOL)


def test_bracket_tokens_are_selfies_unless_told_otherwise(extract):
    assert extract("[C]")["graph_atoms"][0, 0, 4] == 4
    assert extract("[C]", molecule_format="smiles")["graph_atoms"][0, 0, 4] == 0
    assert MoleculeFeatureExtractor(molecule_format="smiles")("[C]")["graph_atoms"][0, 0, 4] == 0
    assert len(extract.featurize("[Na+].[Cl-]")["graph_atoms"]) == 2


@pytest.mark.parametrize("text", ["C\N{MINUS SIGN}C", "\ufffd" * 60 + "$\ufffd" * 60, "CCÖ"])
def test_foreign_characters_are_named(extract, text):
    foreign = next(character for character in text if ord(character) > 127)
    with pytest.raises(MoleculeError, match=f"contains {foreign!r}, which stands in no SMILES"):
        extract.featurize(text)


@pytest.mark.parametrize("text", ["C[O]", "answer:[C][O]", "hello"])
def test_selfies_start_with_a_token(text):
    with pytest.raises(MoleculeError, match="does not start with a token in brackets"):
        parse_molecule(text, "selfies")


@pytest.mark.parametrize(
    ("mapped", "smiles"),
    [
        ("[CH3:1][OH:2]", "CO"),
        ("[CH3:1][C@H](F)[OH:2]", "C[C@@H](O)F"),
        # Only the maps told the two methyl groups apart.
        ("[CH3:1][C@H]([CH3:2])O", "CC(C)O"),
        ("[CH3:1]/C=C(/[CH3:2])[CH3:3]", "CC=C(C)C"),
    ],
)
def test_canonical_smiles_is_that_of_the_molecule_without_maps(mapped, smiles):
    mol = parse_molecule(mapped)
    assert canonical_smiles(mol) == smiles
    assert any(atom.GetAtomMapNum() for atom in mol.GetAtoms())


def test_mol_is_left_as_it_was(extract):
    mol = Chem.AddHs(Chem.MolFromSmiles("[CH3:7]O"))
    before = mol.ToBinary()
    extract(mol)
    assert mol.ToBinary() == before
    assert parse_molecule("[CH3:7]O").GetAtomWithIdx(0).GetAtomMapNum() == 7


def test_padding(extract):
    batch = extract(["CCO", None, "C"], return_tensors="pt")
    assert list(batch) == extract.model_input_names
    assert batch["graph_atoms"].shape == (3, 3, 9)
    assert batch["graph_atom_mask"].tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert batch["graph_bonds"].shape == (3, 2, 4)
    assert batch["graph_bond_features"].shape == (3, 4, 3)
    assert batch["graph_bond_mask"].tolist() == [[True] * 4, [False] * 4, [False] * 4]
    for name, tensor in batch.items():
        assert tensor.dtype == (torch.bool if name.endswith("mask") else torch.int64)
    for name, array in ETHANOL.items():
        assert batch[name][0].tolist() == array
    assert not batch["graph_atoms"][~batch["graph_atom_mask"]].any()


@pytest.mark.parametrize("molecules", [None, [None, None], "C"])
def test_tensors_are_never_empty(extract, molecules):
    batch = extract(molecules)
    assert all(0 not in array.shape for array in batch.values())
    assert batch["graph_atom_mask"].any() == (molecules == "C")


def test_stored_graphs_pad_like_fresh_ones(extract):
    molecules = ["CCO", None, "C"]
    stored = [
        {name: array.tolist() for name, array in extract.featurize(molecule).items()}
        for molecule in molecules
    ]
    expected = extract(molecules)
    for name, array in extract.pad(stored, return_tensors="np").items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.shape == expected[name].shape


@pytest.mark.parametrize(
    ("molecule", "reason"),
    [
        ("", "is empty: pass None"),
        (" \n", "is empty: pass None"),
        ("CCO ethanol", "contains blanks"),
        ("C1CC", "not a valid SMILES"),
        ("c1cccc1", "not a valid SMILES"),
        ("CC>>CO", "not a valid SMILES"),
        ("InChI=1S/nonsense", "not a valid InChI"),
        ("[nop]", "a SELFIES of no atoms"),
        ("*CC", r"placeholder .* at atom 0"),
        ("[1*]C", r"placeholder .* at atom 0"),
        (Chem.MolFromSmiles("c1cccc1", sanitize=False), "Can't kekulize"),
        (Chem.Mol(), "has no atoms"),
        (float("nan"), "has type float"),
        (17, "has type int"),
    ],
)
def test_bad_molecule_names_row_and_reason(extract, molecule, reason, capfd):
    with pytest.raises(MoleculeError, match=rf"(?s)^Row 1: Mol.*{reason}") as raised:
        extract(["CCO", molecule])
    if isinstance(molecule, str):
        assert repr(molecule) in str(raised.value)
    assert capfd.readouterr().err == ""  # the reason is in the error, not on the screen
    # A worker process hands the error on by pickling it or by its message alone.
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.skipif(
    not hasattr(molecules_mora.rdBase, "CaptureErrorLog"), reason="RDKit before 2026.3"
)
@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1CC", "unclosed ring"),
        ("c1cccc1", "Can't kekulize mol"),
        ("CN(C)(C)(C)C", "Explicit valence for atom # 1 N, 5"),
        ("CC(", "position 3"),
    ],
)
def test_bad_smiles_gives_rdkits_own_reason(smiles, reason):
    with pytest.raises(MoleculeError, match=reason) as raised:
        parse_molecule(smiles)
    assert "\n" not in str(raised.value)
    assert not str(raised.value).startswith("Row")


def test_rdkit_without_log_capture_still_gives_a_clear_error(monkeypatch):
    monkeypatch.delattr(molecules_mora.rdBase, "CaptureErrorLog", raising=False)
    assert parse_molecule("CCO").GetNumAtoms() == 3
    with pytest.raises(MoleculeError, match="'C1CC' is not a valid SMILES: RDKit gives no reason"):
        parse_molecule("C1CC")


def test_reasons_do_not_mix_between_threads(monkeypatch):
    def reason(smiles: str) -> str:
        with pytest.raises(MoleculeError) as raised:
            parse_molecule(smiles)
        return str(raised.value)

    bad = ["C1CC", "c1cccc1", "CN(C)(C)(C)C", "CC("]
    expected = [reason(smiles) for smiles in bad]
    read = Chem.MolFromSmiles

    def interrupted(smiles: str) -> Chem.Mol | None:
        time.sleep(0.01)  # lets the other threads run
        return read(smiles)

    monkeypatch.setattr(molecules_mora.Chem, "MolFromSmiles", interrupted)
    with ThreadPoolExecutor(len(bad)) as pool:
        assert list(pool.map(reason, bad)) == expected


def test_reading_a_molecule_prints_nothing(extract, capfd):
    extract(["[H][H]", "[H-].C"])  # RDKit warns about such hydrogens
    assert capfd.readouterr().err == ""


def test_too_large_molecule_is_refused_not_cut():
    extract = MoleculeFeatureExtractor(max_atoms=4)
    assert extract("CCCC")["graph_atom_mask"].sum() == 4
    with pytest.raises(MoleculeError, match=r"5 heavy atoms, more than max_atoms=4"):
        extract("CCCCC")


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="max_atoms is 0"):
        MoleculeFeatureExtractor(max_atoms=0)
    with pytest.raises(ValueError, match="'mol2'.*smiles"):
        MoleculeFeatureExtractor(molecule_format="mol2")
    with pytest.raises(ValueError, match="'mol2'.*smiles"):
        MoleculeFeatureExtractor()("C", molecule_format="mol2")


def test_missing_packages_are_named(extract, monkeypatch):
    monkeypatch.setattr(molecules_mora, "selfies", None)
    assert extract("CCO")["graph_atom_mask"].sum() == 3
    for settings in ({}, {"molecule_format": "selfies"}):
        with pytest.raises(ImportError, match="pip install selfies"):
            extract("[C][C][O]", **settings)
    monkeypatch.setattr(molecules_mora, "Chem", None)
    with pytest.raises(ImportError, match="pip install rdkit"):
        extract("CCO")


def test_combine_makes_one_molecule_of_several(extract):
    joined = extract.combine(["CCO", "InChI=1S/CH4/h1H4", Chem.MolFromSmiles("O")])
    assert_same_graph(extract.featurize(joined), extract.featurize("C.O.OCC"))
    with pytest.raises(MoleculeError, match="^Row 7: Molecule 'C1'"):
        extract.combine(["CCO", "C1"], row=7)


def test_save_and_load(tmp_path):
    MoleculeFeatureExtractor(max_atoms=7, molecule_format="smiles").save_pretrained(tmp_path)
    loaded = MoleculeFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.max_atoms, loaded.molecule_format) == (7, "smiles")
