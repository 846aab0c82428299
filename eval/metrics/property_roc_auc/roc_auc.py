# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Area under the ROC curve of predicted probabilities, by label, with gaps in the truth."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
from scipy.stats import rankdata

POLICIES = ("strict", "published")


def score_rows(
    predictions: Sequence[float | None],
    references: Sequence[int | None],
    *,
    policy: str = "strict",
    labels: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Score and truth of each row, of which `aggregate` makes the areas.

    Args:
        predictions: probability that the answer is yes, 0 to 1. None, for a model that gave none,
            is an error under `"strict"` and an answer below No under `"published"`.
        references: 1 for yes, 0 for no, None (or nan) for a gap: that row takes no part.
        policy: `"strict"` or `"published"`; the README of this folder defines them.
        labels: what was asked for in each row, if it was not the same in all.

    Returns:
        Arrays [n]: `score` and `reference` of float64, both nan at a gap, and `label` of int64, a
        number for each name in `labels`.

    Raises:
        ValueError: no rows, lengths that differ, an unknown policy, a reference that is neither 0
            nor 1 nor a gap, or a prediction that is no probability.
    """
    _check(predictions, references, policy, labels)
    true = np.array([_true(value, row) for row, value in enumerate(references)])
    scores = [
        math.nan if gap else _score(value, row, policy)
        for row, (value, gap) in enumerate(zip(predictions, np.isnan(true), strict=True))
    ]
    names = [""] * len(references) if labels is None else list(labels)
    return {
        "score": np.array(scores),
        "reference": true,
        "label": np.unique(names, return_inverse=True)[1],
    }


def aggregate(rows: Mapping[str, np.ndarray]) -> dict[str, float | int | None]:
    """Scores of the rows, or of any resample `{key: value[index] for key, value in rows.items()}`.

    Returns:
        `roc_auc`, the mean over the labels that have both a yes and a no (as MoleculeNet has it;
        None where no label has); `n` rows, `n_valid` of them no gaps.
    """
    known = ~np.isnan(rows["reference"])
    score, true, label = (rows[key][known] for key in ("score", "reference", "label"))
    areas = [_area(score[label == code], true[label == code] == 1) for code in np.unique(label)]
    areas = [area for area in areas if area is not None]
    return {
        "roc_auc": float(np.mean(areas)) if areas else None,
        "n": len(known),
        "n_valid": int(known.sum()),
    }


def _area(score: np.ndarray, positive: np.ndarray) -> float | None:
    """Share of the pairs of a yes and a no that the scores put in order; ties count as half."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return None
    # Mann-Whitney: from the sum of ranks follows in how many pairs the yes stands higher.
    in_order = rankdata(score)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(in_order / (n_positive * n_negative))


def _score(value: float | None, row: int, policy: str) -> float:
    if value is None and policy == "published":
        return -1.0
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1:
        # The scripts rank the words of the answers: Yes above No.
        return float(value > 0.5) if policy == "published" else float(value)
    raise ValueError(
        f"predictions, row {row}: {value!r} is no probability: pass the probability of the answer "
        "Yes, from 0 to 1."
    )


def _true(value: int | None, row: int) -> float:
    if value is None or (isinstance(value, Real) and (math.isnan(value) or value in (0, 1))):
        return math.nan if value is None else float(value)
    raise ValueError(
        f"references, row {row}: {value!r} is neither 1 nor 0: pass None where the answer is not "
        "known."
    )


def _check(
    predictions: Sequence, references: Sequence, policy: str, labels: Sequence | None
) -> None:
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r}: use one of {', '.join(POLICIES)}.")
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references: pass one prediction "
            "per row."
        )
    if len(predictions) == 0:
        raise ValueError("There are no rows to score: pass at least one prediction.")
    if labels is not None and len(labels) != len(references):
        raise ValueError(
            f"{len(labels)} labels but {len(references)} references: pass one name per row."
        )
