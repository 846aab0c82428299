# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Fingerprint similarity, with RDKit's own functions as oracle."""

import random
from pathlib import Path

import numpy as np
import pytest
from molecule_cases import CASES, SMILES
from rdkit import Chem, DataStructs, RDConfig, rdBase
from rdkit.Chem import AllChem, MACCSkeys

from eval.metrics.fingerprint_similarity.similarity import FINGERPRINTS, aggregate, score_rows
from eval.metrics.molecule_match import matching

NCI = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"


def by_rdkit(prediction: str, reference: str) -> dict[str, float]:
    """What the published scripts call, for one pair."""
    one, other = Chem.MolFromSmiles(prediction), Chem.MolFromSmiles(reference)
    tanimoto = DataStructs.TanimotoSimilarity
    morgan = [AllChem.GetMorganFingerprint(mol, 2) for mol in (one, other)]
    return {
        "maccs": tanimoto(MACCSkeys.GenMACCSKeys(one), MACCSkeys.GenMACCSKeys(other)),
        "rdk": tanimoto(Chem.RDKFingerprint(one), Chem.RDKFingerprint(other)),
        "morgan": tanimoto(*morgan),
    }


@pytest.mark.parametrize("policy", ["strict", "published"])
def test_similarities_are_those_of_rdkit(policy: str):
    with rdBase.BlockLogs():
        mols = [Chem.MolFromSmiles(line.split()[0]) for line in NCI.open()]
        mols = random.Random(0).sample([mol for mol in mols if mol], 200)
        isomeric = policy == "strict"
        references = [Chem.MolToSmiles(mol, isomericSmiles=isomeric) for mol in mols]
        predictions = references[1:] + references[-1:]
        pairs = list(zip(predictions, references, strict=True))
        expected = [by_rdkit(*pair) for pair in pairs]
    rows = score_rows(predictions, references, policy=policy)
    for key in FINGERPRINTS:
        assert rows[key].tolist() == [similarities[key] for similarities in expected]
    assert len({similarities["morgan"] for similarities in expected}) > 50


def test_invalid_rows_are_left_out_or_zero():
    scores = aggregate(score_rows(["CCO", "C1CC", None, "CCN"], ["CCO"] * 4))
    expected = by_rdkit("CCN", "CCO")
    assert (scores["n"], scores["n_valid"]) == (4, 2)
    for key in FINGERPRINTS:
        assert scores[key] == pytest.approx((1 + expected[key]) / 2)
        assert scores[f"{key}_invalid_zero"] == pytest.approx((1 + expected[key]) / 4)


def test_no_valid_row_has_no_similarity_but_a_zero():
    scores = aggregate(score_rows(["", "C1CC"], ["CCO", "CCO"]))
    assert [scores[key] for key in FINGERPRINTS] == [None] * 3
    assert [scores[f"{key}_invalid_zero"] for key in FINGERPRINTS] == [0] * 3


@pytest.mark.parametrize("policy", ["strict", "published"])
def test_valid_are_the_rows_that_molecule_match_calls_valid(policy: str):
    for notation in ("smiles", "selfies"):
        cases = [case for name, case in CASES if name == notation]
        columns = [case.prediction for case in cases], [case.reference for case in cases]
        settings = {"policy": policy, "notation": notation}
        valid = score_rows(*columns, **settings)["valid"]
        assert valid.tolist() == matching.score_rows(*columns, **settings)["valid"].tolist()


def test_the_right_molecule_is_like_itself_even_where_no_bit_is_set():
    # Single atoms have no path, hence no bit in the RDKit fingerprint.
    pairs = ["[Na+].[Cl-]", "O", "C"], ["[Cl-].[Na+]", "O", "O"]
    rows = score_rows(*pairs)
    assert rows["rdk"].tolist() == [1, 1, 0]
    assert rows["maccs"].tolist()[:2] == rows["morgan"].tolist()[:2] == [1, 1]
    assert score_rows(*pairs, policy="published")["rdk"].tolist() == [0, 0, 0]


def test_published_drops_isotopes_which_morgan_would_see():
    pair = ["[2H]C(Cl)(Cl)C"], ["ClC(Cl)C"]
    assert aggregate(score_rows(*pair, policy="published"))["morgan"] == 1
    assert aggregate(score_rows(*pair))["morgan"] < 1


def test_selfies_are_decoded():
    scores = aggregate(score_rows(["[C][C][N]"], ["[O][C][C]"], notation="selfies"))
    assert {key: scores[key] for key in FINGERPRINTS} == by_rdkit("CCN", "CCO")


@pytest.mark.parametrize("policy", ["strict", "published"])
def test_any_resample_scores_as_its_rows_would(policy: str):
    predictions, references = zip(*[case[:2] for case in SMILES], strict=True)
    rows = score_rows(predictions, references, policy=policy)
    index = np.random.default_rng(0).integers(len(SMILES), size=len(SMILES))
    again = [predictions[i] for i in index], [references[i] for i in index]
    resampled = aggregate({key: values[index] for key, values in rows.items()})
    assert resampled == pytest.approx(aggregate(score_rows(*again, policy=policy)))


@pytest.mark.parametrize(
    ("predictions", "references", "settings", "message"),
    [
        (["C"], ["C", "O"], {}, "1 predictions but 2 references"),
        ([], [], {}, "no rows"),
        (["C"], ["C"], {"policy": "loose"}, "policy='loose': use one of strict, published"),
        (["C"], ["C"], {"notation": "inchi"}, "notation='inchi': use one of smiles, selfies"),
        (["C", 5], ["C", "C"], {}, "predictions, row 1: 5 is no text"),
        (["C", "C"], ["C", "C1CC"], {}, "references, row 1: .*'C1CC'.*drop the row"),
    ],
)
def test_bad_input_is_named(predictions, references, settings, message):
    with pytest.raises(ValueError, match=message):
        score_rows(predictions, references, **settings)


def test_a_truth_that_is_no_molecule_is_dropped_under_published():
    scores = aggregate(score_rows(["CCO", "CCO"], ["CCO", "C1CC"], policy="published"))
    assert (scores["maccs"], scores["n"], scores["n_valid"]) == (1, 2, 1)
