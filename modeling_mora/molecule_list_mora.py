# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of molecules, from a file or from Python, checked as a whole before anything is done."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .feature_extraction_mora import MoleculeFeatureExtractor
from .molecules_mora import MoleculeError, canonical_smiles, parse_molecule

# None of these words is a SMILES, so a header is never mistaken for a molecule.
HEADERS = ("smiles", "canonical_smiles", "smi", "selfies", "inchi", "molecule", "mol")


@dataclass(frozen=True)
class ListedMolecule:
    """A molecule of a list, known to become a graph.

    Attributes:
        line: its line in the file, or its position in the list, from 1.
        name: what the file calls it; may be empty.
        molecule: as it was given: SMILES, SELFIES, InChI or RDKit `Mol`.
        smiles: its canonical SMILES.
    """

    line: int
    name: str
    molecule: Any
    smiles: str


def read_molecules(path: str | Path, extractor: MoleculeFeatureExtractor) -> list[ListedMolecule]:
    """Read a SMILES file: one molecule a line, behind white space an optional name.

    Blank lines and lines that start with `#` are skipped, and so is a first line whose first word
    is a column's name such as `smiles`. SELFIES and InChI are read too, as by `extractor`.

    Args:
        path: the file, in UTF-8.
        extractor: the checkpoint's own; says what can become a graph.

    Raises:
        MoleculeError: lines cannot become graphs (all are listed, with number, value and reason),
            or the file holds no molecule.
        OSError: the file cannot be read.
    """
    return _check(read_lines(path), extractor, str(path))


def read_lines(path: str | Path) -> list[tuple[int, str, str]]:
    """The lines of a SMILES file, see `read_molecules`, without looking at the molecules.

    Returns:
        For each its number in the file, from 1, its name, which may be empty, and its molecule.

    Raises:
        MoleculeError: the file is no text or holds no molecule.
        OSError: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MoleculeError(f"{path} is not a text file in UTF-8: {error}") from error
    # Not splitlines(), which also cuts at characters that editors do not count as line ends.
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if lines and lines[0][1].split()[0].lower() in HEADERS:
        del lines[0]
    if not lines:
        raise MoleculeError(f"{path} holds no molecule: write one SMILES a line.")
    fields = [(number, *line.split(maxsplit=1)) for number, line in lines]
    return [(f[0], f[2] if len(f) > 2 else "", f[1]) for f in fields]


def refuse_extension(molecule: str, name: str) -> None:
    """Raise a `MoleculeError` if what stands behind a molecule is a part of it and no name."""
    # RDKit writes stereo groups and radicals there; dropped silently, another molecule would be
    # read.
    if name.startswith("|"):
        raise MoleculeError(
            f"Molecule {molecule!r} carries a CXSMILES extension ({name}), which is not read. "
            "Remove it or drop the row."
        )


def list_molecules(
    molecules: Iterable[Any], extractor: MoleculeFeatureExtractor
) -> list[ListedMolecule]:
    """Check molecules that are given in Python: SMILES, SELFIES, InChI or RDKit `Mol`.

    Raises:
        MoleculeError: some cannot become graphs; all of them are listed.
    """
    entries = [(number, "", molecule) for number, molecule in enumerate(molecules, start=1)]
    return _check(entries, extractor, "The list")


def _check(
    entries: list[tuple[int, str, Any]], extractor: MoleculeFeatureExtractor, source: str
) -> list[ListedMolecule]:
    listed, problems = [], []
    for line, name, molecule in entries:
        try:
            refuse_extension(molecule, name)
            mol = parse_molecule(molecule, extractor.molecule_format)
            extractor.featurize(molecule)
            listed.append(ListedMolecule(line, name, molecule, canonical_smiles(mol)))
        except MoleculeError as error:
            problems.append(f"  line {line}: {error}")
    if problems:
        raise MoleculeError(
            f"{source} holds {len(problems)} of {len(entries)} molecules that cannot be used:\n"
            + "\n".join(problems)
        )
    return listed


__all__ = ["ListedMolecule", "list_molecules", "read_molecules"]
