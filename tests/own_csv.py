# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A table as a laboratory might have it: 200 rows, 12 of which cannot be used.

    python tests/own_csv.py logp.csv

The molecules are from the NCI file that comes with RDKit; logP is RDKit's Crippen estimate.
"""

import csv
import sys
from pathlib import Path

from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import Crippen

ROWS = 200
HEADER = ("compound", "SMILES", "logP")
# By the line of the file, what stands there instead; None leaves a cell as it is.
BROKEN = {
    12: ("c1ccc(cc1", None),  # brackets and rings that are not closed
    27: ("CC(=O)N(C)(C)C", None),  # nitrogen with four bonds and no charge
    41: ("", None),
    58: (None, ""),
    66: (None, "2,13"),
    83: (None, "inf"),
    97: (None, "1.94 mg/L"),
    104: ("CCO CC", None),
    120: ("C" * 300, None),  # more than max_atoms
    139: (None,),  # a row without its last cell
    155: ("NCC(=O)" * 50 + "O", None),  # 201 heavy atoms, but too many tokens
    178: (None, "N/A"),
}
# Not broken: the molecule of line 2 once more, measured again.
REPEATED = 190


def write_own_csv(path: Path) -> None:
    """Write the table to `path`."""
    rows = list(_molecules())
    first = rows[0]
    rows[REPEATED - 2] = (rows[REPEATED - 2][0], first[1], f"{float(first[2]) + 0.31:.2f}")
    for line, cells in BROKEN.items():
        compound, *good = rows[line - 2]
        rows[line - 2] = (
            compound,
            *(g if c is None else c for c, g in zip(cells, good, strict=False)),
        )
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def _molecules():
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    found = 0
    for line in lines[::20]:
        smiles, number = line.split()[:2]
        with rdBase.BlockLogs():
            mol = Chem.MolFromSmiles(smiles)
        if mol is None or mol.GetNumHeavyAtoms() > 40:
            continue
        yield f"NSC-{number}", smiles, f"{Crippen.MolLogP(mol):.2f}"
        found += 1
        if found == ROWS:
            return


if __name__ == "__main__":
    write_own_csv(Path(sys.argv[1]))
