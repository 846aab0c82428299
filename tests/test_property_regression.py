# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Property regression: how answers are read, and scikit-learn and SciPy as oracles."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from eval.metrics.property_regression.regression import aggregate, score_rows


def read(text: str | None, policy: str, unit: str = "hartree") -> float | None:
    number = score_rows([text], [0.0], policy=policy, unit=unit)["prediction"][0]
    return None if math.isnan(number) else number


@pytest.mark.parametrize(
    ("text", "strict", "published"),
    [
        ("-0.2345", -0.2345, -0.2345),
        ("-0.2345 Hartree.", -0.2345, None),
        ("1.2e-3", 1.2e-3, 1.2e-3),
        (".5", 0.5, 0.5),
        ("\N{MINUS SIGN}0.25", -0.25, None),
        ("0,345", None, None),
        ("The gap is 0.25", 0.25, 0.25),
        ("0.1 or 0.2", None, 0.2),
        ("0.25\n", 0.25, 0.25),
        ("0.25.", 0.25, None),
        ("-0.2345.3", None, None),
        ("6.8 eV", None, None),
        ("nan", None, None),
        ("inf", None, None),
        ("1e999", None, None),
        ("1_0", None, None),
        ("1/4", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_answers_are_read_or_not_parsed(text, strict, published):
    assert read(text, "strict") == strict
    assert read(text, "published") == published


def test_without_a_unit_none_may_stand_behind_a_number():
    assert read("0.25 hartree", "strict", unit="") is None
    assert read("0.25", "strict", unit="") == 0.25


def test_numbers_need_no_reading():
    rows = score_rows([0.25, 1, np.float32(0.5), math.nan, math.inf], [0.0] * 5)
    assert rows["prediction"][:3].tolist() == [0.25, 1, 0.5]
    assert np.isnan(rows["prediction"][3:]).all()


def test_scores_are_those_of_scikit_learn_and_scipy():
    draw = np.random.default_rng(0)
    true = draw.normal(size=200).round(1)  # with ties
    predicted = (true + draw.normal(size=200)).round(1)
    answers = [f"{value:.1f}" for value in predicted]
    answers[::10] = ["I do not know"] * 20
    parsed = np.arange(200) % 10 != 0
    scores = aggregate(score_rows(answers, true.tolist()))
    pair = true[parsed], predicted[parsed]
    assert scores == pytest.approx(
        {
            "mae": mean_absolute_error(*pair),
            "rmse": root_mean_squared_error(*pair),
            "r2": r2_score(*pair),
            "spearman": spearmanr(*pair).statistic,
            "parsed": 0.9,
            "n": 200,
            "n_valid": 180,
        }
    )


def test_unparsed_answers_lower_the_share_and_not_the_error():
    scores = aggregate(score_rows(["0.2", None, "0.0", "?"], [0.1, 0.2, 0.3, 0.4]))
    assert scores["mae"] == pytest.approx(0.2)
    assert (scores["n"], scores["n_valid"], scores["parsed"]) == (4, 2, 0.5)


def test_what_is_not_defined_is_none():
    nothing = aggregate(score_rows(["?"], [0.1]))
    assert [nothing[key] for key in ("mae", "rmse", "r2", "spearman")] == [None] * 4
    assert nothing["parsed"] == 0
    one = aggregate(score_rows([0.5], [0.0]))
    assert (one["mae"], one["rmse"], one["r2"], one["spearman"]) == (0.5, 0.5, None, None)
    constant = aggregate(score_rows([0.5, 0.5], [0.0, 1.0]))
    assert (constant["r2"], constant["spearman"]) == (0, None)


def test_several_properties_share_an_error_but_no_correlation():
    predictions, references = [0.1, 0.2, 10.0, 11.0], [0.2, 0.1, 11.0, 10.0]
    properties = ["gap", "gap", "logP", "logP"]
    pooled = aggregate(score_rows(predictions, references, properties=properties))
    assert pooled["mae"] == pytest.approx(0.55)
    assert (pooled["r2"], pooled["spearman"]) == (None, None)
    # As one property the same rows seem to correlate, although each pair is the wrong way round.
    assert aggregate(score_rows(predictions, references))["spearman"] > 0.5


def test_any_resample_scores_as_its_rows_would():
    predictions, references = ["0.1", "?", "0.4", "0.2"], [0.2, 0.1, 0.3, 0.4]
    rows = score_rows(predictions, references)
    index = np.array([2, 2, 1, 0, 3])
    again = score_rows([predictions[i] for i in index], [references[i] for i in index])
    resampled = aggregate({key: values[index] for key, values in rows.items()})
    assert resampled == pytest.approx(aggregate(again))


@pytest.mark.parametrize(
    ("predictions", "references", "settings", "message"),
    [
        (["1"], [1, 2], {}, "1 predictions but 2 references"),
        ([], [], {}, "no rows"),
        (["1"], [1], {"policy": "loose"}, "policy='loose': use one of strict, published"),
        (["1", "1"], [1, math.nan], {}, "references, row 1: nan is not a finite number"),
        (["1", "1"], [1, None], {}, "references, row 1: None is not a finite number"),
        (["1", "1"], [1, "2"], {}, "references, row 1: '2' is not a finite number"),
        (["1", True], [1, 1], {}, "predictions, row 1: True: pass a text, a number or None"),
        (["1"], [1], {"properties": ["a", "b"]}, "2 properties but 1 references"),
    ],
)
def test_bad_input_is_named(predictions, references, settings, message):
    with pytest.raises(ValueError, match=message):
        score_rows(predictions, references, **settings)
