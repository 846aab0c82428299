# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Bootstrap intervals, against SciPy's."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from eval.bootstrap import scores_with_intervals


def mean_of(rows: dict) -> dict:
    values = rows["error"][~np.isnan(rows["error"])]
    mean = float(values.mean()) if len(values) else None
    return {"mae": mean, "n": len(rows["error"]), "spread": float(np.ptp(rows["truth"]))}


@pytest.fixture
def rows() -> dict:
    random = np.random.default_rng(1)
    return {"error": random.exponential(size=300), "truth": random.normal(size=300)}


def test_interval_is_that_of_scipy(rows: dict):
    score = scores_with_intervals(rows, mean_of)["mae"]
    expected = bootstrap(
        (rows["error"],), np.mean, n_resamples=5000, method="percentile", rng=0
    ).confidence_interval
    width = expected.high - expected.low
    assert score["value"] == rows["error"].mean()
    assert score["low"] == pytest.approx(expected.low, abs=0.1 * width)
    assert score["high"] == pytest.approx(expected.high, abs=0.1 * width)


def test_the_columns_of_a_row_stay_together(rows: dict):
    both = {"error": rows["error"], "truth": rows["error"] * 2}

    def ratio(rows: dict) -> dict:
        return {"ratio": float(rows["truth"].sum() / rows["error"].sum())}

    score = scores_with_intervals(both, ratio)["ratio"]
    assert (score["low"], score["high"]) == (pytest.approx(2), pytest.approx(2))


def test_the_seed_decides(rows: dict):
    first, same, other = (scores_with_intervals(rows, mean_of, seed) for seed in (0, 0, 1))
    assert first == same != other


def test_counts_have_no_interval_and_what_is_not_there_has_no_ends(rows: dict):
    scores = scores_with_intervals(rows, mean_of)
    assert scores["n"] == {"value": 300}
    rows["error"][:] = np.nan
    missing = scores_with_intervals(rows, mean_of)["mae"]
    assert missing == {"value": None, "low": None, "high": None}


def test_a_score_that_most_resamples_do_not_give_has_no_interval():
    rows = {"error": np.arange(5.0)}

    def of_distinct_rows(rows: dict) -> dict:
        distinct = len(set(rows["error"])) == len(rows["error"])
        return {"mae": float(rows["error"].mean()) if distinct else None}

    score = scores_with_intervals(rows, of_distinct_rows)["mae"]
    assert score == {"value": 2.0, "low": None, "high": None}
