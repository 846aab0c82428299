# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing molecules: SMILES, SELFIES, InChI and RDKit `Mol`."""

import contextlib
import functools
import re
import threading
from typing import Any

try:
    from rdkit import Chem, rdBase
except ImportError:
    Chem = None

try:
    import selfies
except ImportError:
    selfies = None

MOLECULE_FORMATS = ("auto", "smiles", "selfies", "inchi")

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
    name = describe(molecule, row)
    if isinstance(molecule, Chem.Mol):
        mol, reason = call_rdkit(Chem.RemoveHs, molecule)
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
        foreign = next((character for character in text if not character.isascii()), None)
        if foreign is not None:
            raise MoleculeError(
                f"{name} contains {foreign!r}, which stands in no SMILES, SELFIES or InChI: it may "
                "be a typographic dash or quote."
            )
        kind = _detect_format(text) if molecule_format == "auto" else molecule_format
        if kind == "selfies":
            text = _decode_selfies(text, name)
        mol, reason = call_rdkit(Chem.MolFromInchi if kind == "inchi" else Chem.MolFromSmiles, text)
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
    smiles = Chem.MolToSmiles(mol)
    if not re.search(r":\d+\]", smiles):
        return smiles
    mol = Chem.Mol(mol)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    # What only the maps told apart is no centre: [CH3:1][C@H]([CH3:2])O is isopropanol.
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return Chem.MolToSmiles(mol)


# A text is scored by several metrics, and SELFIES take a third of a millisecond to decode.
@functools.lru_cache(maxsize=2**14)
def read_smiles(text: str, notation: str) -> str | None:
    """Canonical SMILES of what a model wrote, or None if it is no molecule.

    Args:
        text: the answer; anything beside the molecule makes it none.
        notation: `"smiles"` or `"selfies"`.
    """
    try:
        return canonical_smiles(parse_molecule(text, notation))
    except MoleculeError:
        return None


def to_selfies(smiles: str) -> str:
    """Spell molecules, given as SMILES, as SELFIES.

    Raises:
        MoleculeError: SELFIES has no word for something in it.
        ImportError: selfies is not installed.
    """
    if selfies is None:
        raise ImportError("Writing SELFIES needs the selfies package: pip install selfies")
    try:
        return selfies.encoder(smiles)
    except selfies.EncoderError as error:
        reason = " ".join(str(error).split())
        raise MoleculeError(f"{smiles!r} cannot be written as SELFIES: {reason}") from error


def describe(molecule: Any, row: int | None) -> str:
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
    # The decoder would drop what stands before the first bracket: C[O] would be water.
    if not text.startswith(("[", ".")):
        raise MoleculeError(
            f"{name} is not a valid SELFIES: it does not start with a token in brackets. Correct "
            "it or drop the row."
        )
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


def call_rdkit(function, argument) -> tuple[Any, str]:
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


__all__ = ["MoleculeError", "canonical_smiles", "parse_molecule", "read_smiles", "to_selfies"]
