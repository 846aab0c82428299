# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of molecules: every line is read, skipped by a rule, or reported."""

from pathlib import Path

import pytest
from rdkit import Chem, RDLogger

from modeling_mora import MoleculeError, MoleculeFeatureExtractor
from modeling_mora.molecule_list_mora import HEADERS, list_molecules, read_molecules

EXTRACTOR = MoleculeFeatureExtractor(max_atoms=20)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_names_comments_and_header(tmp_path: Path, encoding: str, end: str):
    lines = [
        "# made by hand",
        "SMILES name",
        "OCC ethanol",
        "",
        "c1ccccc1\ta/b, the ring  ",
        "  [C][O]",
        "#N not a molecule",
        "InChI=1S/CH4/h1H4 Größe\u2028eins",
        "[CH3:7]C",
    ]
    found = read_molecules(write(tmp_path / "m.smi", end.join(lines), encoding), EXTRACTOR)
    assert [(m.line, m.name, m.molecule, m.smiles) for m in found] == [
        (3, "ethanol", "OCC", "CCO"),
        (5, "a/b, the ring", "c1ccccc1", "c1ccccc1"),
        (6, "", "[C][O]", "CO"),
        (8, "Größe\u2028eins", "InChI=1S/CH4/h1H4", "C"),
        (9, "", "[CH3:7]C", "CC"),
    ]


def test_a_header_is_never_a_molecule():
    RDLogger.DisableLog("rdApp.*")
    words = [form for word in HEADERS for form in (word, word.upper(), word.title())]
    assert not [word for word in words if Chem.MolFromSmiles(word) is not None]
    RDLogger.EnableLog("rdApp.*")


def test_all_bad_lines_are_listed(tmp_path: Path):
    text = "CCO\nC(C broken\nsmiles\nc1ccccc1\n*C\nC |$R$| x\n" + "C" * 21
    with pytest.raises(MoleculeError) as error:
        read_molecules(write(tmp_path / "m.smi", text), EXTRACTOR)
    first, *lines = str(error.value).splitlines()
    assert first.endswith("m.smi holds 5 of 7 molecules that cannot be used:")
    for line, (start, reason) in zip(
        lines,
        [
            ("line 2: Molecule 'C(C'", "is not a valid SMILES"),
            ("line 3: Molecule 'smiles'", "is not a valid SMILES"),
            ("line 5: Molecule '*C'", "placeholder"),
            ("line 6: Molecule 'C'", "CXSMILES"),
            ("line 7: Molecule 'CCC", "21 heavy atoms, more than max_atoms=20"),
        ],
        strict=True,
    ):
        assert line.strip().startswith(start) and reason in line


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n", "smiles\n"])
def test_a_file_without_molecules(tmp_path: Path, text: str):
    with pytest.raises(MoleculeError, match=r"m\.smi holds no molecule"):
        read_molecules(write(tmp_path / "m.smi", text), EXTRACTOR)


def test_a_file_that_is_not_text(tmp_path: Path):
    with pytest.raises(MoleculeError, match="not a text file in UTF-8"):
        read_molecules(write(tmp_path / "m.smi", "C größer", "latin-1"), EXTRACTOR)
    with pytest.raises(OSError, match="none.smi"):
        read_molecules(tmp_path / "none.smi", EXTRACTOR)


def test_molecules_from_python():
    mol = Chem.MolFromSmiles("OC")
    found = list_molecules(["OCC", mol], EXTRACTOR)
    assert [(m.line, m.smiles) for m in found] == [(1, "CCO"), (2, "CO")]
    with pytest.raises(MoleculeError, match="(?s)1 of 2.*line 2: Molecule 'X'"):
        list_molecules(["C", "X"], EXTRACTOR)
