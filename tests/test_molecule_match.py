# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Molecule match: hand-made cases, published definitions, and nltk and RDKit as oracles."""

import math
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import selfies
from molecule_cases import CASES, SELFIES, SMILES, Case
from nltk import edit_distance
from nltk.translate.bleu_score import corpus_bleu
from rdkit import Chem, RDConfig, rdBase

from eval.metrics.molecule_match.matching import MEANS, aggregate, score_rows

DIGITS = ("valid", "exact_match", "exact_match_no_stereo", "exact_match_inchi")
NCI = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"


def score(predictions, references, **settings):
    return aggregate(score_rows(predictions, references, **settings))


@pytest.fixture(scope="module")
def molecules() -> list[Chem.Mol]:
    """300 molecules of the NCI list, many of them tautomers, salts or with stereo."""
    with rdBase.BlockLogs():
        mols = [Chem.MolFromSmiles(line.split()[0]) for line in NCI.open()]
    return random.Random(0).sample([mol for mol in mols if mol], 300)


@pytest.mark.parametrize("policy", ["strict", "published"])
@pytest.mark.parametrize(
    ("notation", "case"), CASES, ids=[f"{notation}: {case.why}" for notation, case in CASES]
)
def test_hand_made_case(notation: str, case: Case, policy: str):
    rows = score_rows([case.prediction], [case.reference], policy=policy, notation=notation)
    digits = "".join("-" if math.isnan(rows[key][0]) else f"{rows[key][0]:.0f}" for key in DIGITS)
    assert digits == getattr(case, policy), case.why


def test_there_are_enough_cases_and_none_twice():
    assert len(set(CASES)) == len(CASES) >= 50
    assert len({case.why for _, case in CASES}) > 90


@pytest.mark.parametrize(("notation", "cases"), [("smiles", SMILES), ("selfies", SELFIES)])
def test_strict_counts_every_row_and_published_the_valid_ones(notation: str, cases: list[Case]):
    columns = [case.prediction for case in cases], [case.reference for case in cases]
    n_valid = sum(case.strict[0] == "1" for case in cases)
    for policy, denominator in (("strict", len(cases)), ("published", n_valid)):
        scores = score(*columns, policy=policy, notation=notation)
        assert (scores["n"], scores["n_valid"]) == (len(cases), n_valid)
        assert scores["validity"] == n_valid / len(cases)
        for position, key in enumerate(DIGITS[1:], start=1):
            right = sum(getattr(case, policy)[position] == "1" for case in cases)
            assert scores[key] == pytest.approx(right / denominator)


def test_levenshtein_is_of_raw_texts_in_all_rows_and_canonical_in_valid_ones():
    scores = score([" OCC ", "CCO.", None, "CCN"], ["CCO", "CCO", "CCO", "OCC"])
    raw = [edit_distance(*pair) for pair in [("OCC", "CCO"), ("CCO.", "CCO"), ("", "CCO")]]
    assert scores["levenshtein"] == (sum(raw) + edit_distance("CCN", "OCC")) / 4
    assert scores["levenshtein_canonical"] == (0 + edit_distance("CCN", "CCO")) / 2


def test_levenshtein_canonical_of_selfies_is_that_of_their_smiles():
    settings = {"notation": "selfies"}
    scores = score(["[C][C][N]"], ["[O][C][C]"], **settings)
    assert scores["levenshtein"] == edit_distance("[C][C][N]", "[O][C][C]")
    assert scores["levenshtein_canonical"] == edit_distance("CCN", "CCO")
    published = score(["[C][C][N]"], ["[O][C][C]"], policy="published", **settings)
    assert published["levenshtein"] == published["levenshtein_canonical"] == 1


