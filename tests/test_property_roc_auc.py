# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Property ROC AUC, with scikit-learn as oracle."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from eval.metrics.property_roc_auc.roc_auc import aggregate, score_rows


@pytest.fixture
def tasks() -> tuple[list[float], list[int | None], list[str]]:
    """Two labels with ties and gaps, and one without a yes."""
    draw = np.random.default_rng(0)
    probabilities = draw.random(300).round(1).tolist()
    truth = [int(draw.random() < p) for p in probabilities]
    truth[::7] = [None] * len(truth[::7])
    truth[200:] = [None if t is None else 0 for t in truth[200:]]
    return probabilities, truth, ["a"] * 120 + ["b"] * 80 + ["c"] * 100


def test_area_is_that_of_scikit_learn_over_the_known_rows(tasks):
    probabilities, truth, _ = tasks
    known = [row for row, value in enumerate(truth) if value is not None]
    scores = aggregate(score_rows(probabilities, truth))
    pair = [truth[row] for row in known], [probabilities[row] for row in known]
    assert scores["roc_auc"] == pytest.approx(roc_auc_score(*pair))
    assert 0.6 < scores["roc_auc"] < 0.95
    assert (scores["n"], scores["n_valid"]) == (300, len(known))


def test_several_labels_are_averaged_and_one_without_a_yes_left_out(tasks):
    probabilities, truth, labels = tasks
    areas = [
        aggregate(score_rows(probabilities[part], truth[part]))["roc_auc"]
        for part in (slice(0, 120), slice(120, 200), slice(200, 300))
    ]
    assert areas[2] is None
    mean = aggregate(score_rows(probabilities, truth, labels=labels))["roc_auc"]
    assert mean == pytest.approx((areas[0] + areas[1]) / 2)
    assert mean != pytest.approx(aggregate(score_rows(probabilities, truth))["roc_auc"], abs=1e-3)


@pytest.mark.parametrize(
    ("probabilities", "area"),
    [([0.1, 0.2, 0.8, 0.9], 1), ([0.9, 0.8, 0.2, 0.1], 0), ([0.5] * 4, 0.5)],
)
def test_extremes(probabilities, area):
    assert aggregate(score_rows(probabilities, [0, 0, 1, 1]))["roc_auc"] == area


def test_gaps_take_no_part_and_need_no_probability():
    scores = aggregate(score_rows([0.2, 0.9, None, 0.1], [0, 1, None, math.nan]))
    assert scores == {"roc_auc": 1, "n": 4, "n_valid": 2}
    assert aggregate(score_rows([0.2, 0.9], [None, None])) == {
        "roc_auc": None,
        "n": 2,
        "n_valid": 0,
    }


def test_published_ranks_the_words():
    probabilities, truth = [0.9, 0.6, 0.4, 0.1, 0.55, None], [1, 1, 1, 0, 0, 1]
    scores = aggregate(score_rows(probabilities, truth, policy="published"))
    assert scores["roc_auc"] == roc_auc_score(truth, [1, 1, 0, 0, 1, -1])
    strict = aggregate(score_rows(probabilities[:5], truth[:5]))
    assert strict["roc_auc"] == pytest.approx(roc_auc_score(truth[:5], probabilities[:5]))


def test_any_resample_scores_as_its_rows_would(tasks):
    rows = score_rows(*tasks[:2], labels=tasks[2])
    index = np.random.default_rng(1).integers(300, size=300)
    again = [[column[i] for i in index] for column in tasks]
    resampled = aggregate({key: values[index] for key, values in rows.items()})
    assert resampled == aggregate(score_rows(again[0], again[1], labels=again[2]))


@pytest.mark.parametrize(
    ("predictions", "references", "settings", "message"),
    [
        ([0.1], [0, 1], {}, "1 predictions but 2 references"),
        ([], [], {}, "no rows"),
        ([0.1], [0], {"policy": "loose"}, "policy='loose': use one of strict, published"),
        ([0.1, None], [0, 1], {}, "predictions, row 1: None is no probability"),
        ([0.1, 1.2], [0, 1], {}, "predictions, row 1: 1.2 is no probability"),
        ([0.1, math.nan], [0, 1], {}, "predictions, row 1: nan is no probability"),
        ([0.1, "Yes"], [0, 1], {}, "predictions, row 1: 'Yes' is no probability"),
        ([0.1, 0.2], [0, 2], {}, "references, row 1: 2 is neither 1 nor 0"),
        ([0.1, 0.2], [0, "Yes"], {}, "references, row 1: 'Yes' is neither 1 nor 0"),
        ([0.1], [0], {"labels": ["a", "b"]}, "2 labels but 1 references"),
    ],
)
def test_bad_input_is_named(predictions, references, settings, message):
    with pytest.raises(ValueError, match=message):
        score_rows(predictions, references, **settings)
