# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicted molecules against true ones: the same molecule, and how far apart as text."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein
from rdkit import Chem, rdBase
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from modeling_mora.molecules_mora import MoleculeError, parse_molecule, read_smiles

POLICIES = ("strict", "published")
NOTATIONS = ("smiles", "selfies")
MEANS = (
    "exact_match",
    "exact_match_no_stereo",
    "exact_match_inchi",
    "levenshtein",
    "levenshtein_canonical",
)
# BLEU is over n-grams of 1 to 4 characters.
ORDERS = np.arange(1, 5)


def score_rows(
    predictions: Sequence[str | None],
    references: Sequence[str],
    *,
    policy: str = "strict",
    notation: str = "smiles",
) -> dict[str, np.ndarray]:
    """Statistics of each row, of which `aggregate` makes the scores.

    Args:
        predictions: what a model wrote, one text per row; None stands for nothing.
        references: the true molecule of each row, several joined by dots.
        policy: `"strict"` or `"published"`; the README of this folder defines them.
        notation: how both are spelled, `"smiles"` or `"selfies"`.

    Returns:
        Arrays whose first axis is the rows: `valid` [n] bool, one array [n] of float64 per name in
        `MEANS` (nan where a row takes no part in that mean), and what BLEU is made of:
        `bleu_matches` and `bleu_ngrams` [n, 4], `bleu_lengths` [n, 2] (prediction, reference).

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
    rows = {key: np.array([record[key] for record in records], float) for key in records[0]}
    return rows | {"valid": rows["valid"].astype(bool)}


def aggregate(rows: Mapping[str, np.ndarray]) -> dict[str, float | int | None]:
    """Scores of the rows, or of any resample `{key: value[index] for key, value in rows.items()}`.

    Returns:
        The names in `MEANS`, `bleu` and `validity`, each between 0 and 1 except the Levenshtein
        distances (characters) and None where no row takes part; `n` rows, `n_valid` of them valid.
    """
    n, n_valid = len(rows["valid"]), int(rows["valid"].sum())
    scores = {key: _mean(rows[key]) for key in MEANS}
    return scores | {"bleu": _bleu(rows), "validity": n_valid / n, "n": n, "n_valid": n_valid}


class _Comparison:
    """Compares texts by one policy; nothing is computed twice for a molecule."""

    def __init__(self, policy: str, notation: str):
        self.strict = policy == "strict"
        self.notation = notation
        self.read = cache(self._read)

    def row(self, text: str, true_text: str, row: int) -> dict[str, Any]:
        """Statistics of one row; `row` is its number, for the error message."""
        smiles, true = self.read(text), self.read(true_text)
        if true is None and self.strict:
            _refuse_reference(true_text, self.notation, row)
        valid = smiles is not None and true is not None
        record = {"valid": valid, **dict.fromkeys(MEANS, math.nan)}
        if not valid and not self.strict:
            zeros = np.zeros(4)
            return record | {
                "bleu_matches": zeros,
                "bleu_ngrams": zeros,
                "bleu_lengths": zeros[:2],
            }
        record |= {
            "exact_match": 0,
            "exact_match_no_stereo": 0,
            "exact_match_inchi": 0,
            "levenshtein": Levenshtein.distance(text, true_text),
            "bleu_matches": [_shared_ngrams(text, true_text, order) for order in ORDERS],
            # As nltk counts them: a text too short for an n-gram has one, which does not match.
            "bleu_ngrams": np.maximum(1, len(text) - ORDERS + 1),
            "bleu_lengths": [len(text), len(true_text)],
        }
        if valid:
            equal = smiles == true
            # What differs in its formula differs in everything else.
            alike = equal or _formula(smiles) == _formula(true)
            record["exact_match"] = equal
            record["exact_match_no_stereo"] = equal or (
                alike and _drop_stereo(smiles) == _drop_stereo(true)
            )
            # What InChI cannot spell, such as a wildcard, has an empty one, which equals nothing.
            record["exact_match_inchi"] = equal or (alike and _inchi(smiles) == _inchi(true) != "")
            record["levenshtein_canonical"] = Levenshtein.distance(smiles, true)
            if not self.strict:
                record["exact_match"] = record["exact_match_inchi"]
                record["levenshtein"] = record["levenshtein_canonical"]
        return record

    def _read(self, text: str) -> str | None:
        smiles = read_smiles(text, self.notation)
        if smiles is None or self.strict:
            return smiles
        # As the scripts have it; this drops isotopes together with the stereo.
        return Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)


@lru_cache(maxsize=2**14)
def _formula(smiles: str) -> str:
    return CalcMolFormula(Chem.MolFromSmiles(smiles))


def _inchi(smiles: str) -> str:
    return Chem.MolToInchi(Chem.MolFromSmiles(smiles))


def _drop_stereo(smiles: str) -> str:
    mol = Chem.MolFromSmiles(smiles)
    Chem.RemoveStereochemistry(mol)
    # A hydrogen stays an atom where it carries the stereo of a double bond, as in [H]/N=C/F.
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def _shared_ngrams(prediction: str, reference: str, order: int) -> int:
    """How many n-grams of the prediction the reference holds, each at most as often as it does."""
    if prediction == reference:
        return max(0, len(prediction) - order + 1)
    return (_ngrams(prediction, order) & _ngrams(reference, order)).total()


def _ngrams(text: str, order: int) -> Counter:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _bleu(rows: Mapping[str, np.ndarray]) -> float | None:
    """Corpus BLEU of the counts, with uniform weights and no smoothing (Papineni et al. 2002)."""
    matches, ngrams = rows["bleu_matches"].sum(axis=0), rows["bleu_ngrams"].sum(axis=0)
    if not ngrams.all():
        return None  # No row takes part.
    if not matches.all():
        return 0.0
    length, true_length = rows["bleu_lengths"].sum(axis=0)
    brevity = min(0.0, 1 - true_length / length)
    return math.exp(brevity + np.log(matches / ngrams).mean())


def _mean(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


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