def nltk_bleu(predictions: list[str], references: list[str]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no 4-gram matches
        return corpus_bleu([[list(text)] for text in references], [list(t) for t in predictions])


@pytest.mark.parametrize("length", [3, 12, 200])
def test_bleu_is_that_of_nltk(length: int):
    draw = random.Random(length)
    texts = ["".join(draw.choices("CNO()=1", k=draw.randint(0, length))) for _ in range(60)]
    references = ["CCO", "C1CCCCC1", "c1ccccc1C(=O)O"] * 20
    texts[1::3] = references[1::3]
    bleu = score(texts, references)["bleu"]
    assert bleu == pytest.approx(nltk_bleu(texts, references), rel=1e-9)
    assert 0 < bleu < 1


def test_bleu_without_a_shared_4_gram_is_zero():
    assert score(["CCO"], ["CCO"])["bleu"] == 0 == pytest.approx(nltk_bleu(["CCO"], ["CCO"]))
    assert score([""], ["CCO"])["bleu"] == 0
    assert score(["C1CCCCC1"], ["C1CCCCC1"])["bleu"] == 1


def test_random_spellings_match_and_other_molecules_do_not(molecules):
    references = [Chem.MolToSmiles(mol) for mol in molecules]
    spelled = [
        ".".join(reversed(Chem.MolToRandomSmilesVect(mol, 1, randomSeed=7)[0].split(".")))
        for mol in molecules
    ]
    assert spelled != references
    assert score(spelled, references)["exact_match"] == 1
    others = references[1:] + references[:1]
    different = [one != other for one, other in zip(references, others, strict=True)]
    assert score(others, references)["exact_match"] == 1 - np.mean(different)


def test_inchi_is_that_of_rdkit_although_few_are_computed(molecules):
    # Pairs of one formula, half of them different: only for these InChIs are computed at all.
    by_formula = [
        ("OC1=CC=CC=N1", "O=C1C=CC=CN1"),
        ("CC(O)=CC", "CC(=O)CC"),
        ("[NH4+].[Cl-]", "N.Cl"),
        ("C[C@H](F)O", "C[C@@H](F)O"),
        ("CCCO", "CC(C)O"),
        ("C[N+](C)(C)C.[OH-]", "CN(C)C.CO"),
    ]
    smiles = [Chem.MolToSmiles(mol) for mol in molecules]
    pairs = by_formula + list(zip(smiles, smiles[1:], strict=False))
    pairs += [(text.replace("@@", "@"), text) for text in smiles if "@@" in text]
    found = score_rows(*zip(*pairs, strict=True))["exact_match_inchi"]
    with rdBase.BlockLogs():
        inchis = [[Chem.MolToInchi(Chem.MolFromSmiles(text)) for text in pair] for pair in pairs]
    expected = [(one == other) and one != "" for one, other in inchis]
    assert found.tolist() == expected
    assert 2 <= sum(expected[: len(by_formula)]) <= 4


def published_scripts(predictions: list[str], references: list[str]) -> dict[str, float]:
    """The definitions of the published scripts, step by step, for SELFIES."""
    kept = []
    for prediction, reference in zip(predictions, references, strict=True):
        try:
            pair = [Chem.MolFromSmiles(selfies.decoder(text)) for text in (prediction, reference)]
        except selfies.DecoderError:
            continue
        if None not in pair:
            flat = [Chem.MolToSmiles(mol, isomericSmiles=False) for mol in pair]
            kept.append((prediction, reference, *flat))
    inchis = [[Chem.MolToInchi(Chem.MolFromSmiles(text)) for text in row[2:]] for row in kept]
    return {
        "exact_match": np.mean([one == other for one, other in inchis]),
        "levenshtein": np.mean([edit_distance(*row[2:]) for row in kept]),
        "bleu": nltk_bleu([row[0] for row in kept], [row[1] for row in kept]),
        "validity": len(kept) / len(references),
    }


def test_published_is_what_the_scripts_compute(molecules):
    draw = random.Random(1)
    predictions, references = [], []
    with rdBase.BlockLogs():
        for mol, other in zip(molecules[:120], molecules[1:], strict=False):
            try:
                truth, wrong = (selfies.encoder(Chem.MolToSmiles(m)) for m in (mol, other))
            except selfies.EncoderError:
                continue
            tokens = list(selfies.split_selfies(truth))
            draw.shuffle(tokens)
            kinds = [truth, wrong, "".join(tokens), truth + "[Foo]", truth + " it is"]
            predictions.append(draw.choice(kinds))
            references.append(truth)
        expected = published_scripts(predictions, references)
    scores = score(predictions, references, policy="published", notation="selfies")
    assert {key: scores[key] for key in expected} == pytest.approx(expected)
    assert 0.1 < expected["exact_match"] < 0.9
    assert 0.3 < expected["validity"] < 0.9


@pytest.mark.parametrize("policy", ["strict", "published"])
def test_any_resample_scores_as_its_rows_would(policy: str):
    predictions, references = zip(*[case[:2] for case in SMILES], strict=True)
    rows = score_rows(predictions, references, policy=policy)
    index = np.random.default_rng(0).integers(len(SMILES), size=len(SMILES))
    resampled = aggregate({key: values[index] for key, values in rows.items()})
    again = score([predictions[i] for i in index], [references[i] for i in index], policy=policy)
    assert resampled == pytest.approx(again)


def test_what_no_row_takes_part_in_is_none():
    strict = score(["", "C1CC"], ["CCO", "CCO"])
    assert strict["levenshtein_canonical"] is None
    assert (strict["exact_match"], strict["validity"], strict["levenshtein"]) == (0, 0, 2.5)
    published = score(["", "C1CC"], ["CCO", "CCO"], policy="published")
    assert [published[key] for key in (*MEANS, "bleu")] == [None] * 6
    assert (published["validity"], published["n"], published["n_valid"]) == (0, 2, 0)


@pytest.mark.parametrize("truth", ["C1CC", "", " ", None, "CCO is it", "C(C)(C)(C)(C)C"])
def test_a_truth_that_is_no_molecule_is_an_error_under_strict_and_dropped_under_published(truth):
    with pytest.raises(ValueError, match=r"references, row 1: .*(drop the row|None|dot)"):
        score(["CCO", truth], ["CCO", truth])
    scores = score(["CCN", truth, "CCO"], ["CCO", truth, "CCO"], policy="published")
    assert (scores["exact_match"], scores["n"], scores["n_valid"]) == (0.5, 3, 2)


@pytest.mark.parametrize(
    ("predictions", "references", "settings", "message"),
    [
        (["C"], ["C", "O"], {}, "1 predictions but 2 references"),
        ([], [], {}, "no rows"),
        (["C"], ["C"], {"policy": "loose"}, "policy='loose': use one of strict, published"),
        (["C"], ["C"], {"notation": "inchi"}, "notation='inchi': use one of smiles, selfies"),
        (["C", 5], ["C", "C"], {}, "predictions, row 1: 5 is no text"),
        (["C", "C"], ["C", ["C"]], {}, r"references, row 1: \['C'\] is no text"),
    ],
)
def test_bad_input_is_named(predictions, references, settings, message):
    with pytest.raises(ValueError, match=message):
        score_rows(predictions, references, **settings)


def test_nothing_is_written_to_the_terminal(capfd):
    score(["[H][H]", "C1CC", "[H+]", "c1cccc1", "CC*"], ["[H][H]", "CCO", "[HH]", "C", "CO*"])
    assert capfd.readouterr() == ("", "")
