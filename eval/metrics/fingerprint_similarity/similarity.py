# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How alike predicted and true molecules are: Tanimoto similarity of three fingerprints."""

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from rdkit.Chem.rdMolDescriptors import GetMACCSKeysFingerprint

from modeling_mora.molecules_mora import MoleculeError, parse_molecule, read_smiles

POLICIES = ("strict", "published")
NOTATIONS = ("smiles", "selfies")
FINGERPRINTS = {
    "maccs": GetMACCSKeysFingerprint,
    "rdk": Chem.RDKFingerprint,
    # Counts, not folded: what GetMorganFingerprint(mol, 2) of the published scripts gives.
    "morgan": GetMorganGenerator(radius=2).GetSparseCountFingerprint,
}


def score_rows(
    predictions: Sequence[str | None],
    references: Sequence[str],
    *,
    policy: str = "strict",
    notation: str = "smiles",
) -> dict[str, np.ndarray]:
    """Similarities of each row, of which `aggregate` makes the scores.

    Args:
        predictions: what a model wrote, one text per row; None stands for nothing.
        references: the true molecule of each row, several joined by dots.
        policy: `"strict"` or `"published"`; the README of this folder defines them.
        notation: how both are spelled, `"smiles"` or `"selfies"`.

    Returns:
        `valid` [n] bool, and `maccs`, `rdk`, `morgan` [n] float64 between 0 and 1, nan where a row
        is not valid.

    Raises:
        ValueError: no rows, lengths that differ, an unknown policy or notation, something that is
            no text, or, under `"strict"`, a reference that is no molecule.
    """
    _check(predictions, references, policy, notation)
    compare = _Comparison(policy, notation)
    with rdBase.BlockLogs():
        records = [
            compare.row(_text(prediction, "predictions", row), _text(true, "references", row), row)
            for row, (prediction, true) in enumerate(zip(predictions, references, strict=True))
        ]
    rows = dict(zip(FINGERPRINTS, np.array(records, float).T, strict=True))
    return rows | {"valid": ~np.isnan(rows["maccs"])}


def aggregate(rows: Mapping[str, np.ndarray]) -> dict[str, float | int | None]:
    """Scores of the rows, or of any resample `{key: value[index] for key, value in rows.items()}`.

    Returns:
        For each fingerprint the mean over the valid rows (None where there are none), and under
        `..._invalid_zero` the mean over all rows in which an invalid one counts as 0; `n` rows,
        `n_valid` of them valid.
    """
    n, n_valid = len(rows["valid"]), int(rows["valid"].sum())
    scores = {}
    for key in FINGERPRINTS:
        total = float(np.nansum(rows[key]))
        scores[key] = total / n_valid if n_valid else None
        scores[f"{key}_invalid_zero"] = total / n
    return scores | {"n": n, "n_valid": n_valid}


class _Comparison:
    """Compares texts by one policy; each text is read and each molecule's bits are set once."""

    def __init__(self, policy: str, notation: str):
        self.strict = policy == "strict"
        self.notation = notation
        self.read = cache(self._read)
        self.fingerprints = cache(self._fingerprints)

    def row(self, text: str, true_text: str, row: int) -> list[float]:
        """Similarity by each fingerprint; `row` is its number, for the error message."""
        smiles, true = self.read(text), self.read(true_text)
        if true is None and self.strict:
            _refuse_reference(true_text, self.notation, row)
        if smiles is None or true is None:
            return [math.nan] * len(FINGERPRINTS)
        # Single atoms set no bit of the RDKit fingerprint, and RDKit takes 0/0 for 0.
        if smiles == true and self.strict:
            return [1.0] * len(FINGERPRINTS)
        pairs = zip(self.fingerprints(smiles), self.fingerprints(true), strict=True)
        return [DataStructs.TanimotoSimilarity(one, other) for one, other in pairs]

    def _read(self, text: str) -> str | None:
        smiles = read_smiles(text, self.notation)
        if smiles is None or self.strict:
            return smiles
        # As the scripts have it; this drops isotopes together with the stereo.
        return Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)

    def _fingerprints(self, smiles: str) -> list:
        mol = Chem.MolFromSmiles(smiles)
        return [fingerprint(mol) for fingerprint in FINGERPRINTS.values()]


def _text(value: str | None, name: str, row: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name}, row {row}: {value!r} is no text: pass a string or None.")
    return value.strip()


def _refuse_reference(text: str, notation: str, row: int) -> None:
    try:
        parse_molecule(text, notation)
    except MoleculeError as error:
        raise ValueError(f"references, row {row}: {error}") from error


def _check(predictions: Sequence, references: Sequence, policy: str, notation: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}: use one of {', '.join(POLICIES)}.")
    if notation not in NOTATIONS:
        raise ValueError(f"notation={notation!r}: use one of {', '.join(NOTATIONS)}.")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references: pass one prediction "
            "per row, None where there is none."
        )
    if len(predictions) == 0:
        raise ValueError("There are no rows to score: pass at least one prediction.")
