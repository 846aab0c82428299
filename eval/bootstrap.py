# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Intervals by resampling rows: how far a score would move on other molecules of the same kind."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

Scores = Mapping[str, float | int | None]


def scores_with_intervals(
    rows: Mapping[str, np.ndarray],
    aggregate: Callable[[Mapping[str, np.ndarray]], Scores],
    seed: int = 0,
) -> dict[str, dict[str, float | int | None]]:
    """Scores and their percentile intervals (Efron and Tibshirani 1993, chapter 13).

    Args:
        rows: statistics by name, one entry for each row, as a metric's `score_rows` gives them.
        aggregate: the same metric's `aggregate`.
        seed: of the resampling.

    Returns:
        By score, its `value` and the ends `low` and `high` of the 95% interval. Counts, which are
        integers, have no ends; neither has a score that half of the resamples do not give.
    """
    values = aggregate(rows)
    resampled: dict[str, list[float]] = {name: [] for name in values}
    for index in resample(len(next(iter(rows.values()))), seed):
        for name, value in aggregate({key: column[index] for key, column in rows.items()}).items():
            if value is not None:
                resampled[name].append(value)
    scores = {}
    for name, value in values.items():
        scores[name] = {"value": value}
        if not isinstance(value, int):
            ends = (None, None)
            if value is not None and len(resampled[name]) > RESAMPLES / 2:
                ends = percentile_interval(resampled[name])
            scores[name] |= zip(("low", "high"), ends, strict=True)
    return scores


def resample(n: int, seed: int) -> Iterator[np.ndarray]:
    """Rows to take from n, with replacement, [n]; `RESAMPLES` times."""
    random = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield random.integers(n, size=n)


def percentile_interval(values: Sequence[float]) -> tuple[float, float]:
    """The ends between which `LEVEL` of the resampled values lie."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
